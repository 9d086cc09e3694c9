"""MNIST and Fashion-MNIST."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from genlab.data.archive import unpack_gzip, wholesome
from genlab.data.base import Split
from genlab.data.download import Archive, fetch
from genlab.data.folder import locked_folder
from genlab.data.image import ImageDataModule, ImageTable
from genlab.errors import ConfigError, DataError
from genlab.files.paths import read_path
from genlab.seeding import derive_seed, uniform_by_index

if TYPE_CHECKING:
    from torchvision.datasets import MNIST


_AT_ONCE = 1000  # images: binarizing takes 8 bytes a pixel, and a few times that


class Mnist(ImageDataModule):
    """70,000 handwritten digits (LeCun et al. 1998): (1, 32, 32), 60,000 to train, its 10,000 to validate.

    The 28 x 28 pixels get a frame of two black ones: it is exact and can be cut off again, and 32 can be halved five
    times where 28 can be halved twice, so one network fits this set and CIFAR-10.

    Published likelihoods of binary MNIST use other splits and pixels: 50,000 images to train, the last 10,000 of the
    training images to validate, the published 10,000 to test, at 28 x 28; and each pixel is binarized once, white with
    its gray value as probability (Salakhutdinov and Murray 2008). For that, set
    ``num_held_out=10_000 padding=0 binarize_seed=0``: another draw of the same distribution as the file of Larochelle
    and Murray (2011), whose seed is not known.
    """

    def __init__(
        self,
        root: str = "data",  # holds, or gets, MNIST/raw/
        download: bool = True,  # 11 MiB, if it is not there
        batch_size: int = 128,  # examples in a step, over all ranks together
        flip: bool = False,  # a mirrored digit is another sign
        num_workers: int = 0,
        limit: int | None = None,
        seed: int = 0,  # of the order of the data
        padding: int = 2,  # black pixels on each side of the published 28 x 28
        num_held_out: int = 0,  # training images, the last ones, to validate with; the published test images are "test"
        binarize_seed: int | None = None,  # pixels are binarized once; None: gray, as published
        only_classes: Sequence[int] | None = None,  # as of ImageDataModule
        shuffle_pixels: int | None = None,  # likewise
        shuffle_labels: int | None = None,  # likewise
        per_class: int | None = None,  # likewise
    ):
        """Raises ValueError: a negative padding, or a held-out part that leaves no training image."""
        super().__init__(
            batch_size, flip, num_workers, limit, seed, only_classes, shuffle_pixels, shuffle_labels, per_class
        )
        if padding < 0 or num_held_out < 0:
            raise ValueError(f"padding={padding} and num_held_out={num_held_out} must be 0 or more.")
        self.root, self.download = root, download
        self.padding, self.num_held_out, self.binarize_seed = padding, num_held_out, binarize_seed
        self.splits = ("train", "val", "test") if num_held_out else ("train", "val")

    def load(self, split: Split) -> ImageTable:
        """(N, 1, 28 + 2 * padding, the same) uint8. Raises ConfigError if no image is left to train on, DataError if
        files are missing and cannot be downloaded."""
        from torchvision.datasets import MNIST

        of_training = split == "train" or (split == "val" and self.num_held_out > 0)
        table = _load(MNIST, "MNIST", self.root, self.download, "train" if of_training else "val")
        if self.binarize_seed is not None:
            table = replace(table, images=binarized(table.images, derive_seed(self.binarize_seed, int(of_training))))
        table = framed(table, self.padding)
        if not of_training or not self.num_held_out:
            return table
        count = len(table) - self.num_held_out
        if count < 1:
            raise ConfigError(
                f"data.num_held_out={self.num_held_out} leaves nothing to train on: there are "
                f"{len(table)} training images. Use data.num_held_out<{len(table)}."
            )
        return table.first(count) if split == "train" else table.after(count)


class FashionMnist(ImageDataModule):
    """70,000 pieces of clothing in the format of MNIST (Xiao et al. 2017): (1, 32, 32), framed like MNIST."""

    def __init__(
        self,
        root: str = "data",  # holds, or gets, FashionMNIST/raw/
        download: bool = True,  # 30 MiB, if it is not there
        batch_size: int = 128,  # examples in a step, over all ranks together
        flip: bool = False,  # mirror training images, half of the time
        num_workers: int = 0,
        limit: int | None = None,
        seed: int = 0,  # of the order of the data and of the flips
        only_classes: Sequence[int] | None = None,  # as of ImageDataModule
        shuffle_pixels: int | None = None,  # likewise
        shuffle_labels: int | None = None,  # likewise
        per_class: int | None = None,  # likewise
    ):
        super().__init__(
            batch_size, flip, num_workers, limit, seed, only_classes, shuffle_pixels, shuffle_labels, per_class
        )
        self.root, self.download = root, download

    def load(self, split: Split) -> ImageTable:
        """(60000 or 10000, 1, 32, 32) uint8. Raises DataError if files are missing and cannot be downloaded."""
        from torchvision.datasets import FashionMNIST

        return framed(_load(FashionMNIST, "Fashion-MNIST", self.root, self.download, split), 2)


def framed(table: ImageTable, padding: int) -> ImageTable:
    """The images with ``padding`` black pixels on each side."""
    frame = (padding, padding)
    return replace(table, images=np.pad(table.images, ((0, 0), (0, 0), frame, frame)))


def binarized(images: np.ndarray, seed: int) -> np.ndarray:
    """Images (N, C, H, W) uint8 in 0 and 255: each pixel is 255 with its value / 255 as probability, a function of
    (seed, image, pixel)."""
    size = images[0].size
    drawn = np.empty_like(images)
    for first in range(0, len(images), _AT_ONCE):
        part = images[first : first + _AT_ONCE]
        places = np.arange(first * size, (first + len(part)) * size)
        uniform = uniform_by_index(seed, places).reshape(part.shape)
        drawn[first : first + _AT_ONCE] = np.where(uniform * 255 < part, 255, 0)
    return drawn


def _load(source: "type[MNIST]", title: str, root: str, download: bool, split: Split) -> ImageTable:
    """(N, 1, 28, 28)."""
    shown = os.path.join(root, source.__name__, "raw", "")
    raw = read_path(shown)
    if not _complete(source, raw):
        with locked_folder(shown):
            if not _complete(source, raw):  # another process may have downloaded it
                _unpack(source, title, raw, shown, download)
    try:
        data = source(read_path(root), train=split == "train")
        images = data.data.numpy()[:, None]
    except (AssertionError, ValueError, RuntimeError, EOFError) as error:
        raise DataError(
            f"a file in {shown} is damaged. Delete those that do not end in .gz and start again."
        ) from error
    return ImageTable(images, data.targets.numpy().astype(np.int64), tuple(source.classes))


def _complete(source: "type[MNIST]", raw: Path) -> bool:
    return all((raw / name.removesuffix(".gz")).is_file() for name, _ in source.resources)


def _unpack(source: "type[MNIST]", title: str, raw: Path, shown: str, download: bool) -> None:
    archives = [Archive(name, md5, tuple(mirror + name for mirror in source.mirrors)) for name, md5 in source.resources]
    fetch(title, archives, raw, shown, download)
    for archive in archives:
        partial = raw / f"{archive.name}.part"
        with wholesome(os.path.join(shown, archive.name), "Delete it and start again."):
            unpack_gzip(raw / archive.name, partial)
        os.replace(partial, raw / archive.name.removesuffix(".gz"))

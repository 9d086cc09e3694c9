"""MNIST and the two sets published in its format."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from genlab.data.archive import unpack_gzip, wholesome
from genlab.data.base import Split
from genlab.data.download import Archive, fetch
from genlab.data.folder import locked_folder
from genlab.data.image import ImageDataModule, ImageTable
from genlab.errors import DataError
from genlab.paths import read_path

if TYPE_CHECKING:
    from torchvision.datasets import MNIST


class Mnist(ImageDataModule):
    """70,000 handwritten digits (LeCun et al. 1998): (1, 32, 32), 60,000 to train, its 10,000 to validate.

    The 28 x 28 pixels get a frame of two black ones: it is exact and can be cut off again, and 32 can be halved five
    times where 28 can be halved twice, so one network fits this set and CIFAR-10.
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
    ):
        super().__init__(batch_size, flip, num_workers, limit, seed)
        self.root, self.download = root, download

    def load(self, split: Split) -> ImageTable:
        """(60000 or 10000, 1, 32, 32) uint8. Raises DataError if files are missing and cannot be downloaded."""
        from torchvision.datasets import MNIST

        return _load(MNIST, "MNIST", self.root, self.download, split)


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
    ):
        super().__init__(batch_size, flip, num_workers, limit, seed)
        self.root, self.download = root, download

    def load(self, split: Split) -> ImageTable:
        """(60000 or 10000, 1, 32, 32) uint8. Raises DataError if files are missing and cannot be downloaded."""
        from torchvision.datasets import FashionMNIST

        return _load(FashionMNIST, "Fashion-MNIST", self.root, self.download, split)


def _load(source: "type[MNIST]", title: str, root: str, download: bool, split: Split) -> ImageTable:
    shown = os.path.join(root, source.__name__, "raw", "")
    raw = read_path(shown)
    if not _complete(source, raw):
        with locked_folder(shown):
            if not _complete(source, raw):  # another process may have been at it
                _unpack(source, title, raw, shown, download)
    try:
        data = source(read_path(root), train=split == "train")
        images = np.pad(data.data.numpy()[:, None], ((0, 0), (0, 0), (2, 2), (2, 2)))  # (N, 1, 32, 32)
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

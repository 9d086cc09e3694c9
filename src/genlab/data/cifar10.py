"""CIFAR-10, as published by its authors."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from genlab.data.archive import unpack_tar, wholesome
from genlab.data.base import Split
from genlab.data.download import Archive, fetch
from genlab.data.folder import locked_folder
from genlab.data.image import ImageDataModule, ImageTable
from genlab.files.paths import read_path


class Cifar10(ImageDataModule):
    """60,000 color photographs in 10 classes (Krizhevsky 2009): (3, 32, 32), 50,000 to train, its 10,000 to validate.

    The files are torchvision's: a folder that torchvision filled is used as it is, even if it is read-only.
    """

    def __init__(
        self,
        root: str = "data",  # holds, or gets, cifar-10-python.tar.gz and cifar-10-batches-py/
        download: bool = True,  # 163 MiB, if it is not there
        batch_size: int = 128,  # examples in a step, over all ranks together
        flip: bool = True,  # mirror training images, half of the time
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
        """(50000 or 10000, 3, 32, 32) uint8. Raises DataError if the archive is missing and cannot be downloaded."""
        table = self._read(split)
        if table is None:
            with locked_folder(self.root) as folder:
                table = self._read(split)  # another process may have unpacked it
                if table is None:
                    self._unpack(folder)
                    table = self._read(split)
        assert table is not None, "the archive has its checksum, so its members have theirs"
        return table

    def _read(self, split: Split) -> ImageTable | None:
        """None if a file is missing or does not have its checksum."""
        from torchvision.datasets import CIFAR10

        try:
            source = CIFAR10(read_path(self.root), train=split == "train")
        except RuntimeError:
            return None
        images = np.ascontiguousarray(source.data.transpose(0, 3, 1, 2))  # (N, H, W, C) -> (N, C, H, W)
        return ImageTable(images, np.array(source.targets, dtype=np.int64), tuple(source.classes))

    def _unpack(self, folder: Path) -> None:
        from torchvision.datasets import CIFAR10

        archive = Archive(CIFAR10.filename, CIFAR10.tgz_md5, (CIFAR10.url,))
        fetch("CIFAR-10", [archive], folder, os.path.join(self.root, ""), self.download)
        shown = os.path.join(self.root, archive.name)
        with wholesome(shown, "Delete it and start again."):
            unpack_tar(folder / archive.name, folder)

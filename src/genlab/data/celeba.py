"""CelebA: photographs of famous faces."""

import os
import re
import shutil
from pathlib import Path

import numpy as np

from genlab.data.archive import unpack_zip, wholesome, zip_names
from genlab.data.array_cache import cached_rows, default_folder
from genlab.data.base import Split
from genlab.data.decoding import FileDecoding
from genlab.data.folder import locked_folder
from genlab.data.image import ImageDataModule, ImageTable
from genlab.data.image_files import ImageFile
from genlab.errors import ConfigError, DataError, did_you_mean
from genlab.files.paths import read_path

_URL = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
_IMAGES, _ARCHIVE = "img_align_celeba", "img_align_celeba.zip"
_PARTITION, _ATTRIBUTES = "list_eval_partition.txt", "list_attr_celeba.txt"
_NUMBER = {"train": 0, "val": 1}  # of a split, in _PARTITION; 2 is its test split
_VALUES = {"-1", "0", "1", "2"}  # of a split or an attribute
_CROP = 140  # pixels


class CelebA(ImageDataModule):
    """202,599 aligned photographs of 10,177 faces, 178 x 218 (Liu et al. 2015): (3, S, S), the official split, 162,770
    to train and its 19,867 to validate.

    The centered square of 140 pixels is kept: the face with its hair, without most of the background, which alignment
    on eyes and mouth leaves arbitrary. It is the crop of WAE (Tolstikhin et al. 2018), NCSN (Song and Ermon 2019) and
    DDIM (Song et al. 2021), so numbers can be compared with theirs. It is resized to S x S as in
    :func:`genlab.data.decode.decode`, once, into the cache that :class:`genlab.data.image_folder.ImageFolder` uses too.

    The files are torchvision's, below ``root``/celeba. Nothing is downloaded: they are on Google Drive, which mostly
    refuses programs. An archive of the images that is there is unpacked.
    """

    def __init__(
        self,
        root: str = "data",  # holds celeba/ with the images, or their archive, and the two lists
        image_size: int = 64,  # pixels
        attribute: str | None = None,  # one of the 40, e.g. Smiling: label 1 where it is there; null: no labels
        cache_dir: str | None = None,  # null: $GENLAB_CACHE, else ~/.cache/genlab
        batch_size: int = 128,  # examples in a step, over all ranks together
        flip: bool = True,  # mirror training images, half of the time
        num_workers: int = 0,
        limit: int | None = None,
        seed: int = 0,  # of the order of the data and of the flips
    ):
        """Raises ConfigError if a value is out of its range."""
        super().__init__(batch_size, flip, num_workers, limit, seed)
        if image_size < 1:
            raise ConfigError(f"data.image_size must be a whole number >= 1, got {image_size}.")
        self.shown = os.path.join(root, "celeba", "")
        self.folder = read_path(self.shown)
        self.image_size, self.attribute = image_size, attribute
        self.cache = read_path(cache_dir) if cache_dir else default_folder()

    def load(self, split: Split) -> ImageTable:
        """Decode a split, or find it in the cache: (N, 3, S, S) uint8.

        Raises:
            DataError: files are missing, damaged or not what their names say.
            ConfigError: there is no such attribute.
            StorageError: the archive cannot be unpacked, or the cache not be written.
        """
        self._require_files()
        partition = self._column(_PARTITION, 0)
        names = sorted(name for name, number in partition.items() if number == _NUMBER[split])
        if not names:
            raise DataError(f"{self.shown}{_PARTITION} names no image of the {split} split. Fetch it again: {_URL}")
        labels = None if self.attribute is None else self._labels(names, self.attribute)
        remedy = f"Delete {self.shown}{_IMAGES} and unpack {_ARCHIVE} again."
        decoding = FileDecoding(
            str(self.folder / _IMAGES), self._files(names), self.image_size, 3, crop=_CROP, remedy=remedy
        )
        pixels, _ = cached_rows(self.cache, decoding.key(), decoding.rows)
        return ImageTable(pixels, labels, () if labels is None else (f"not {self.attribute}", str(self.attribute)))

    def _require_files(self) -> None:
        """Unpack the images if need be. Raises DataError, naming them, if files are missing."""
        lists = [_PARTITION] if self.attribute is None else [_PARTITION, _ATTRIBUTES]
        missing = [name for name in lists if not (self.folder / name).is_file()]
        if not (self.folder / _IMAGES).is_dir() and not (self.folder / _ARCHIVE).is_file():
            missing.insert(0, _ARCHIVE)
        if missing:
            listed = " and ".join(part for part in (", ".join(missing[:-1]), missing[-1]) if part)
            raise DataError(f"CelebA is not in {self.shown}. Put {listed} there, from {_URL}")
        if not (self.folder / _IMAGES).is_dir():
            with locked_folder(self.shown) as folder:
                if not (folder / _IMAGES).is_dir():  # another process may have been at it
                    self._unpack(folder)

    def _unpack(self, folder: Path) -> None:
        """Unpack the images and nothing else; they appear once all are there."""
        partial = folder / f"{_IMAGES}.part"
        shutil.rmtree(partial, ignore_errors=True)
        shown = f"{self.shown}{_ARCHIVE}"
        try:
            with wholesome(shown, f"Fetch it again: {_URL}"):
                images = [name for name in zip_names(folder / _ARCHIVE) if re.fullmatch(rf"{_IMAGES}/\w+\.jpg", name)]
                if not images:
                    raise DataError(f"{shown} holds no {_IMAGES}/*.jpg. Fetch it again: {_URL}")
                unpack_zip(folder / _ARCHIVE, partial, images)
        except DataError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        os.replace(partial / _IMAGES, folder / _IMAGES)
        partial.rmdir()

    def _files(self, names: list[str]) -> list[ImageFile]:
        files, missing = [], []
        for name in names:
            try:
                status = os.stat(self.folder / _IMAGES / name)
                files.append(ImageFile(name, status.st_size, status.st_mtime_ns))
            except FileNotFoundError:
                missing.append(name)
        if missing:
            raise DataError(
                f"{len(missing)} of {len(names)} images are not in {self.shown}{_IMAGES} ({missing[0]} for one). "
                f"Delete that folder and unpack {_ARCHIVE} again."
            )
        return files

    def _labels(self, names: list[str], attribute: str) -> np.ndarray:
        """(N,) int64: 1 where the image has the attribute, else 0."""
        with open(self.folder / _ATTRIBUTES) as file:
            file.readline()  # the number of images
            known = file.readline().split()
        if attribute not in known:
            guess = did_you_mean(attribute, known)
            raise ConfigError(f"unknown data.attribute '{attribute}'.{guess} Available: {', '.join(known)}.")
        values = self._column(_ATTRIBUTES, known.index(attribute), skip=2)
        if absent := [name for name in names if name not in values]:
            raise DataError(f"{self.shown}{_ATTRIBUTES} lacks {absent[0]}. Fetch it again: {_URL}")
        return np.array([values[name] > 0 for name in names], dtype=np.int64)

    def _column(self, file_name: str, column: int, skip: int = 0) -> dict[str, int]:
        """The numbers of a column, by the image name at the start of each line."""
        values = {}
        with open(self.folder / file_name) as file:
            for number, line in enumerate(file, 1):
                if number <= skip or not line.strip():
                    continue
                name, *words = line.split()
                if not re.fullmatch(r"\w+\.jpg", name) or len(words) <= column or words[column] not in _VALUES:
                    raise DataError(f"line {number} of {self.shown}{file_name} cannot be read. Fetch it again: {_URL}")
                values[name] = int(words[column])
        return values

"""A folder of image files of any size."""

import logging
from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np

from genlab.data.archive_root import unpacked_root
from genlab.data.array_cache import cached_rows, default_folder
from genlab.data.base import Split
from genlab.data.decode import Bits, Channels, Size, checked_size
from genlab.data.decoding import FileDecoding
from genlab.data.image import ImageDataModule, ImageTable
from genlab.data.image_files import ImageFile, class_names, counted, list_images, split_files
from genlab.errors import ConfigError, DataError
from genlab.paths import read_path

_log = logging.getLogger(__name__)


class ImageFolder(ImageDataModule):
    """PNG, JPEG, WebP, GIF, BMP, TIFF and PPM files under a folder: (channels, H, W). Others are counted and told of.
    A .zip, .tar, .tar.gz or .tgz is unpacked into the cache once and stands for its folder.

    Folders at the top are classes, in sorted order, and whatever lies below them belongs to them; a folder without
    images is no class. Images all at the top have no labels. A mixture is refused. See
    :func:`genlab.data.decode.decode` for what happens to sizes, colours, transparency and orientation.

    Images are decoded once, by all CPUs, into a cache that later runs map into memory. Its key is made of the names,
    sizes and times of the files and of the settings here, so a change of any of them decodes again. Old entries stay
    until they are deleted; they can be at any time.
    """

    def __init__(
        self,
        root: str,  # folder of images, or of one folder a class; or a .zip, .tar or .tar.gz of such a folder
        val_root: str | None = None,  # the held-out images; null: a fixed part of root, see val_fraction
        val_fraction: float = 0.1,  # in (0, 1): held out by the hash of the file name, so it stays when files are added
        image_size: Size | None = None,  # side in pixels, or [height, width]; null: the files are squares of one size
        channels: Channels = 3,  # 1: grey, 2: grey + alpha, 3: RGB, 4: RGBA
        bits: Bits = 8,  # of a channel; 16 for grey files of 16 bits
        folders_are_classes: bool = False,  # also where they are called train, test and the like
        on_bad: Literal["stop", "skip"] = "stop",  # a damaged file: stop, or leave out up to 0.1 % of the files
        cache_dir: str | None = None,  # null: $GENLAB_CACHE, else ~/.cache/genlab
        batch_size: int = 128,  # examples in a step, over all ranks together
        flip: bool = False,  # mirror training images, half of the time
        num_workers: int = 0,
        limit: int | None = None,
        seed: int = 0,  # of the order of the data and of the flips
    ):
        """Raises ConfigError if a value is out of its range."""
        super().__init__(batch_size, flip, num_workers, limit, seed)
        if not 0 < val_fraction < 1:
            raise ConfigError(f"data.val_fraction must lie between 0 and 1, got {val_fraction}.")
        self.val_fraction = val_fraction
        self.image_size = checked_size(image_size)
        self.channels, self.bits, self.on_bad = channels, bits, on_bad
        self.folders_are_classes = folders_are_classes
        self.cache = read_path(cache_dir) if cache_dir else default_folder()
        self._roots = root, val_root

    @cached_property
    def root(self) -> str:
        """The folder of the images. Raises DataError or StorageError where an archive cannot be unpacked."""
        return unpacked_root(self._roots[0], self.cache)

    @cached_property
    def val_root(self) -> str | None:
        """The folder of held-out images of their own."""
        return None if self._roots[1] is None else unpacked_root(self._roots[1], self.cache)

    def load(self, split: Split) -> ImageTable:
        """Decode a split, or find it in the cache.

        Raises:
            DataError: there are no images, or some are damaged, of unequal sizes or of an unsupported format.
            StorageError: the cache cannot be written.
        """
        root, files, names = self._files(split)
        expected = self.table("train").images.shape[-1] if split == "val" and self.image_size is None else None
        decoding = FileDecoding(
            root, files, self.image_size, self.channels, on_bad=self.on_bad, expected=expected, bits=self.bits
        )
        pixels, kept = cached_rows(self.cache, decoding.key(), decoding.rows)
        if len(kept) < len(files):
            _log.warning(
                "left out %d of %d images in %s that cannot be read.", len(files) - len(kept), len(files), root
            )
        if self.image_size is None and pixels.shape[-1] != (expected or pixels.shape[-1]):
            decoding.refuse_size(files[int(kept[0])], pixels.shape)
        if not names:
            return ImageTable(pixels)
        index = {name: i for i, name in enumerate(names)}
        labels = np.array([index[files[i].folder or ""] for i in kept], dtype=np.int64)
        return ImageTable(pixels, labels, names)

    def _files(self, split: Split) -> tuple[str, list[ImageFile], tuple[str, ...]]:
        """Where the files of a split are, which they are, and the classes, always those of the training folder."""
        files, others = list_images(self.root)
        names = class_names(self.root, files, self.folders_are_classes)
        if split == "train":
            _tell_of(others, self.root)
        if self.val_root is None:
            if len(files) < 2:
                raise DataError(f"{self.root} has one image; one to train and one to hold out are the least.")
            train, held_out = split_files(files, self.val_fraction)
            return self.root, train if split == "train" else held_out, names
        if split == "train":
            return self.root, files, names
        held_out, others = list_images(self.val_root)
        _tell_of(others, self.val_root)
        held_out_names = class_names(self.val_root, held_out, self.folders_are_classes)
        if bool(names) != bool(held_out_names):
            raise DataError(f"only one of {self.root} and {self.val_root} has folders for classes; both or none must.")
        if unknown := sorted(set(held_out_names) - set(names)):
            raise DataError(f"{self.val_root} has the class '{unknown[0]}', which {self.root} has not.")
        return self.val_root, held_out, names


def _tell_of(others: Sequence[str], root: str) -> None:
    if others:
        _log.warning("%d files in %s are no images that are read: %s.", len(others), root, counted(others))

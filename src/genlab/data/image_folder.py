"""A folder of image files of any size."""

import logging
from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np

from genlab.data.archive_root import unpacked_root
from genlab.data.array_cache import cached_rows, default_folder, digest, found_rows
from genlab.data.base import Split
from genlab.data.decode import DECODER, Bits, Channels, Size, checked_size
from genlab.data.decoding import FileDecoding
from genlab.data.image import ImageDataModule, ImageTable
from genlab.data.image_files import (
    ImageFile,
    Seen,
    class_names,
    counted,
    digest_of,
    images_of,
    look,
    other_names,
    split_files,
)
from genlab.data.remembered import recall, remember
from genlab.errors import ConfigError, DataError
from genlab.files.paths import read_path

_log = logging.getLogger(__name__)


class ImageFolder(ImageDataModule):
    """PNG, JPEG, WebP, GIF, BMP, TIFF and PPM files under a folder: (channels, H, W). Other files are counted and
    reported. A .zip, .tar, .tar.gz or .tgz is unpacked into the cache once.

    Folders at the top are classes, in sorted order, with all images below them; a folder without
    images is not a class. If all images are at the top there are no labels. A mixture is refused. See
    :func:`genlab.data.decode.decode` for what happens to sizes, colors, transparency and orientation.

    Images are decoded once, by all CPUs, into a cache that later runs map into memory. Its key is made of the names,
    sizes and times of the files and of the settings here, so a change of any of them decodes again; an index under the
    same key saves later runs the sorting and splitting. A file rewritten with the same size and its
    old time is not noticed. Old entries are kept until they are deleted, which is possible at any time.
    """

    def __init__(
        self,
        root: str,  # folder of images, or of one folder a class; or a .zip, .tar or .tar.gz of such a folder
        val_root: str | None = None,  # the held-out images; null: a fixed part of root, see val_fraction
        val_fraction: float = 0.1,  # in (0, 1): held out by the hash of the file name, so it stays when files are added
        image_size: Size | None = None,  # side in pixels, or [height, width]; null: the files are squares of one size
        channels: Channels = 3,  # 1: gray, 2: gray + alpha, 3: RGB, 4: RGBA
        bits: Bits = 8,  # of a channel; 16 for gray files of 16 bits
        folders_are_classes: bool = False,  # also if they are named train, test and the like
        on_bad: Literal["stop", "skip"] = "stop",  # a damaged file: stop, or leave out up to 0.1 % of the files
        cache_dir: str | None = None,  # null: $GENLAB_CACHE, else ~/.cache/genlab
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
        """Raises ConfigError if a value is out of its range."""
        super().__init__(
            batch_size, flip, num_workers, limit, seed, only_classes, shuffle_pixels, shuffle_labels, per_class
        )
        if not 0 < val_fraction < 1:
            raise ConfigError(f"data.val_fraction must lie between 0 and 1, got {val_fraction}.")
        self.val_fraction = val_fraction
        self.image_size = checked_size(image_size)
        self.channels, self.bits, self.on_bad = channels, bits, on_bad
        self.folders_are_classes = folders_are_classes
        self.cache = read_path(cache_dir) if cache_dir else default_folder()
        self._seen: dict[str, list[Seen]] = {}  # by folder
        self._roots = root, val_root

    @cached_property
    def root(self) -> str:
        """The folder of the images. Raises DataError or StorageError where an archive cannot be unpacked."""
        return unpacked_root(self._roots[0], self.cache)

    @cached_property
    def val_root(self) -> str | None:
        """The separate folder of held-out images."""
        return None if self._roots[1] is None else unpacked_root(self._roots[1], self.cache)

    def load(self, split: Split) -> ImageTable:
        """Decode a split, or find it in the cache.

        Raises:
            DataError: there are no images, or some are damaged, of unequal sizes or of an unsupported format.
            StorageError: the cache cannot be written.
        """
        expected = self.table("train").images.shape[-1] if split == "val" and self.image_size is None else None
        table = self._indexed(split, expected) or self._decoded(split, expected)
        if split == "val":
            self._seen.clear()
        return table

    def _indexed(self, split: Split, expected: int | None) -> ImageTable | None:
        """The split as it was last decoded from the same files; None if it never was."""
        index = recall(self.cache, self._index(split, expected))
        try:
            found = None if index is None else found_rows(self.cache, str(index["pixels"]))
            if index is None or found is None or found[0].shape[-1] != (expected or found[0].shape[-1]):
                return None
            labels = None if index["labels"] is None else np.array(index["labels"], dtype=np.int64)
            names, count, root = tuple(map(str, index["names"])), int(index["files"]), str(self.root)
        except (KeyError, TypeError, ValueError):
            return None
        pixels, kept = found
        if labels is not None and len(labels) != len(pixels):
            return None
        for place in (self.root,) if split == "train" else () if self.val_root is None else (self.val_root,):
            _tell_of(other_names(self._look(place)), place)
        if split == "val" and self.val_root is not None:
            root = self.val_root
        _tell_of_bad(count - len(kept), count, root)
        return ImageTable(pixels, labels, names, entry=(self.cache, str(index["pixels"])))

    def _index(self, split: Split, expected: int | None) -> str:
        """The key of the index: a hash of all files of the folders, and all settings."""
        places = [digest_of(self._look(place)) for place in (self.root, self.val_root) if place is not None]
        settings = (self.val_fraction, self.image_size, self.channels, self.bits, self.folders_are_classes, self.on_bad)
        return f"index-{digest(1, DECODER, places, settings, split, expected)}"

    def _look(self, place: str) -> list[Seen]:
        """The files in a folder, listed once for both splits."""
        if place not in self._seen:
            self._seen[place] = look(place)
        return self._seen[place]

    def _decoded(self, split: Split, expected: int | None) -> ImageTable:
        root, files, names = self._files(split)
        decoding = FileDecoding(
            root, files, self.image_size, self.channels, on_bad=self.on_bad, expected=expected, bits=self.bits
        )
        pixels, kept = cached_rows(self.cache, decoding.key(), decoding.rows)
        _tell_of_bad(len(files) - len(kept), len(files), root)
        if self.image_size is None and pixels.shape[-1] != (expected or pixels.shape[-1]):
            decoding.refuse_size(files[int(kept[0])], pixels.shape)
        places = {name: i for i, name in enumerate(names)}
        labels = np.array([places[files[i].folder or ""] for i in kept], dtype=np.int64) if names else None
        facts = {
            "pixels": decoding.key(),
            "files": len(files),
            "names": names,
            "labels": None if labels is None else labels.tolist(),
        }
        remember(self.cache, self._index(split, expected), facts)
        return ImageTable(pixels, labels, names, entry=(self.cache, decoding.key()))

    def _files(self, split: Split) -> tuple[str, list[ImageFile], tuple[str, ...]]:
        """The folder of a split, its files, and the classes, always those of the training folder."""
        files, others = images_of(self._look(self.root), self.root)
        names = class_names(self.root, files, self.folders_are_classes)
        if split == "train":
            _tell_of(others, self.root)
        if self.val_root is None:
            if len(files) < 2:
                raise DataError(f"{self.root} has one image; at least one to train and one to hold out are needed.")
            train, held_out = split_files(files, self.val_fraction)
            return self.root, train if split == "train" else held_out, names
        if split == "train":
            return self.root, files, names
        held_out, others = images_of(self._look(self.val_root), self.val_root)
        _tell_of(others, self.val_root)
        held_out_names = class_names(self.val_root, held_out, self.folders_are_classes)
        if bool(names) != bool(held_out_names):
            raise DataError(f"only one of {self.root} and {self.val_root} has folders for classes; both or none must.")
        if unknown := sorted(set(held_out_names) - set(names)):
            raise DataError(f"{self.val_root} has the class '{unknown[0]}', which {self.root} does not have.")
        return self.val_root, held_out, names


def _tell_of_bad(bad: int, count: int, root: str) -> None:
    if bad:
        _log.warning("left out %d of %d images in %s that cannot be read.", bad, count, root)


def _tell_of(others: Sequence[str], root: str) -> None:
    if others:
        _log.warning("%d files in %s are not images of a known format: %s.", len(others), root, counted(others))

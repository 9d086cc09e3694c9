"""Images in a NumPy file."""

import hashlib
import os
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from genlab.data.archive import check_zip, wholesome
from genlab.data.array_cache import cached_rows, default_folder, digest
from genlab.data.base import Split
from genlab.data.decode import DECODER, Size, checked_size, resized
from genlab.data.held_out import cached_part, rows_of
from genlab.data.image import ImageDataModule, ImageTable
from genlab.errors import ConfigError, DataError
from genlab.files.paths import read_path
from genlab.files.regular_file import kind_of

_IMAGE_KEYS = ("images", "x", "arr_0")
_LABEL_KEYS = ("labels", "y")
_DAMAGE = (ValueError, EOFError, MemoryError, OverflowError, NotImplementedError, zipfile.BadZipFile, zlib.error)
_LOOKED_AT = 1000  # images checked for values above 255
_MOST_CLASSES = 1 << 16  # a larger label is a mistake, such as an index


class Array(ImageDataModule):
    """Images in a .npy or .npz file, uint8 in 0..255 or uint16 in 0..65535: (C, H, W), C 1 to 4.

    The array is (N, H, W), (N, H, W, C) or (N, C, H, W). If both of the latter are possible, because its second and
    its last dimension are 1 or 3, it is read as (N, H, W, C); 2 and 4 channels are considered after those, the last
    dimension first. With ``image_size`` each image is resized like image files, every channel by itself, and
    kept in the cache. Labels are whole numbers from 0, in the same .npz or in a
    separate file; the classes are 0 to the largest label. No code in a file is ever run (no pickles).

    A .npy is mapped into memory, not read into it. Where a part of it is held out, each part is written once into the
    cache of :mod:`genlab.data.array_cache` and mapped from there; with ``val_path`` the file itself is mapped. A .npz
    is compressed, so it is read into memory whole: turn one that does not fit into a .npy.
    """

    def __init__(
        self,
        path: str,  # of the images, .npy or .npz
        val_path: str | None = None,  # the held-out images; null: a fixed part of path, see val_fraction
        val_fraction: float = 0.1,  # in (0, 1): held out by the hash of the index, so it stays when images are appended
        image_key: str | None = None,  # of the images in a .npz; null: images, x or arr_0
        label_key: str | None = None,  # of the labels in a .npz; null: labels or y, if there
        label_path: str | None = None,  # .npy or .npz with the labels of path; null: beside the images, or none
        val_label_path: str | None = None,  # the same for val_path
        image_size: Size | None = None,  # side in pixels, or [height, width], to resize to; null: as they are
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
        """Raises ConfigError if a value is out of its range, or lacks another that it needs."""
        super().__init__(
            batch_size, flip, num_workers, limit, seed, only_classes, shuffle_pixels, shuffle_labels, per_class
        )
        if not 0 < val_fraction < 1:
            raise ConfigError(f"data.val_fraction must lie between 0 and 1, got {val_fraction}.")
        if val_label_path is not None and val_path is None:
            raise ConfigError("data.val_label_path needs data.val_path: without it, labels come from data.label_path.")
        self.image_size = checked_size(image_size)
        self.path, self.val_path, self.val_fraction = path, val_path, val_fraction
        self.image_key, self.label_key = image_key, label_key
        self.label_path, self.val_label_path = label_path, val_label_path
        self.cache = read_path(cache_dir) if cache_dir else default_folder()

    def load(self, split: Split) -> ImageTable:
        """(N, C, H, W) uint8 or uint16.

        Raises:
            DataError: a file is missing, damaged, or holds something else than such images and labels.
            StorageError: the cache cannot be written.
        """
        images = self._images(self.path)
        labels = self._labels(self.path, self.label_path, images)
        classes = 0 if labels is None else int(labels.max()) + 1
        if self.val_path is None:
            images, labels = self._part(images, labels, split)
        elif split == "val":
            expected, kind = images.shape[1:], images.dtype
            images = self._images(self.val_path)
            if images.dtype != kind:
                raise DataError(f"{self.val_path} has images of the type {images.dtype}, {self.path} of {kind}.")
            if images.shape[1:] != expected and (self.image_size is None or images.shape[1] != expected[0]):
                same = images.shape[1] == expected[0]
                remedy = f" Set data.image_size=[{expected[1]},{expected[2]}]." * same
                raise DataError(
                    f"{self.val_path} has images of shape {images.shape[1:]}, {self.path} of {expected}.{remedy}"
                )
            labels = self._labels(self.val_path, self.val_label_path, images)
            if (labels is None) != (classes == 0):
                raise DataError(f"only one of {self.path} and {self.val_path} has labels; both or none must.")
            if labels is not None and labels.max() >= classes:
                raise DataError(
                    f"{self.val_path} has the label {labels.max()}; those of {self.path} end at {classes - 1}."
                )
        if self.image_size is not None:
            source = self.path if split == "train" or self.val_path is None else self.val_path
            cut = split if self.val_path is None else "all"
            images = self._resized(images, _key(source, images.shape, cut, self.val_fraction))
        return ImageTable(images, labels, tuple(str(label) for label in range(classes)))

    def _resized(self, images: np.ndarray, key: str) -> np.ndarray:
        """The images at the requested size, from the cache if they are there."""
        assert self.image_size is not None
        size = (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size
        if images.shape[2:] == size:
            return images
        key = f"{key}-{digest(1, DECODER, self.image_key, images.shape, size)}"
        return cached_rows(self.cache, key, lambda: (resized_channels(image, size) for image in images))[0]

    def _part(
        self, images: np.ndarray, labels: np.ndarray | None, split: Split
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The images of a split of one file, and their labels."""
        chosen = rows_of(split, len(images), self.val_fraction, self.path)
        if isinstance(images, np.memmap):
            images = cached_part(images, chosen, self.cache, _key(self.path, images.shape, split, self.val_fraction))
        else:
            images = images[chosen]
        return images, None if labels is None else labels[chosen]

    def _images(self, path: str) -> np.ndarray:
        """(N, C, H, W) uint8, mapped if the file is a .npy."""
        found = _read(path, self.image_key, _IMAGE_KEYS, "image_key")
        assert found is not None, "images are not optional"
        images, where = found.values, found.where
        if images.dtype not in (np.uint8, np.uint16):
            raise DataError(
                f"{where} has the type {images.dtype}; images must be uint8, 0 to 255, or uint16, 0 to 65535. "
                "Convert floats in [0, 1] with: (x * 255).round().astype('uint8')"
            )
        if images.ndim == 3:
            images = images[:, None]
        else:
            images = _channels_first(images, where)
        if images.size == 0:
            raise DataError(f"{where} is empty: its shape is {found.values.shape}.")
        if images.dtype == np.uint16 and images[:: -(-len(images) // _LOOKED_AT)].max() <= 255:
            raise DataError(
                f"{where} is uint16, but no value is above 255, so as 16-bit images they would be black. "
                "Save them as 8-bit ones: x.astype('uint8')"
            )
        return images

    def _labels(self, path: str, label_path: str | None, images: np.ndarray) -> np.ndarray | None:
        """(N,) int64 of the ``images`` in ``path``; None if there are none."""
        if label_path is None and isinstance(images, np.memmap):
            if self.label_key is not None:
                raise ConfigError(
                    f"data.label_key={self.label_key}: {path} is a .npy, which has no keys. Set data.label_path."
                )
            return None
        optional = label_path is None and self.label_key is None
        keys = _LABEL_KEYS if label_path is None else (*_LABEL_KEYS, "arr_0")
        found = _read(label_path or path, self.label_key, keys, "label_key", optional=optional)
        if found is None:
            return None
        labels, where = found.values, found.where
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise DataError(
                f"{where} has the shape {labels.shape} and the type {labels.dtype}; labels must be (N,) whole numbers."
            )
        if len(labels) != len(images):
            raise DataError(f"{where} has {len(labels)} labels for the {len(images)} images in {path}.")
        if labels.min() < 0:
            raise DataError(f"{where} has the label {labels.min()}; labels must be 0 or more.")
        if labels.max() >= _MOST_CLASSES:
            raise DataError(f"{where} has the label {labels.max()}; number the classes from 0 on.")
        return np.array(labels, dtype=np.int64)


def _channels_first(images: np.ndarray, where: str) -> np.ndarray:
    """(N, C, H, W) of (N, H, W, C) or (N, C, H, W). Raises DataError."""
    if images.ndim == 4:
        for counts in ((1, 3), (2, 4)):
            if images.shape[-1] in counts:
                return images.transpose(0, 3, 1, 2)
            if images.shape[1] in counts:
                return images
    raise DataError(
        f"{where} has the shape {images.shape}; images must be (N, H, W), (N, H, W, C) or (N, C, H, W) with C 1 to 4."
    )


def resized_channels(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (C, H, W) uint8 or uint16 to ``size`` (height, width) like image files, each channel by itself."""
    if image.dtype == np.uint8:
        return np.stack([np.asarray(resized(Image.fromarray(channel), size)) for channel in image])
    wide = [np.asarray(resized(Image.fromarray(channel.astype(np.float32)), size)) for channel in image]
    return np.clip(np.rint(np.stack(wide)), 0, 65535).astype(np.uint16)


@dataclass(frozen=True)
class _Found:
    values: np.ndarray
    where: str  # for messages


def _read(path: str, key: str | None, usual: tuple[str, ...], option: str, optional: bool = False) -> _Found | None:
    """The array of a .npy, mapped, or of a .npz, under ``key`` or else under the first of the ``usual`` keys.

    Raises:
        DataError: there is no such file or key, or the file is damaged or holds Python objects.
    """
    if (kind := kind_of(read_path(path), follow=True)) is not None:  # reading a FIFO would block
        raise DataError(f"{path} is {kind}, not a .npy or .npz file.")
    try:
        with np.errstate(over="ignore"):  # of an absurd shape
            content = np.load(read_path(path), mmap_mode="c", allow_pickle=False)  # copies on write: for torch
        if isinstance(content, np.ndarray):
            return _Found(content, path)
        with content, wholesome(path, "Save it again, or as a .npy if its content is right."):
            check_zip(read_path(path), content.zip)
            name = key or next((name for name in usual if name in content.files), None)
            if name is None and optional:
                return None
            if name not in content.files:
                wanted = key or " or ".join(usual)
                raise DataError(f"{path} has no {wanted} (it has: {', '.join(content.files)}). Set data.{option}.")
            return _Found(content[name], f"{path} ({name})")
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}.") from error
    except _DAMAGE as error:
        if re.search("Object arrays|Python objects", str(error)):
            raise DataError(f"{path} holds Python objects; only arrays of numbers are read.") from error
        raise DataError(f"{path} is damaged, or not a .npy or .npz file.") from error
    except OSError as error:
        raise DataError(f"cannot read {path} ({(error.strerror or str(error)).lower()}).") from error


def _key(path: str, shape: tuple[int, ...], split: str, val_fraction: float) -> str:
    """A cache key made of all that the pixels of a part depend on."""
    real = os.path.realpath(read_path(path))
    status = os.stat(real)
    made_of = (1, real, status.st_size, status.st_mtime_ns, shape, split, val_fraction)
    return f"array-{hashlib.blake2b(repr(made_of).encode(), digest_size=16).hexdigest()}"

"""Tables of decoded images, batches of them, and the base class of image datamodules."""

import hashlib
import logging
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from pytorch_lightning import Trainer
from torch import Tensor

from genlab.data.base import ConditionSpec, DataModule, DataSpec, KeyedDataset, Split, is_on_gpu
from genlab.data.captions import Captions
from genlab.data.class_counts import class_counts, remark
from genlab.data.remembered import of_array
from genlab.data.sampler import Keys
from genlab.errors import ConfigError, NumericsError
from genlab.progress import progress
from genlab.seeding import derive_seed, uniform_by_index

_log = logging.getLogger(__name__)
_HASHED_WHOLE = 2 << 30  # bytes of pixels; of more, only some rows are hashed, to start quickly
_HASHED_ROWS = 4096
_KEPT_BY_GPU = 1 << 30  # bytes of pixels, which leave most of its memory to the model


@dataclass(frozen=True)
class ImageTable:
    """A split in memory, or mapped into it: decoded pixels, labels and captions side by side."""

    images: np.ndarray  # (N, C, H, W) uint8, or uint16
    labels: np.ndarray | None = None  # (N,) int64
    names: tuple[str, ...] = ()  # of the classes
    captions: np.ndarray | None = None  # (N, T) int64; of images with several the first
    entry: tuple[Path, str] | None = None  # folder and key of the cache entry whose first rows are the images
    every_caption: Captions | None = None  # all of them, where they were written
    layouts: np.ndarray | None = None  # (N, H, W) uint8: what is where, a class for each pixel
    attributes: np.ndarray | None = None  # (N, K) float32, numbers of each image

    def __len__(self) -> int:
        return len(self.images)

    def told(self, rows: np.ndarray) -> dict[str, Tensor]:
        """The conditions of the examples ``rows`` (N,), by key, as in batches."""
        found = {"label": self.labels, "caption": self.captions, "layout": self.layouts, "attributes": self.attributes}
        return {key: torch.from_numpy(values[rows]) for key, values in found.items() if values is not None}

    def first(self, count: int) -> "ImageTable":
        return self._part(slice(count))

    def after(self, count: int) -> "ImageTable":
        return self._part(slice(count, None))

    def of_classes(self, classes: Sequence[int]) -> "ImageTable":
        """The images with one of these labels, in their order; labels stay the numbers they are.

        Raises ConfigError: there are no labels, or a class does not exist.
        """
        if self.labels is None:
            raise ConfigError("data.only_classes needs labels, and the data have none. Leave it out.")
        for number in classes:
            if not 0 <= number < len(self.names):
                raise ConfigError(f"data.only_classes: there is no class {number}. Use 0 to {len(self.names) - 1}.")
        rows = np.flatnonzero(np.isin(self.labels, list(classes)))
        if not len(rows):
            raise ConfigError(f"data.only_classes={list(classes)}: no image has one of these labels. Name others.")
        return self._rows(rows)

    def with_shuffled_pixels(self, seed: int) -> "ImageTable":
        """Every image with its pixels in another order, the same in all images of all splits: this keeps the statistics
        of single pixels and destroys the dependence of neighbors."""
        count, channels, height, width = self.images.shape
        order = np.argsort(uniform_by_index(seed, np.arange(height * width)))
        images = self.images.reshape(count, channels, -1)[:, :, order].reshape(self.images.shape)
        return replace(self, images=images, entry=None)

    def with_shuffled_labels(self, seed: int) -> "ImageTable":
        """The labels in another order, so that as many images have each label, and none says what is in the image.

        Raises ConfigError: there are no labels.
        """
        if self.labels is None:
            raise ConfigError("data.shuffle_labels needs labels, and the data have none. Leave it out.")
        return replace(self, labels=self.labels[np.argsort(uniform_by_index(seed, np.arange(len(self))))])

    def first_of_each(self, count: int) -> "ImageTable":
        """The first ``count`` images of each class, or all that it has, in their order.

        Raises ConfigError: there are no labels.
        """
        if self.labels is None:
            raise ConfigError("data.per_class needs labels, and the data have none. Leave it out.")
        rows = np.concatenate([np.flatnonzero(self.labels == label)[:count] for label in np.unique(self.labels)])
        return self._rows(np.sort(rows))

    def _rows(self, rows: np.ndarray) -> "ImageTable":
        assert self.labels is not None
        captions = None if self.captions is None else self.captions[rows]
        every = None if self.every_caption is None else self.every_caption.of(rows)
        layouts = None if self.layouts is None else self.layouts[rows]
        numbers = None if self.attributes is None else self.attributes[rows]
        return ImageTable(self.images[rows], self.labels[rows], self.names, captions, None, every, layouts, numbers)

    def _part(self, rows: slice) -> "ImageTable":
        labels = None if self.labels is None else self.labels[rows]
        captions = None if self.captions is None else self.captions[rows]
        entry = self.entry if rows.start is None else None
        every = None if self.every_caption is None else self.every_caption.of(rows)
        layouts = None if self.layouts is None else self.layouts[rows]
        numbers = None if self.attributes is None else self.attributes[rows]
        return ImageTable(self.images[rows], labels, self.names, captions, entry, every, layouts, numbers)


class ImageDataset(KeyedDataset):
    """Batches of an :class:`ImageTable`, taken by (epoch, index) keys; flips are a function of (seed, epoch, index)."""

    def __init__(self, table: ImageTable, flip: bool, seed: int):
        self.table, self.flip, self.seed = table, flip, seed

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, keys: Keys) -> dict[str, Tensor]:
        indices = np.array([index for _, index in keys])
        images = self.table.images[indices]
        if self.flip:
            flipped = self.flipped(keys[0][0], indices)
            images[flipped] = images[flipped, :, :, ::-1]
        batch = {"image": torch.from_numpy(images), "index": torch.from_numpy(indices)}
        return batch | self.table.told(indices)

    def flipped(self, epoch: int, indices: np.ndarray) -> np.ndarray:
        """Which of the images ``indices`` (N,) are mirrored in an epoch. -> (N,) bool."""
        return uniform_by_index(derive_seed(self.seed, epoch), indices) < 0.5


class Rows(ImageDataset):
    """Batches of :class:`ImageDataset` without the pixels, for a device that has those of all images: ``index``, and
    ``flipped`` (N,), which of them are mirrored."""

    def __getitem__(self, keys: Keys) -> dict[str, Tensor]:
        indices = np.array([index for _, index in keys])
        batch = {"index": torch.from_numpy(indices)} | self.table.told(indices)
        return batch | ({"flipped": torch.from_numpy(self.flipped(keys[0][0], indices))} if self.flip else {})


class ImageDataModule(DataModule):
    """Images by split. A subclass loads the pixels in :meth:`load`.

    A GPU keeps the training pixels in its memory if they are at most 1 GiB of bytes, and takes its batches from there:
    the same ones, without a copy in every step.
    """

    def __init__(
        self,
        batch_size: int = 128,
        flip: bool = False,
        num_workers: int = 0,
        limit: int | None = None,
        seed: int = 0,
        only_classes: Sequence[int] | None = None,
        shuffle_pixels: int | None = None,
        shuffle_labels: int | None = None,
        per_class: int | None = None,
    ):
        """
        Args:
            batch_size: examples in a step, over all ranks together
            flip: mirror training images left to right, half of the time
            num_workers: processes that assemble batches; decoded images are quick enough without (0)
            limit: train on the first ``limit`` images only; None: on all
            seed: of the order of the data and of the flips
            only_classes: labels of the images to train on and to compare with, e.g. [0,1,2,3,4]; None: all. Classes
                keep their numbers, so one model can be trained on several parts of a data set
            shuffle_pixels: seed of a permutation of the pixels, the same for all images, as a control without
                spatial structure (Zhang et al. 2017, arXiv:1611.03530, section 2.1); None: no permutation
            shuffle_labels: seed of a permutation of the labels over the training images, as a control that can only
                learn them by heart (the same section); other splits keep theirs. None: no permutation
            per_class: train on the first ``per_class`` images of each class only; None: on all

        Raises ValueError: ``per_class`` is less than 1.
        """
        if per_class is not None and per_class < 1:
            raise ValueError(f"data.per_class={per_class} must be 1 or more, or null for all.")
        super().__init__(batch_size, num_workers, limit, seed)
        self.only_classes, self.shuffle_pixels, self.shuffle_labels = only_classes, shuffle_pixels, shuffle_labels
        self.flip, self.per_class = flip, per_class
        self._tables: dict[Split, ImageTable] = {}
        self._pixels: Tensor | None = None  # (N, C, H, W) uint8 of the training split, on a GPU

    @abstractmethod
    def load(self, split: Split) -> ImageTable:
        """Prepare a split if needed (download, decode) and return it. Raises DataError with a remedy."""

    def table(self, split: Split) -> ImageTable:
        """The images of a split, loaded once."""
        if split not in self._tables:
            self.check_split(split, "split")
            table = self.load(split)
            if self.only_classes is not None:
                table = table.of_classes(self.only_classes)
            if self.shuffle_pixels is not None:
                table = table.with_shuffled_pixels(self.shuffle_pixels)
            if self.shuffle_labels is not None and split == "train":
                table = table.with_shuffled_labels(self.shuffle_labels)
            if self.per_class is not None and split == "train":
                table = table.first_of_each(self.per_class)
            self._tables[split] = table.first(self.limit) if split == "train" and self.limit is not None else table
        return self._tables[split]

    def caption_texts(self, tokens: np.ndarray) -> list[str]:
        """Captions (N, T), as in batches, in words."""
        names = self.spec.condition["caption"].names
        return [" ".join(names[word] for word in row if word) for row in tokens.tolist()]

    def dataset(self, split: Split) -> KeyedDataset:
        """The dataset that the loaders read. Procedural data override this."""
        return ImageDataset(self.table(split), self.flip and split == "train", self.seed)

    def dataset_on(self, trainer: Trainer) -> KeyedDataset:
        dataset = self.dataset("train")
        if not is_on_gpu(trainer) or type(dataset) is not ImageDataset or not _may_be_kept(dataset.table.images):
            return dataset
        pixels = torch.from_numpy(np.ascontiguousarray(dataset.table.images))
        self._pixels = pixels.to(trainer.strategy.root_device)
        return Rows(dataset.table, dataset.flip, dataset.seed)

    @property
    def spec(self) -> DataSpec:
        table = self.table("train")
        label = None
        if table.labels is not None:
            counts = class_counts(table.labels, len(table.names))
            empty = np.flatnonzero(counts == 0) if counts.any() else np.zeros(0, np.int64)
            label = ConditionSpec(len(table.names), table.names, empty=tuple(empty.tolist()))
        condition = {"label": label} if label else {}
        return DataSpec("image", table.images.shape[1:], condition=condition, bits=bits_of(table.images))

    def _fingerprint(self) -> dict[str, str]:
        table = self.table("train")
        return {
            "shape": "x".join(map(str, table.images.shape)),
            "pixels": _remembered_hash(table),
            **({} if table.labels is None else {"labels": content_hash(table.labels)}),
            **({} if table.captions is None else {"captions": content_hash(table.captions)}),
            **({} if table.attributes is None else {"attributes": content_hash(table.attributes)}),
        }

    def check(self, world_size: int) -> None:
        """As :meth:`DataModule.check`; warns of classes without training images, and of those with few."""
        super().check(world_size)
        label = self.spec.label
        if label is None:
            return
        labels = self.table("train").labels
        assert labels is not None, "there are classes"
        if said := remark(class_counts(labels, label.size), label.names):
            _log.warning(said)

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """Bytes to floats in [-1, 1], on the device, where it is cheapest; of :class:`Rows` the images first."""
        if "image" not in batch:
            assert self._pixels is not None
            images = self._pixels[batch["index"]]
            if "flipped" in batch:
                images = torch.where(batch["flipped"][:, None, None, None], images.flip(3), images)
            batch = {"image": images, **{key: values for key, values in batch.items() if key != "flipped"}}
        return {**batch, "image": to_float(batch["image"])}


def _may_be_kept(images: np.ndarray) -> bool:
    """Whether a GPU keeps all of them."""
    return images.dtype == np.uint8 and images.nbytes <= _KEPT_BY_GPU


def content_hash(*arrays: np.ndarray) -> str:
    """16 hex digits, a hash of pixels or labels."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def _remembered_hash(table: ImageTable) -> str:
    """:func:`_hash_of_pixels`, computed once for images that are an entry of the cache."""
    if table.entry is None:
        return _hash_of_pixels(table.images)
    folder, key = table.entry
    return of_array(folder, key, f"pixels of {len(table)}", lambda: _hash_of_pixels(table.images))


def _hash_of_pixels(images: np.ndarray) -> str:
    """16 hex digits of (N, C, H, W): of all pixels up to 2 GiB, else of 4,096 evenly spaced images."""
    count = len(images)
    rows = np.arange(count)
    if images.nbytes > _HASHED_WHOLE:
        rows = np.linspace(0, count - 1, min(count, _HASHED_ROWS)).astype(np.int64)
    digest = hashlib.sha256()
    with progress(f"hashing {len(rows):,} images", len(rows)) as advance:
        for some in np.array_split(rows, max(1, len(rows) // 64)):  # never a whole mapped file in memory
            digest.update(np.ascontiguousarray(images[some]).data)
            advance(len(some))
    return digest.hexdigest()[:16]


def to_float(images: Tensor) -> Tensor:
    """uint8 [0, 255], or uint16 [0, 65535] -> float32 [-1, 1]."""
    return images.float().div_(32767.5 if images.dtype == torch.uint16 else 127.5).sub_(1.0)


def to_pixels(images: Tensor, bits: int) -> Tensor:
    """float [-1, 1] -> uint8 or, of 16 ``bits``, uint16: rounded, values outside clamped. Raises NumericsError where
    one is not finite."""
    if bits == 8:
        return to_uint8(images)
    _check_finite(images)
    return images.double().add(1.0).mul(32767.5).round().clamp(0, 65535).to(torch.int32).to(torch.uint16)


def bits_of(images: np.ndarray) -> int:
    """The bits of a channel: 8 or 16."""
    return 8 * images.dtype.itemsize


def to_uint8(images: Tensor) -> Tensor:
    """float [-1, 1] -> uint8 [0, 255], rounded; values outside are clamped to the range.

    Raises:
        NumericsError: a value is not finite.
    """
    _check_finite(images)
    return images.float().add(1.0).mul(127.5).round().clamp(0, 255).to(torch.uint8)


def _check_finite(images: Tensor) -> None:
    if not torch.isfinite(images).all():
        raise NumericsError("the images hold values that are not finite (nan or inf); nothing was measured.")

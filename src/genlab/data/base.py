"""What a datamodule says of itself and hands out: the contract between data and the rest of genlab."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from genlab.data.sampler import Keys, ResumableBatchSampler
from genlab.errors import ConfigError, NumericsError
from genlab.seeding import derive_seed, uniform_by_index

Split = Literal["train", "val"]


@dataclass(frozen=True)
class ConditionSpec:
    """One thing that a sample can be asked for.

    A label: ``size`` classes, with their names. A caption: a vocabulary of ``size`` words, ``names``, of which number 0
    stands for nothing and fills captions up to ``length`` words.
    """

    size: int
    names: tuple[str, ...] = ()
    length: int | None = None


@dataclass(frozen=True)
class DataSpec:
    """What the data are, read off the data."""

    modality: Literal["image", "text", "video"]
    shape: tuple[int, ...]  # image (C, H, W); text (T,); video (T, C, H, W)
    vocab_size: int | None = None
    condition: Mapping[str, ConditionSpec] = field(default_factory=dict)  # "label", "caption"

    def to_config(self) -> dict[str, Any]:
        """Plain values for the config node ``spec``. A condition that the data lack is there with size null."""
        label, caption = self.condition.get("label"), self.condition.get("caption")
        return {
            "modality": self.modality,
            "shape": list(self.shape),
            "vocab_size": self.vocab_size,
            "condition": {
                "label": {"size": label and label.size, "names": list(label.names) if label else []},
                "caption": {
                    "size": caption and caption.size,
                    "length": caption and caption.length,
                    "names": list(caption.names) if caption else [],
                },
            },
        }


@dataclass(frozen=True)
class ImageTable:
    """A split in memory, or mapped into it: decoded pixels, labels and captions side by side."""

    images: np.ndarray  # (N, C, H, W) uint8
    labels: np.ndarray | None = None  # (N,) int64
    names: tuple[str, ...] = ()  # of the classes
    captions: np.ndarray | None = None  # (N, T) int64

    def __len__(self) -> int:
        return len(self.images)

    def first(self, count: int) -> "ImageTable":
        labels = None if self.labels is None else self.labels[:count]
        captions = None if self.captions is None else self.captions[:count]
        return ImageTable(self.images[:count], labels, self.names, captions)


class KeyedDataset(Dataset[dict[str, Tensor]], ABC):
    """Whole batches, taken by the (epoch, index) keys of their examples."""

    @abstractmethod
    def __len__(self) -> int:
        """Examples in an epoch."""

    @abstractmethod
    def __getitem__(self, keys: Keys) -> dict[str, Tensor]:
        """``image`` (N, C, H, W) uint8, ``index`` (N,) and, where the data have them, ``label`` (N,) and ``caption``
        (N, T), int64. A batch never spans epochs."""


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
            epoch = keys[0][0]
            flipped = uniform_by_index(derive_seed(self.seed, epoch), indices) < 0.5
            images[flipped] = images[flipped, :, :, ::-1]
        batch = {"image": torch.from_numpy(images), "index": torch.from_numpy(indices)}
        if self.table.labels is not None:
            batch["label"] = torch.from_numpy(self.table.labels[indices])
        if self.table.captions is not None:
            batch["caption"] = torch.from_numpy(self.table.captions[indices])
        return batch


class ImageDataModule(LightningDataModule, ABC):
    """Images by split. A subclass says where the pixels come from, in :meth:`load`."""

    def __init__(
        self,
        batch_size: int = 128,
        flip: bool = False,
        num_workers: int = 0,
        limit: int | None = None,
        seed: int = 0,
    ):
        """
        Args:
            batch_size: examples in a step, over all ranks together
            flip: mirror training images left to right, half of the time
            num_workers: processes that assemble batches; decoded images are quick enough without (0)
            limit: train on the first so many images only; None: on all
            seed: of the order of the data and of the flips
        """
        super().__init__()
        self.batch_size, self.flip, self.num_workers, self.limit, self.seed = batch_size, flip, num_workers, limit, seed
        self._tables: dict[Split, ImageTable] = {}
        self._position = (0, 0)  # epoch, batches of it consumed: where the next training loader starts

    @abstractmethod
    def load(self, split: Split) -> ImageTable:
        """Prepare a split if need be (download, decode) and return it. Raises DataError with a remedy."""

    def table(self, split: Split) -> ImageTable:
        """The images of a split, loaded once."""
        if split not in self._tables:
            table = self.load(split)
            self._tables[split] = table.first(self.limit) if split == "train" and self.limit is not None else table
        return self._tables[split]

    def dataset(self, split: Split) -> KeyedDataset:
        """What the loaders take batches from. Data that are made rather than stored put their own here."""
        return ImageDataset(self.table(split), self.flip and split == "train", self.seed)

    @property
    def spec(self) -> DataSpec:
        table = self.table("train")
        label = None if table.labels is None else ConditionSpec(len(table.names), table.names)
        return DataSpec("image", table.images.shape[1:], condition={"label": label} if label else {})

    def check(self, world_size: int) -> None:
        """Raises ConfigError, with what to set, if no batch can be made for ``world_size`` ranks."""
        if self.batch_size < 1:
            raise ConfigError(f"data.batch_size must be a whole number >= 1, got {self.batch_size}.")
        count = len(self.dataset("train"))
        if count < self.batch_size:
            raise ConfigError(
                f"data.batch_size={self.batch_size} leaves no batch: the training set has {count} items. "
                f"Use data.batch_size<={count}."
            )
        if self.batch_size % world_size:
            raise ConfigError(
                f"data.batch_size={self.batch_size} cannot be shared by {world_size} devices: "
                f"it counts the examples of all of them. Use a multiple of {world_size}."
            )

    def train_dataloader(self) -> DataLoader:
        trainer = self.trainer
        assert trainer is not None
        epoch, start = self._position
        dataset = self.dataset("train")
        sampler = ResumableBatchSampler(
            len(dataset), self.batch_size, self.seed, trainer.global_rank, trainer.world_size, epoch, start
        )
        return DataLoader(
            dataset,
            sampler=sampler,
            batch_size=None,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            generator=torch.Generator().manual_seed(self.seed),  # of the workers: leaves the global one alone
        )

    def val_dataloader(self) -> DataLoader:
        """The held-out split in order, this rank's share of it: example i belongs to rank i mod world size."""
        dataset = self.dataset("val")
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        indices = range(rank, len(dataset), world)
        size = max(1, self.batch_size // world)
        batches = [[(0, index) for index in indices[i : i + size]] for i in range(0, len(indices), size)]
        return DataLoader(Subset(dataset, batches), batch_size=None, num_workers=0)  # type: ignore[arg-type]

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """Bytes to floats in [-1, 1], on the device, where it costs least."""
        return {**batch, "image": to_float(batch["image"])}

    def state_dict(self) -> dict[str, Any]:
        """Where training stands after a batch: the epoch, and how many of its batches have been trained on."""
        trainer = self.trainer
        assert trainer is not None
        epoch = trainer.current_epoch  # epochs completed; those started are miscounted after a resume at an epoch's end
        batches: int = trainer.fit_loop.epoch_loop.batch_progress.current.processed  # type: ignore[attr-defined]
        if batches >= trainer.num_training_batches:
            return {"epoch": epoch + 1, "batches": 0}
        return {"epoch": epoch, "batches": batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._position = (state_dict["epoch"], state_dict["batches"])


def to_float(images: Tensor) -> Tensor:
    """uint8 [0, 255] -> float32 [-1, 1]."""
    return images.float().div_(127.5).sub_(1.0)


def to_uint8(images: Tensor) -> Tensor:
    """float [-1, 1] -> uint8 [0, 255], rounded; values outside are clamped to the range.

    Raises:
        NumericsError: a value is not finite.
    """
    if not torch.isfinite(images).all():
        raise NumericsError("the images hold values that are not finite (nan or inf); nothing was measured.")
    return images.float().add(1.0).mul(127.5).round().clamp(0, 255).to(torch.uint8)

"""The base class of datamodules, and the spec by which data describe themselves."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from pytorch_lightning import LightningDataModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from genlab.data.sampler import Keys, ResumableBatchSampler
from genlab.data.tokenizer.base import CaptionTokenizer
from genlab.data.workers import begin_worker
from genlab.errors import ConfigError

Kind = Literal["continuous", "tokens"]
Split = Literal["train", "val", "test"]  # every datamodule has the first two; DataModule.splits lists all


@dataclass(frozen=True)
class ConditionSpec:
    """A condition that the data have: a label, a caption or numbers.

    A label: ``size`` classes, with their names; ``empty`` are the numbers that no training example has, which are not
    classes. ``examples``: the conditions of some held-out examples, the same ones for every
    key, in words or numbers, so that a saved run can sample for them without its data.

    A caption: ``caption`` (N, ``length``) int64 in batches. Its tokens are numbers from 1 to ``size`` - 1, from the
    first place on without gaps. Number 0 is padding, fills the places after them, and is never a token: a caption ends
    at the first 0, or at ``length``; there are no other start or end tokens. A caption of padding alone is empty.
    ``names`` are the words of the numbers, that of 0 included, if tokens are words. ``tokenized``: the data have a
    tokenizer, of which token t is number t + 1 here; else captions are ``names`` between spaces.

    Numbers: ``attributes`` (N, ``size``) float32 in batches, from 0 to 1, which are called ``names``; ``examples`` are
    written as a user types them, "size=1,x=0.25".
    """

    size: int
    names: tuple[str, ...] = ()
    length: int | None = None
    empty: tuple[int, ...] = ()
    examples: tuple[int, ...] | tuple[str, ...] = ()
    tokenized: bool = False


@dataclass(frozen=True)
class DataSpec:
    """The kind and shape of the data, determined from the data."""

    modality: str  # "image", "text", or any other word: a signal, a video
    shape: tuple[int, ...]  # image (C, H, W); text (T,); video (T, C, H, W)
    vocab_size: int | None = None  # of tokens
    start_token: int | None = None  # first token of text without a prompt
    condition: Mapping[str, ConditionSpec] = field(default_factory=dict)  # "label", "caption"
    bits: int = 8  # of a channel of a pixel: 8 or 16

    @property
    def kind(self) -> Kind:
        """Whether examples are tokens or numbers, which is what a family takes."""
        return "continuous" if self.vocab_size is None else "tokens"

    @property
    def key(self) -> str:
        """The key of the data in batches: "tokens", or the modality."""
        return "tokens" if self.kind == "tokens" else self.modality

    @property
    def label(self) -> ConditionSpec | None:
        """The classes, where there are any."""
        return self.condition.get("label")

    @property
    def _numbers(self) -> dict[str, tuple[str, ...]]:
        return {key: _OF_NUMBERS for key in self.condition if key == "attributes"}

    def to_config(self) -> dict[str, Any]:
        """Plain values for the config node ``spec``. A condition that the data lack is included with size null."""
        return {
            "modality": self.modality,
            "kind": self.kind,
            "key": self.key,
            "shape": list(self.shape),
            "vocab_size": self.vocab_size,
            "start_token": self.start_token,
            **({} if self.bits == 8 else {"bits": self.bits}),
            "condition": {
                key: _plain(self.condition.get(key), entries)
                for key, entries in {**dict.fromkeys(self.condition, _ENTRIES), **_KNOWN, **self._numbers}.items()
            },
        }


def kind_of(spec: Mapping[str, Any]) -> Kind:
    """``DataSpec.kind`` from the values in a config, also of older runs that did not save it."""
    return "continuous" if spec.get("vocab_size") is None else "tokens"


def key_of(spec: Mapping[str, Any]) -> str:
    """``DataSpec.key`` likewise."""
    return "tokens" if kind_of(spec) == "tokens" else str(spec["modality"])


_ENTRIES = ("size", "names", "length", "empty", "examples")
_OF_NUMBERS = ("size", "names", "examples")
_KNOWN = {"label": ("size", "names", "empty", "examples"), "caption": ("size", "length", "names", "examples")}


def _plain(condition: ConditionSpec | None, entries: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {} if condition is None else {name: getattr(condition, name) for name in entries}
    lists = {name: list(found.get(name, ())) for name in entries if name in ("names", "empty", "examples")}
    plain = {name: lists.get(name, found.get(name)) for name in entries}
    return {**plain, "tokenized": True} if condition is not None and condition.tokenized else plain


class KeyedDataset(Dataset[dict[str, Tensor]], ABC):
    """A dataset that returns whole batches for lists of (epoch, index) keys."""

    @abstractmethod
    def __len__(self) -> int:
        """Examples in an epoch."""

    @abstractmethod
    def __getitem__(self, keys: Keys) -> dict[str, Tensor]:
        """``index`` (N,) and, of images, ``image`` (N, C, H, W) uint8; of text, ``tokens`` (N, T + 1) int64; of others
        the column that ``DataSpec.key`` names; where the data have them,
        ``label`` (N,) and ``caption`` (N, L), int64. A batch never spans epochs."""


def is_on_gpu(trainer: Trainer) -> bool:
    """Whether batches go to a GPU, which takes them from pinned memory while the process goes on."""
    return trainer.strategy.root_device.type == "cuda"


@runtime_checkable
class KnowsHeldOut(Protocol):
    """Data that know which held-out examples need something that no training example shows."""

    def has_held_out(self, split: Split) -> np.ndarray:
        """(N,) bool, of the examples of a split in order."""
        ...


@runtime_checkable
class HasFactors(Protocol):
    """Data that know what each example was made of."""

    def factors(self, split: Split) -> dict[str, np.ndarray]:
        """By name, whole numbers (N,) of categories and floats (N,) of continuous ones, of the examples of a split in
        order. Raises ConfigError: with these settings there are none."""
        ...


class DataModule(LightningDataModule, ABC):
    """Examples by split, in an order that a resumed run continues exactly."""

    splits: tuple[Split, ...] = ("train", "val")  # the available ones
    judged: ClassVar[str | None] = None  # what people said of examples: "preferences"; None: nothing

    def __init__(self, batch_size: int, num_workers: int = 0, limit: int | None = None, seed: int = 0):
        """
        Args:
            batch_size: examples in a step, over all ranks together
            num_workers: processes that assemble batches
            limit: train on the first ``limit`` examples only; None: on all
            seed: for the order of the data
        """
        super().__init__()
        self.batch_size, self.num_workers, self.limit, self.seed = batch_size, num_workers, limit, seed
        self._position = (0, 0)  # epoch, batches of it consumed: where the next training loader starts

    @property
    @abstractmethod
    def spec(self) -> DataSpec:
        """The spec of the data. Prepares them if needed (download, decode); raises DataError with a remedy."""

    @abstractmethod
    def dataset(self, split: Split) -> KeyedDataset:
        """The dataset that the loaders read."""

    def dataset_on(self, trainer: Trainer) -> KeyedDataset:
        """The training split as the device of ``trainer`` takes it best."""
        return self.dataset("train")

    @property
    def unit(self) -> str:
        """What an example is, several of them in words."""
        return f"{self.spec.modality}s"

    @property
    def tokenizer(self) -> CaptionTokenizer | None:
        """The tokenizer, for data that are tokens or have captions of tokens: a run saves it."""
        return None

    def keep_tokenizer(self, state: str) -> None:
        """Use the tokenizer that a run keeps, if it was read from a file, which may be gone. Raises DataError."""

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """Hashes of the training data, by part, as they were at the first call: a run is continued with the same data.
        Empty where the settings alone determine the examples."""
        return self._fingerprint()

    @abstractmethod
    def _fingerprint(self) -> dict[str, str]:
        """Hashes of the training split by part; a part has changed if its value has."""

    def check_split(self, split: Split, option: str) -> None:
        """Raises ConfigError if there is no such split; ``option`` is the option that names it."""
        if split not in self.splits:
            raise ConfigError(
                f"{option}={split}: {type(self).__name__} has no such split. Use {option}={self.splits[-1]}."
            )

    def check(self, world_size: int) -> None:
        """Raises ConfigError, with what to set, if no batch can be made for ``world_size`` ranks; DataError if a
        split is not available."""
        if self.batch_size < 1:
            raise ConfigError(f"data.batch_size must be a whole number >= 1, got {self.batch_size}.")
        count = len(self.dataset("train"))
        if count < self.batch_size:
            raise ConfigError(
                f"data.batch_size={self.batch_size} is too large: the training set has {count} items. "
                f"Use data.batch_size<={count}."
            )
        if self.batch_size % world_size:
            raise ConfigError(
                f"data.batch_size={self.batch_size} cannot be divided among {world_size} devices, "
                f"whose examples it counts together. Use a multiple of {world_size}."
            )
        self.dataset("val")  # now, not at the first evaluation

    def train_dataloader(self) -> DataLoader:
        trainer = self.trainer
        assert trainer is not None
        epoch, start = self._position
        dataset = self.dataset_on(trainer)
        sampler = ResumableBatchSampler(
            len(dataset), self.batch_size, self.seed, trainer.global_rank, trainer.world_size, epoch, start
        )
        return DataLoader(
            dataset,
            sampler=sampler,
            batch_size=None,
            num_workers=self.num_workers,
            worker_init_fn=begin_worker,
            persistent_workers=self.num_workers > 0,
            pin_memory=is_on_gpu(trainer),
            generator=torch.Generator().manual_seed(self.seed),  # for the workers; the global one is not used
        )

    def val_dataloader(self) -> DataLoader:
        """The held-out split in order, this rank's share of it: example i belongs to rank i mod world size."""
        dataset = self.dataset("val")
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        indices = range(rank, len(dataset), world)
        size = max(1, self.batch_size // world)
        batches = [[(0, index) for index in indices[i : i + size]] for i in range(0, len(indices), size)]
        pinned = self.trainer is not None and is_on_gpu(self.trainer)
        return DataLoader(Subset(dataset, batches), batch_size=None, num_workers=0, pin_memory=pinned)  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Any]:
        """The position after a batch: the epoch, and how many of its batches have been trained on."""
        trainer = self.trainer
        assert trainer is not None
        epoch = trainer.current_epoch  # epochs completed; those started are miscounted after a resume at an epoch's end
        batches: int = trainer.fit_loop.epoch_loop.batch_progress.current.processed  # type: ignore[attr-defined]
        if batches >= trainer.num_training_batches:
            return {"epoch": epoch + 1, "batches": 0}
        return {"epoch": epoch, "batches": batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises ValueError if that is not a position in the data."""
        epoch, batches = state_dict["epoch"], state_dict["batches"]
        if not (type(epoch) is type(batches) is int and epoch >= 0 and batches >= 0):
            raise ValueError(f"batch {batches!r} of epoch {epoch!r} of the data")
        self._position = (epoch, batches)

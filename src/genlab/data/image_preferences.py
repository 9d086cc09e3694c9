"""Preferences between pictures as data: pairs of files, of which one was preferred."""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from genlab.data.array_cache import cached_rows, default_folder
from genlab.data.base import KeyedDataset, Split
from genlab.data.decode import Channels, Size, checked_size
from genlab.data.decoding import FileDecoding
from genlab.data.held_out import held_out_names
from genlab.data.image import ImageDataModule, ImageDataset, ImageTable, content_hash, to_float
from genlab.data.image_files import ImageFile, list_images
from genlab.data.sampler import Keys
from genlab.data.text_files import read_text
from genlab.errors import ConfigError, DataError
from genlab.files.paths import read_path

_SIDES = ("chosen", "rejected")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PicturePair:
    """Names of two files, relative to the folder of all pictures."""

    chosen: str
    rejected: str
    tie: bool
    label: int | None  # the class that both were drawn for
    where: str  # the line that says so

    @property
    def name(self) -> str:
        return f"{self.chosen}\n{self.rejected}"


class ImagePreferences(ImageDataModule):
    """Lines of JSON with the files ``chosen`` and ``rejected``, as the export of ``genlab feedback`` has them; ``tie:
    true`` where neither is better, and ``label``, with ``num_classes``, the class that both show. (channels, H, W).

    Files are named as paths from the folder of the lines, or absolutely, and are read only if they are pictures below
    ``root``. Pairs are held out by the hash of their names. As pictures, for grids and metrics, the data are those that
    were chosen. A batch has ``rejected`` (N, C, H, W) beside ``image``, and ``tie`` (N,) bool.
    """

    judged = "judged pictures"

    def __init__(
        self,
        path: str,  # of JSON lines
        root: str | None = None,  # folder that all pictures are below; null: that of the lines
        val_fraction: float = 0.1,  # in (0, 1)
        ties: Literal["drop", "half"] = "drop",  # leave them out, or count each picture as preferred by half
        num_classes: int | None = None,  # of the labels; null: without labels
        image_size: Size | None = None,  # side in pixels, or [height, width]; null: the files are squares of one size
        channels: Channels = 3,  # 1: gray, 2: gray + alpha, 3: RGB, 4: RGBA
        cache_dir: str | None = None,  # null: $GENLAB_CACHE, else ~/.cache/genlab
        batch_size: int = 64,  # pairs in a step, over all ranks together
        num_workers: int = 0,
        limit: int | None = None,
        seed: int = 0,  # of the order of the data
    ):
        """Raises ConfigError if a value is out of its range."""
        super().__init__(batch_size, flip=False, num_workers=num_workers, limit=limit, seed=seed)
        if not 0 < val_fraction < 1:
            raise ConfigError(f"data.val_fraction must lie between 0 and 1, got {val_fraction}.")
        if ties not in ("drop", "half"):
            raise ConfigError(f"data.ties must be drop or half, got {ties}.")
        if num_classes is not None and num_classes < 1:
            raise ConfigError(f"data.num_classes must be a whole number >= 1, got {num_classes}.")
        self.path, self.val_fraction, self.ties, self.num_classes = path, val_fraction, ties, num_classes
        self.root = root if root is not None else str(read_path(path).parent)
        self.image_size, self.channels = checked_size(image_size), channels
        self.cache = read_path(cache_dir) if cache_dir else default_folder()
        self._files: dict[str, ImageFile] = {}  # below the root, by name

    @property
    def unit(self) -> str:
        return "pairs of pictures"

    @cached_property
    def _pairs(self) -> dict[Split, list[PicturePair]]:
        """Raises DataError: a line is no pair of pictures below the root, or there are fewer than two."""
        self._files = {file.name: file for file in list_images(self.root)[0]}
        found = []
        for number, line in enumerate(read_text(self.path).split("\n"), start=1):
            if line.strip():
                found.append(self._read(line, f"{self.path}, line {number}"))
        equal = [pair for pair in found if pair.chosen == pair.rejected]
        tied = [pair for pair in found if pair.tie and pair.chosen != pair.rejected] if self.ties == "drop" else []
        left_out = {id(pair) for pair in (*equal, *tied)}
        kept = [pair for pair in found if id(pair) not in left_out]
        _tell_of(equal, "the same picture twice", len(found))
        _tell_of(tied, "no better picture (data.ties=half counts half of each)", len(found))
        if len({pair.name for pair in kept}) < 2:
            raise DataError(
                f"{self.path} has {len(kept)} pairs of different pictures of which one is better; at least one to "
                "train and one to hold out are needed."
            )
        held_out = held_out_names({pair.name for pair in kept}, self.val_fraction)
        return {
            "train": [pair for pair in kept if pair.name not in held_out],
            "val": [pair for pair in kept if pair.name in held_out],
        }

    def _read(self, line: str, where: str) -> PicturePair:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not JSON ({error}). A line is one pair.") from error
        lacking = [side for side in _SIDES if not isinstance(row, dict) or not isinstance(row.get(side), str)]
        if lacking:
            raise DataError(
                f"{where}: there is no {lacking[0]} picture. A line of preferences names the files chosen and rejected."
            )
        chosen, rejected = (self._file(row[side], side, where) for side in _SIDES)
        tie = row.get("tie", False)
        if not isinstance(tie, bool):
            raise DataError(f"{where}: tie is {tie!r}, and not true or false.")
        return PicturePair(chosen, rejected, tie, self._label(row, where), where)

    def _file(self, name: str, side: str, where: str) -> str:
        """Names are compared with those of the pictures below the root, and are not opened."""
        path = os.path.join(os.path.abspath(read_path(self.path).parent), name)
        found = os.path.relpath(os.path.realpath(path), os.path.realpath(read_path(self.root)))
        if found not in self._files:
            raise DataError(
                f"{where}: {side} is {name[:200]}, which is no picture below {self.root}. Name the folder of all "
                "pictures: data.root=/path/to/pictures."
            )
        return found

    def _label(self, row: Mapping[str, Any], where: str) -> int | None:
        if self.num_classes is None:
            return None
        label = row.get("label")
        if type(label) is not int or not 0 <= label < self.num_classes:
            raise DataError(
                f"{where}: label is {label!r}, and not a class from 0 to {self.num_classes - 1}. Correct it, or leave "
                "data.num_classes out."
            )
        return label

    @cached_property
    def _decoded(self) -> tuple[np.ndarray, dict[str, int]]:
        """Of all pictures that are named, each once, and its row."""
        named = sorted({name for pairs in self._pairs.values() for p in pairs for name in (p.chosen, p.rejected)})
        files = [self._files[name] for name in named]
        decoding = FileDecoding(self.root, files, self.image_size, self.channels)
        pixels, _ = cached_rows(self.cache, decoding.key(), decoding.rows)
        return pixels, {name: row for row, name in enumerate(named)}

    def load(self, split: Split) -> ImageTable:
        """The chosen pictures of the pairs. Raises DataError or StorageError."""
        names = () if self.num_classes is None else tuple(map(str, range(self.num_classes)))
        labels = None
        if self.num_classes is not None:
            labels = np.array([pair.label for pair in self._pairs[split]], dtype=np.int64)
        return ImageTable(self._side("chosen", split), labels, names)

    def rejected(self, split: Split) -> np.ndarray:
        """(N, C, H, W) uint8, of the pairs of :meth:`table`."""
        return self._side("rejected", split)[: len(self.table(split))]

    def _side(self, side: str, split: Split) -> np.ndarray:
        pixels, rows = self._decoded
        return pixels[[rows[getattr(pair, side)] for pair in self._pairs[split]]]

    def dataset(self, split: Split) -> KeyedDataset:
        table = self.table(split)
        ties = np.array([pair.tie for pair in self._pairs[split][: len(table)]], dtype=bool)
        return PicturePairs(table, self.rejected(split), ties, self.seed)

    def _fingerprint(self) -> dict[str, str]:
        ties = np.array([pair.tie for pair in self._pairs["train"]], dtype=bool)
        return {**super()._fingerprint(), "rejected": content_hash(self.rejected("train"), ties)}

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        found = super().on_after_batch_transfer(batch, dataloader_idx)
        return {**found, "rejected": to_float(found["rejected"])}


class PicturePairs(ImageDataset):
    """The chosen pictures, ``image``, and beside each the rejected one."""

    def __init__(self, table: ImageTable, rejected: np.ndarray, ties: np.ndarray, seed: int):
        super().__init__(table, flip=False, seed=seed)
        self.rejected, self.ties = rejected, ties

    def __getitem__(self, keys: Keys) -> dict[str, Tensor]:
        rows = np.array([index for _, index in keys])
        return {
            **super().__getitem__(keys),
            "rejected": torch.from_numpy(self.rejected[rows]),
            "tie": torch.from_numpy(self.ties[rows]),
        }


def _tell_of(pairs: Sequence[PicturePair], what: str, of: int) -> None:
    if pairs and os.environ.get("LOCAL_RANK", "0") == "0":
        _log.warning(
            f"{len(pairs):,} of the {of:,} pairs of pictures have {what}; the first is {pairs[0].where}: they are left "
            "out."
        )

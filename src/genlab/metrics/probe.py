"""What probes of representations share: features of labelled images, what they learn from and what they are tested on.

A probe learns to classify features of the training split and is measured on a held-out one. Features are what the model
makes of images as they are, in eval mode, by its weights in use (averaged ones, as for any metric).
"""

import hashlib
import logging
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from genlab.data.array_cache import cached_array, default_folder, digest
from genlab.data.base import DataModule, Split
from genlab.data.image import ImageDataModule, to_float
from genlab.errors import ConfigError, StorageError
from genlab.machine.rank import rank, world
from genlab.metrics.base import Direction
from genlab.metrics.extractor.precision import full_precision
from genlab.metrics.ordered import in_order
from genlab.model.base import Model, in_eval_mode
from genlab.model.representation import features_of, is_represented, reading_of, unknown_place
from genlab.progress import progress

_log = logging.getLogger(__name__)

_SIDE = 32  # of pixels as features: larger images are shrunk
_LEAST = 5  # labelled training examples: every fifth is kept back to choose by
_OWN = "of the family"
DEPTH = "layer={} is a depth: use a value from 0 (the first block) to 1 (the last), or null."
_SIDES = ("train", "held_out")


@dataclass(frozen=True)
class Labelled:
    """Examples as features (N, D), and their labels (N,), 0 or more."""

    features: Tensor
    labels: Tensor


@dataclass(frozen=True)
class LabelledImages:
    """Images (N, C, H, W) uint8 and their labels (N,), 0 or more."""

    images: np.ndarray
    labels: np.ndarray

    def sha256(self) -> str:
        """16 hex digits."""
        digest = hashlib.sha256(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()[:16]

    def as_pixels(self, device: torch.device) -> Labelled:
        """Pixels on [-1, 1] as features, of images shrunk to sides of at most 32 by averaging."""
        images = to_float(torch.from_numpy(self.images))
        height, width = images.shape[2:]
        if max(height, width) > _SIDE:
            images = F.adaptive_avg_pool2d(images, (min(height, _SIDE), min(width, _SIDE)))
        return Labelled(images.flatten(1).to(device), torch.from_numpy(self.labels).to(device))


class Probe(Metric):
    """Collects features of up to ``num_train`` labelled training images, spread evenly over the split, and of all
    labelled images of the split that is asked for. Of the training split itself nothing can be said by what was learned
    from it: where that is asked for, ``val`` is measured, and named.

    A subclass says in :meth:`scores` what it finds, of any features: pixels too, as the baseline.
    """

    name: ClassVar[str]  # of the option in ``metrics=``
    directions: ClassVar[Mapping[str, Direction | None]]
    full_state_update = False

    train_features: list[Tensor]
    train_labels: list[Tensor]
    train_index: list[Tensor]
    held_out_features: list[Tensor]
    held_out_labels: list[Tensor]
    held_out_index: list[Tensor]

    def __init__(self, num_train: int | None, layer: float | None, noise_level: float | None):
        """Raises ValueError: a value outside its range."""
        super().__init__()
        check_place(num_train, layer, noise_level)
        self.num_train, self.layer, self.noise_level = num_train, layer, noise_level
        self._facts: dict[str, int | float | str] = {}
        self._images: tuple[LabelledImages, LabelledImages] | None = None
        self._of_pixels: tuple[str, dict[str, Tensor]] = ("", {})  # scores of pixels, and of which
        for side in _SIDES:
            for kind in ("features", "labels", "index"):
                self.add_state(f"{side}_{kind}", [], dist_reduce_fx="cat")

    @abstractmethod
    def scores(self, train: Labelled, held_out: Labelled) -> dict[str, Tensor]:
        """Scalars by name, each of which has a twin ``..._pixels`` if it has a direction."""

    def update(self, features: Tensor, labels: Tensor, index: Tensor, side: str) -> None:
        """Take in features (n, D), labels (n,) and places (n,) of images to learn from, ``train``, or of
        ``held_out`` ones."""
        for kind, rows in (("features", features), ("labels", labels), ("index", index)):
            getattr(self, f"{side}_{kind}").append(rows)

    def compute(self) -> dict[str, Tensor]:
        """What :meth:`scores` finds of the features, ``..._pixels`` of pixels, and ``..._chance``."""
        train, held_out = (
            Labelled(
                in_order(getattr(self, f"{side}_features"), getattr(self, f"{side}_index")),
                in_order(getattr(self, f"{side}_labels"), getattr(self, f"{side}_index")),
            )
            for side in _SIDES
        )
        return {
            **self.scores(train, held_out),
            **self._scores_of_pixels(),
            f"{self.name}_chance": chance(train.labels, held_out.labels),
        }

    def _scores_of_pixels(self) -> dict[str, Tensor]:
        """Computed once for the same images and settings, and kept on disk for later runs."""
        images = self._images
        assert images is not None, "measure comes first"
        names = [name for name, direction in self.directions.items() if direction is not None]

        def made() -> Iterator[np.ndarray]:
            found = self.scores(*(part.as_pixels(self.device) for part in images))
            yield np.array([float(found[name]) for name in names])

        key = f"pixels-{digest(1, self.name, self.device.type, sorted(self.settings().items()))}"
        if self._of_pixels[0] != key:
            try:
                array = cached_array(default_folder(), key, made)
            except StorageError as error:  # not worth ending a training: they can be computed again
                _log.warning("%s Scores of pixels are computed again by every run until then.", error)
                (array,) = made()
            values = torch.from_numpy(np.array(array))
            self._of_pixels = (key, {f"{name}_pixels": value for name, value in zip(names, values, strict=True)})
        return self._of_pixels[1]

    def settings(self) -> dict[str, int | float | str]:
        """With hashes of the images and labels of the latest ``measure``."""
        return {**place_settings(self.num_train, self.layer, self.noise_level), **self._facts}

    def measure(self, model: Model, data: DataModule, split: Split, batch_size: int, seed: int = 0) -> None:
        """Take in this rank's share of the features. The model may be in any mode. Raises ConfigError as
        :meth:`check`."""
        self.check(model, data)
        tested = held_out_split(split)
        images = labelled(data, "train", self.num_train, self.name), labelled(data, tested, None, self.name)
        self._images = images
        self._facts = {"split": tested, "train_sha256": images[0].sha256(), "sha256": images[1].sha256()}
        total = sum(len(range(rank(), len(part.labels), world())) for part in images)
        with (
            in_eval_mode(model),
            full_precision(model.device),
            progress(f"reading features of {total:,} images", total, quiet=rank() != 0) as advance,
        ):
            for side, part in zip(_SIDES, images, strict=True):
                mine = np.arange(len(part.labels))[rank() :: world()]
                for start in range(0, len(mine), batch_size):
                    rows = mine[start : start + batch_size]
                    x = to_float(torch.from_numpy(part.images[rows]).to(model.device))
                    found = features_of(model, x, self.layer, self.noise_level).to(self.device)
                    label, places = torch.from_numpy(part.labels[rows]), torch.from_numpy(rows)
                    self.update(found, label.to(self.device), places.to(self.device), side)
                    advance(len(rows))

    def check(self, model: Model, data: DataModule) -> None:
        """Raises ConfigError: the model has no features at this place, the data are no images, or have too few
        labels."""
        check_probed(self.name, model, data, self.num_train, self.layer, self.noise_level)

    def subject(self, model: Model, split: Split) -> str:
        return held_out_split(split)


def held_out_split(split: Split) -> Split:
    """The split that a probe is measured on: never the one that it learns from."""
    return "val" if split == "train" else split


def chance(train: Tensor, held_out: Tensor) -> Tensor:
    """The accuracy, on labels (N,), of always naming the most frequent one of ``train`` (M,)."""
    return (held_out == train.bincount().argmax()).double().mean()


def check_place(num_train: int | None, layer: float | None, noise_level: float | None) -> None:
    """Raises ValueError: a value outside its range."""
    if num_train is not None and num_train < _LEAST:
        raise ValueError(f"num_train={num_train} must be {_LEAST} or more, or null for all.")
    if layer is not None and not 0 <= layer <= 1:
        raise ValueError(DEPTH.format(layer))
    if noise_level is not None and noise_level < 0:
        raise ValueError(f"noise_level={noise_level} must be 0 or more, or null.")


def place_settings(num_train: int | None, layer: float | None, noise_level: float | None) -> dict[str, str | float]:
    """The part of a probe's settings that says which features of which images it learns from."""
    return {
        "num_train": "all" if num_train is None else num_train,
        "layer": _OWN if layer is None else layer,
        "noise_level": _OWN if noise_level is None else noise_level,
    }


def labelled(data: DataModule, split: Split, count: int | None, metric: str) -> LabelledImages:
    """The labelled images of a split, at most ``count``, spread evenly. ``metric``: its name, for the message.

    Raises ConfigError: the data are no images, or none of a split has a label.
    """
    if data.spec.modality != "image":
        raise ConfigError(
            f"metrics={metric} is for images; the data are {data.spec.modality}. Leave it out of metrics=[...]."
        )
    table = cast(ImageDataModule, data).table(split)
    known = np.zeros(0, np.int64) if table.labels is None else np.flatnonzero(table.labels >= 0)
    if not len(known):
        raise ConfigError(
            f"metrics={metric}: no image of the {split} split has a label. Leave it out of metrics=[...]."
        )
    if count is not None and count < len(known):
        known = known[np.linspace(0, len(known) - 1, count).round().astype(np.int64)]
    assert table.labels is not None
    return LabelledImages(table.images[known], table.labels[known])


def check_probed(
    metric: str, model: Model, data: DataModule, count: int | None, layer: float | None, noise_level: float | None
) -> None:
    """Raises ConfigError if the metric of this name cannot probe the model on the data."""
    train = labelled(data, "train", count, metric)
    labelled(data, "val", None, metric)
    classes, found = len(cast(ImageDataModule, data).table("train").names), len(train.labels)
    if found < max(classes, _LEAST) or len(np.unique(train.labels)) < 2:
        raise ConfigError(
            f"metrics={metric} learns from labels, and {found} training images have one of {classes} classes: too few. "
            "Leave it out of metrics=[...]."
        )
    name = type(model).__name__
    if not is_represented(model):
        raise ConfigError(f"metrics={metric}: a {name} has no features of images. Leave it out of metrics=[...].")
    if (unknown := unknown_place(model, layer, noise_level)) is not None:
        raise ConfigError(
            f"metrics.{metric}.{unknown}: {reading_of(model).what} of a {name} are read, without a {unknown}. "
            f"Use metrics.{metric}.{unknown}=null."
        )

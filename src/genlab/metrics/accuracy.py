"""Accuracy of a classifier on held-out images."""

import hashlib
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from genlab.data.base import DataModule, Split
from genlab.data.image import ImageTable, to_float
from genlab.errors import ConfigError
from genlab.machine.rank import rank, world
from genlab.metrics.base import Direction
from genlab.metrics.data_of import images_of
from genlab.metrics.extractor.precision import full_precision
from genlab.model.base import Classifies, Model


class Accuracy(Metric):
    """The share of held-out images whose class gets the largest logit, and the cross-entropy of the true class, in
    nats.

    Always on the held-out split, whatever the reference is, since a classifier may have memorized its training
    images. Images without a label (-1) are left out. Sums are in float64 over all ranks.
    """

    directions: ClassVar[Mapping[str, Direction | None]] = {"accuracy": "higher", "cross_entropy": "lower"}
    full_state_update = False

    right: Tensor
    nats: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._measured = ""
        for name in ("right", "nats", "count"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, label: Tensor) -> None:
        """Take in logits (N, K) and labels (N,), each 0 to K - 1."""
        self.right += (logits.argmax(dim=1) == label).sum()
        self.nats += F.cross_entropy(logits.double(), label, reduction="sum")
        self.count += len(label)

    def compute(self) -> dict[str, Tensor]:
        return {"accuracy": self.right / self.count, "cross_entropy": self.nats / self.count}

    def settings(self) -> dict[str, int | float | str]:
        """With a hash of the images and labels of the latest ``measure``."""
        return {"split": "val", "sha256": self._measured}

    @torch.no_grad()
    def measure(self, model: Model, data: DataModule, split: Split, batch_size: int, seed: int = 0) -> None:
        """Take in this rank's share of the held-out split. The model is in eval mode. Raises ConfigError as
        :meth:`check` does."""
        self.check(model, data)
        assert isinstance(model, Classifies)
        assert isinstance(model, Model)
        table = _held_out(data)
        assert table.labels is not None
        known = np.flatnonzero(table.labels >= 0)
        self._measured = _hash(table, known)
        mine = known[rank() :: world()]
        for start in range(0, len(mine), batch_size):
            chosen = mine[start : start + batch_size]
            with full_precision(model.device):
                logits = model.logits(to_float(torch.from_numpy(table.images[chosen]).to(model.device)))
            device = self.count.device
            self.update(logits.to(device), torch.from_numpy(table.labels[chosen]).to(device))

    def check(self, model: Model, data: DataModule) -> None:
        """Raises ConfigError: the model is not a classifier, or no held-out image has a label."""
        if not isinstance(model, Classifies):
            raise ConfigError(
                f"metrics=accuracy: a {type(model).__name__} is not a classifier. Leave it out of metrics=[...]."
            )
        table = _held_out(data)
        if table.labels is None or not (table.labels >= 0).any():
            raise ConfigError("metrics=accuracy: no held-out image has a label. Leave it out of metrics=[...].")

    def subject(self, model: Model, split: Split) -> str:
        return "val"


def _held_out(data: DataModule) -> ImageTable:
    return images_of(data, "accuracy").table("val")


def _hash(table: ImageTable, rows: np.ndarray) -> str:
    assert table.labels is not None
    digest = hashlib.sha256(np.ascontiguousarray(table.images[rows]).data)
    digest.update(np.ascontiguousarray(table.labels[rows]).data)
    return digest.hexdigest()[:16]

"""How well pictures of scenes follow the layouts that they were drawn for."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from genlab.data.base import DataModule, Split
from genlab.data.image import to_float, to_uint8
from genlab.data.scene_reader import layout_of
from genlab.errors import ConfigError
from genlab.machine.rank import rank, world
from genlab.metrics.base import Direction, short
from genlab.model.base import GenerativeModel
from genlab.model.condition import moved
from genlab.seeding import RandomStream

_HINT = "hint"


class LayoutIoU(Metric):
    """The mean over samples of the intersection over union of colors: of what a controlled model was asked for by the
    hint of a held-out picture, and of what it drew. Of a sample it is the mean over the colors that either has.

    Colors are read by a fixed rule (:func:`genlab.data.scene_reader.layout_of`); real pictures have about 1. Sample i
    is a function of (seed, i), has the hint of held-out picture i, starting again after the last, and its caption or
    label too.
    """

    directions: ClassVar[Mapping[str, Direction | None]] = {"layout_iou": "higher"}
    full_state_update = False

    total: Tensor
    count: Tensor

    def __init__(self, num_samples: int = 500):
        """Raises ConfigError if a value is out of its range."""
        super().__init__()
        if num_samples < 1:
            raise ConfigError(f"metrics.layout_iou.num_samples={num_samples} must be 1 or more.")
        self.num_samples = num_samples
        self._seed = 0
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, asked: np.ndarray, drawn: np.ndarray) -> None:
        """Layouts (N, H, W) each."""
        found = intersection_over_union(asked, drawn)
        self.total += float(found.sum())
        self.count += len(found)

    def compute(self) -> dict[str, Tensor]:
        """``layout_iou``, in [0, 1]."""
        return {"layout_iou": self.total / self.count}

    def settings(self) -> dict[str, int | float | str]:
        return {"num_samples": self.num_samples, "reader": "nearest paint", "seed": self._seed}

    @torch.no_grad()
    def measure(self, model: GenerativeModel, data: DataModule, split: Split, batch_size: int, seed: int) -> None:
        """Take in this rank's share of the samples. The model is in eval mode. Raises ConfigError as :meth:`check`."""
        self.check(model, data)
        self._seed = seed
        table: Any = data.table(split)  # type: ignore[attr-defined]
        for start in range(rank() * batch_size, self.num_samples, world() * batch_size):
            indices = range(start, min(start + batch_size, self.num_samples))
            rows = np.array(indices) % len(table)
            pictures = to_float(torch.from_numpy(table.images[rows]))
            batch = {**table.told(rows), "image": pictures, "index": torch.from_numpy(rows)}
            condition = moved(model.conditions.of(batch), model.device)
            drawn = model.sample(len(rows), condition, RandomStream.for_samples(seed, indices, model.device))
            self.update(table.layouts[rows], layout_of(to_uint8(drawn).cpu().numpy()))

    def check(self, model: GenerativeModel, data: DataModule) -> None:
        """Raises ConfigError: the model is given no hint, or the data have no layouts."""
        if not isinstance(model, GenerativeModel) or _HINT not in model.conditions.kinds:
            raise ConfigError(
                f"metrics=layout_iou: {type(model).__name__} is given no hint, as model=control is. Leave it out of "
                "metrics=[...]."
            )
        if "layout" not in data.spec.condition:
            raise ConfigError("metrics=layout_iou needs scenes with layouts. Use data=shapes data.layout=true")

    def subject(self, model: GenerativeModel, split: Split) -> str:
        return f"{short(self.num_samples)}_{split}"


def intersection_over_union(asked: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Of layouts (N, H, W) each, whose class 0 is the background: the mean over the other classes that either has, 1
    where there are none. -> (N,)."""
    classes = np.arange(1, max(int(asked.max()), int(drawn.max()), 1) + 1)[:, None, None, None]
    a, b = asked[None] == classes, drawn[None] == classes  # (K, N, H, W)
    shared, either = (x.sum(axis=(2, 3)) for x in (a & b, a | b))
    there = (either > 0).sum(axis=0)
    mean = (shared / np.maximum(either, 1)).sum(axis=0) / np.maximum(there, 1)
    return np.where(there > 0, mean, 1.0)

"""Scene accuracy: the share of pictures that show what their captions say, by a fixed rule."""

from collections.abc import Mapping
from dataclasses import astuple
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from genlab.data.scene_reader import agreement, parse, read
from genlab.errors import DataError
from genlab.metrics.base import Direction, MetricBatch

_PARTS = ("color", "size", "shape")


class SceneAccuracy(Metric):
    """The share of samples that show all that their caption asks for, and of asked objects of the right color, size and
    shape, after the object accuracy of compositional benchmarks (GenEval, Ghosh et al. 2023), whose reader is a
    trained detector.

    The reader here is a rule that knows how ``data=shapes`` draws: paint in a quarter of the picture is compared with
    every shape at every place. ``scene_reader_error`` is its own: the share of real pictures that it does not find to
    show their captions; an accuracy is to be trusted to about that. At 16 and at 32 pixels it is 0 in 1,000.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"image", "caption"})
    directions: ClassVar[Mapping[str, Direction | None]] = {
        "scene_accuracy": "higher",
        **{f"{part}_accuracy": "higher" for part in _PARTS},
        "scene_reader_error": None,
    }
    is_differentiable = False
    full_state_update = False

    shown: Tensor  # (4,): color, size and shape, as sums of shares of objects; pictures that show all
    count: Tensor
    misread: Tensor
    real: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("shown", torch.zeros(4, dtype=torch.float64), dist_reduce_fx="sum")
        for state in ("count", "misread", "real"):
            self.add_state(state, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, batch: MetricBatch, real: bool) -> None:
        """Takes ``image`` (N, 3, S, S) uint8 and ``caption``, N strings. Raises DataError if a caption is not one of
        ``data=shapes``."""
        try:
            asked = [parse(caption) for caption in batch["caption"]]
        except ValueError as error:
            raise DataError(f"scene_accuracy reads captions of data=shapes: {error}") from error
        shown = read(batch["image"].cpu().numpy())
        found = torch.tensor([astuple(agreement(*pair)) for pair in zip(asked, shown, strict=True)]).double()
        if real:
            self.real += len(found)
            self.misread += int((found[:, -1] == 0).sum())
        else:
            self.count += len(found)
            self.shown += found.sum(dim=0).to(self.shown.device)

    def compute(self) -> dict[str, Tensor]:
        """All in [0, 1]. Raises DataError if there is no sample."""
        if self.count == 0:
            raise DataError("scene_accuracy needs samples with captions, and there are none.")
        *parts, whole = self.shown / self.count
        return {
            "scene_accuracy": whole,
            **{f"{name}_accuracy": part for name, part in zip(_PARTS, parts, strict=True)},
            "scene_reader_error": self.misread / self.real,
        }

    def settings(self) -> dict[str, int | float | str]:
        return {"reader": "nearest template in each quarter"}

"""FID within classes (Miyato and Koyama 2018, arXiv:1802.05637, section 4.1)."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from genlab.metrics.base import Direction, MetricBatch
from genlab.metrics.classes import labels_of, members
from genlab.metrics.fid import fid_of_few
from genlab.metrics.ordered import in_order


class IntraClassFID(Metric):
    """Mean over classes of the FID between the real and the generated examples of one class.

    It detects what FID does not: swapped classes, and collapsed classes that others compensate. Each
    class has only its share of the examples, and FID's bias grows as their number falls: numbers of different counts
    are not comparable, nor are they with a plain FID. 0 is best; the unit is that of the features, squared.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"features", "label"})
    directions: ClassVar[Mapping[str, Direction | None]] = {"intra_fid": "lower"}
    is_differentiable = False
    full_state_update = False

    real_features: list[Tensor]
    real_labels: list[Tensor]
    real_index: list[Tensor]
    fake_features: list[Tensor]
    fake_labels: list[Tensor]
    fake_index: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        # features, not moments: a thousand classes' 2048 x 2048 covariances would fill 34 GB
        for state in ("features", "labels", "index"):
            self.add_state(f"real_{state}", [], dist_reduce_fx="cat")
            self.add_state(f"fake_{state}", [], dist_reduce_fx="cat")

    def update(self, batch: MetricBatch, real: bool) -> None:
        """Takes ``features`` (N, D), ``label`` (N,), of which -1 is left out, and ``index`` (N,). Raises DataError if
        there are no labels."""
        labels = labels_of(batch, "intra_fid")
        (self.real_labels if real else self.fake_labels).append(labels)
        (self.real_features if real else self.fake_features).append(batch["features"])
        (self.real_index if real else self.fake_index).append(batch["index"])

    def compute(self) -> dict[str, Tensor]:
        """``intra_fid``. Raises DataError if a class has fewer than 2 examples on a side."""
        real, fake = in_order(self.real_features, self.real_index), in_order(self.fake_features, self.fake_index)
        classes = members(
            in_order(self.real_labels, self.real_index), in_order(self.fake_labels, self.fake_index), "intra_fid"
        )
        distances = [
            fid_of_few(real[torch.from_numpy(ours)], fake[torch.from_numpy(theirs)]) for ours, theirs in classes
        ]
        return {"intra_fid": torch.stack(distances).mean()}

    def check_enough(self, real: Tensor, fake: Tensor) -> None:
        """See NeedsEnough."""
        members(real, fake, "intra_fid")

    def settings(self) -> dict[str, int | float | str]:
        return {}

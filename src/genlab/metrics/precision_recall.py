"""Precision and recall of a generator (Kynkaanniemi et al. 2019, arXiv:1904.06991), computed by torch-fidelity."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from genlab.errors import DataError
from genlab.metrics.base import Direction, MetricBatch

_ROWS = 1000  # of the distance matrix at a time: 0.4 GB for 50,000 columns


class PrecisionRecall(Metric):
    """The shares of samples that lie in the manifold of the data, and of data in the manifold of the samples.

    A manifold is the union of balls around its points that reach to their k-th neighbor. Both lie in [0, 1], 1 is
    best: precision falls with bad samples, recall with missing ones. Both depend on the sample counts.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"features"})
    directions: ClassVar[Mapping[str, Direction | None]] = {"precision": "higher", "recall": "higher"}
    is_differentiable = False
    full_state_update = False

    real_features: list[Tensor]
    fake_features: list[Tensor]

    def __init__(self, neighborhood: int = 3):  # k, 3 in the paper
        super().__init__()
        self.neighborhood = neighborhood
        self.add_state("real_features", [], dist_reduce_fx="cat")
        self.add_state("fake_features", [], dist_reduce_fx="cat")

    def update(self, batch: MetricBatch, real: bool) -> None:
        """Takes ``features`` (N, D)."""
        (self.real_features if real else self.fake_features).append(batch["features"])

    def compute(self) -> dict[str, Tensor]:
        """``precision`` and ``recall``. Raises DataError if a side has no k-th neighbor."""
        from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

        real, fake = dim_zero_cat(self.real_features), dim_zero_cat(self.fake_features)
        self.check_enough(real, fake)
        result = prc_features_to_metric(
            fake.double(),
            real.double(),
            prc_neighborhood=self.neighborhood,
            prc_batch_size=_ROWS,
            save_cpu_ram=True,  # torch-fidelity's name for "a few rows at a time"
            verbose=False,
        )
        names = {"precision": KEY_METRIC_PRECISION, "recall": KEY_METRIC_RECALL}
        return {name: torch.tensor(result[key], dtype=torch.float64) for name, key in names.items()}

    def check_enough(self, real: Tensor, fake: Tensor) -> None:
        """See NeedsEnough; only the counts matter."""
        if min(len(real), len(fake)) <= self.neighborhood:
            raise DataError(
                f"precision and recall need more than {self.neighborhood} examples on each side, "
                f"got {len(real)} real, {len(fake)} generated. "
                "Use a larger split or evaluation.num_samples, or leave it out of metrics=[...]."
            )

    def settings(self) -> dict[str, int | float | str]:
        return {"neighborhood": self.neighborhood}

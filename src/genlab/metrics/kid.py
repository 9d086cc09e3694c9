"""Kernel inception distance (Binkowski et al. 2018, arXiv:1801.01401), computed by torch-fidelity."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric
from torchmetrics import Metric

from genlab.errors import DataError
from genlab.metrics.base import Direction, MetricBatch
from genlab.metrics.ordered import in_order


class KID(Metric):
    """Squared maximum mean discrepancy under the kernel (x.y / D + 1)^3, a mean over random subsets.

    Unbiased, unlike FID: it can be slightly negative, and numbers of different sample counts compare. 0 is best.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"features"})
    directions: ClassVar[Mapping[str, Direction | None]] = {"kid": "lower", "kid_std": None}
    is_differentiable = False
    full_state_update = False

    real_features: list[Tensor]
    real_index: list[Tensor]
    fake_features: list[Tensor]
    fake_index: list[Tensor]

    def __init__(
        self,
        subset_size: int = 1000,  # examples in a subset; all of them where there are fewer
        num_subsets: int = 100,
        seed: int = 2020,  # of the subsets; torch-fidelity's default
    ):
        super().__init__()
        self.subset_size, self.num_subsets, self.seed = subset_size, num_subsets, seed
        self._used = (subset_size, num_subsets)
        for side in ("real", "fake"):
            self.add_state(f"{side}_features", [], dist_reduce_fx="cat")
            self.add_state(f"{side}_index", [], dist_reduce_fx="cat")

    def update(self, batch: MetricBatch, real: bool) -> None:
        """Takes ``features`` (N, D) and ``index`` (N,)."""
        (self.real_features if real else self.fake_features).append(batch["features"])
        (self.real_index if real else self.fake_index).append(batch["index"])

    def compute(self) -> dict[str, Tensor]:
        """``kid`` and ``kid_std``, the spread over subsets. Raises DataError if a side has fewer than 2 examples."""
        real, fake = in_order(self.real_features, self.real_index), in_order(self.fake_features, self.fake_index)
        size, subsets = self._used = self._subsets(len(real), len(fake))
        result = kid_features_to_metric(
            fake.double(), real.double(), kid_subset_size=size, kid_subsets=subsets, rng_seed=self.seed, verbose=False
        )
        names = {"kid": KEY_METRIC_KID_MEAN, "kid_std": KEY_METRIC_KID_STD}
        return {name: torch.tensor(result[key], dtype=torch.float64) for name, key in names.items()}

    def settings(self) -> dict[str, int | float | str]:
        """As used by the latest ``compute``."""
        size, subsets = self._used
        return {"subset_size": size, "num_subsets": subsets, "seed": self.seed}

    def _subsets(self, num_real: int, num_fake: int) -> tuple[int, int]:
        """Size and number of subsets. Where each is the whole of both sets, one says everything."""
        size = min(self.subset_size, num_real, num_fake)
        if size < 2:
            raise DataError(f"KID needs at least 2 examples on each side, got {num_real} real, {num_fake} generated.")
        return size, 1 if size == num_real == num_fake else self.num_subsets

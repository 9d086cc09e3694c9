"""Kernel inception distance (Binkowski et al. 2018, arXiv:1801.01401), computed by torch-fidelity, and its standard
error."""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from genlab.errors import DataError
from genlab.metrics.base import Direction, MetricBatch
from genlab.metrics.ordered import in_order

_CHUNK = 1000  # rows of a kernel matrix at a time


class KID(Metric):
    """Squared maximum mean discrepancy under the kernel (x.y / D + 1)^3, a mean over random subsets.

    Unbiased, unlike FID: it can be slightly negative, and numbers of different sample counts are comparable. 0 is best.

    ``kid_std`` is the spread over the subsets, which overlap, and depends on their size; it says little about the
    uncertainty. ``kid_se`` does: the standard error that another draw of real and generated examples would show. Its
    square is the jackknife variance of the distance over all examples (:func:`jackknife_variance`), and what the choice
    of subsets adds. The jackknife sees at most ``subset_size * sqrt(num_subsets)`` examples of a side, 10,000 by
    default: as much work as the subsets are.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"features"})
    directions: ClassVar[Mapping[str, Direction | None]] = {
        "kid": "lower",
        "kid_std": None,
        "kid_se": None,
    }
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
        """``kid``, ``kid_std`` and ``kid_se``. Raises DataError if a side has fewer than 3 examples."""
        from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

        real, fake = in_order(self.real_features, self.real_index), in_order(self.fake_features, self.fake_index)
        size, subsets = self._used = self._subsets(len(real), len(fake))
        result = kid_features_to_metric(
            fake.double(), real.double(), kid_subset_size=size, kid_subsets=subsets, rng_seed=self.seed, verbose=False
        )
        mean, std = result[KEY_METRIC_KID_MEAN], result[KEY_METRIC_KID_STD]
        of_subsets = std**2 / (subsets - 1) if subsets > 1 else 0.0
        variance = jackknife_variance(real, fake, math.ceil(size * math.sqrt(subsets))) + of_subsets
        numbers = {"kid": mean, "kid_std": std, "kid_se": math.sqrt(variance)}
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()}

    def settings(self) -> dict[str, int | float | str]:
        """As used by the latest ``compute``."""
        size, subsets = self._used
        return {"subset_size": size, "num_subsets": subsets, "seed": self.seed}

    def check_enough(self, real: Tensor, fake: Tensor) -> None:
        """See NeedsEnough."""
        self._subsets(len(real), len(fake))

    def _subsets(self, num_real: int, num_fake: int) -> tuple[int, int]:
        """Size and number of subsets. If each is the whole of both sets, one suffices."""
        size = min(self.subset_size, num_real, num_fake)
        if size < 3:
            raise DataError(
                f"KID needs at least 3 examples on each side, got {num_real} real, {num_fake} generated. "
                "Use a larger split or evaluation.num_samples, or leave it out of metrics=[...]."
            )
        return size, 1 if size == num_real == num_fake else self.num_subsets


def jackknife_variance(real: Tensor, fake: Tensor, most: int) -> float:
    """Of the unbiased estimate of the squared maximum mean discrepancy of features (N, D) and (M, D), N and M >= 3.

    The delete-one jackknife for two samples (Arvesen 1969): each side adds (N - 1) / N times the sum of squares of the
    leave-one-out estimates about their mean. They follow from the row sums of the three kernel matrices. If a side has
    more than ``most`` examples its first ones are seen, and its part is scaled by their share, as variances fall. Where
    both distributions are the same the estimate is degenerate and this about twice too large: an error 1.4 times.
    """
    x, y = real[:most].double(), fake[:most].double()
    n, m = len(x), len(y)
    within_x, within_y = _row_sums(x, x) - _kernel_of_itself(x), _row_sums(y, y) - _kernel_of_itself(y)
    between_x, between_y = _row_sums(x, y), _row_sums(y, x)
    without_x = _estimate(within_x.sum() - 2 * within_x, n - 1, within_y.sum(), m, between_x.sum() - between_x)  # (n,)
    without_y = _estimate(within_x.sum(), n, within_y.sum() - 2 * within_y, m - 1, between_y.sum() - between_y)  # (m,)
    of_x = (n - 1) * without_x.var(correction=0) * n / len(real)
    of_y = (m - 1) * without_y.var(correction=0) * m / len(fake)
    return float(of_x + of_y)


def _estimate(within_x: Tensor, n: int, within_y: Tensor, m: int, between: Tensor) -> Tensor:
    """Gretton et al. (2012, eq. 3), from sums of kernel values; those within a side are of pairs of two."""
    return within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * between / (n * m)


def _row_sums(x: Tensor, y: Tensor) -> Tensor:
    """Of the kernel matrix of (N, D) and (M, D). -> (N,)."""
    return torch.cat([((rows @ y.T / x.shape[1] + 1) ** 3).sum(dim=1) for rows in x.split(_CHUNK)])


def _kernel_of_itself(x: Tensor) -> Tensor:
    return (x.square().sum(dim=1) / x.shape[1] + 1) ** 3

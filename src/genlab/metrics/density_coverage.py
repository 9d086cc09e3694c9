"""Density and coverage of a generator (Naeem et al. 2020, arXiv:2002.09797, eq. 7-9)."""

from collections.abc import Iterator, Mapping
from typing import ClassVar

from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from genlab.errors import ConfigError, DataError
from genlab.metrics.base import Direction, MetricBatch

_CHUNK = 1000  # rows of the distance matrix at a time: 0.4 GB for 50,000 columns
_ROUNDING = 1e-10  # of squared lengths: float32 features that differ at all differ by more


class DensityCoverage(Metric):
    """How densely samples lie among the data, and what share of the data has a sample nearby.

    Around each real example lies a ball that reaches to its k-th neighbor among the real ones. Density counts the
    balls that a sample lies in, by k, on average: 1 is expected of a perfect model, and it may be more where samples
    gather in the dense places of the data. Coverage is the share of balls with a sample inside, in [0, 1]. Unlike
    precision and recall, balls are of real examples only: outliers among the samples do not add to the manifold.

    A perfect model is expected to cover 1 - (N-1)...(N-k) / ((N+M-1)...(N+M-k)) of N real examples with M samples: with
    k = 5 and N = M, 1 - 2^-5 = 0.97 (see :func:`expected_coverage`).
    """

    reads: ClassVar[frozenset[str]] = frozenset({"features"})
    directions: ClassVar[Mapping[str, Direction | None]] = {"density": "higher", "coverage": "higher"}
    is_differentiable = False
    full_state_update = False

    real_features: list[Tensor]
    fake_features: list[Tensor]

    def __init__(self, neighborhood: int = 5):  # k, 5 in the paper
        """Raises ConfigError if there is no such neighbor."""
        super().__init__()
        if neighborhood < 1:
            raise ConfigError(f"metrics.density_coverage.neighborhood must be a whole number >= 1, got {neighborhood}.")
        self.neighborhood = neighborhood
        self.add_state("real_features", [], dist_reduce_fx="cat")
        self.add_state("fake_features", [], dist_reduce_fx="cat")

    def update(self, batch: MetricBatch, real: bool) -> None:
        """Takes ``features`` (N, D)."""
        (self.real_features if real else self.fake_features).append(batch["features"])

    def compute(self) -> dict[str, Tensor]:
        """``density``, 0 or more, and ``coverage`` in [0, 1]. Raises DataError if no real example has a k-th neighbor,
        or there is no sample."""
        real, fake = dim_zero_cat(self.real_features), dim_zero_cat(self.fake_features)
        self.check_enough(real, fake)
        density, coverage = density_and_coverage(real, fake, self.neighborhood)
        return {"density": density, "coverage": coverage}

    def check_enough(self, real: Tensor, fake: Tensor) -> None:
        """See NeedsEnough; only the counts matter."""
        if len(real) <= self.neighborhood or len(fake) == 0:
            raise DataError(
                f"density and coverage need more than {self.neighborhood} real examples and a generated one, "
                f"got {len(real)} and {len(fake)}. "
                "Use a larger split or evaluation.num_samples, or leave it out of metrics=[...]."
            )

    def settings(self) -> dict[str, int | float | str]:
        return {"neighborhood": self.neighborhood}


def density_and_coverage(real: Tensor, fake: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Of features (N, D) and (M, D): float64 scalars. A sample on the surface of a ball is not in it, as in the
    authors' code: measured against themselves, real examples have density and coverage 1."""
    center = real.double().mean(dim=0)
    real, fake = real.double() - center, fake.double() - center
    inside, covered = real.new_zeros(()), real.new_zeros(())
    for rows, to_real in squared_distances(real, real):
        radii = to_real.kthvalue(k + 1, dim=1).values.clamp(min=0.0)  # (n,), squared; each is its own nearest
        (_, to_fake), *_ = squared_distances(rows, fake, chunk=len(rows))
        lengths = rows.square().sum(dim=1)[:, None] + fake.square().sum(dim=1)
        hits = to_fake < radii[:, None] - _ROUNDING * lengths  # (n, M)
        inside += hits.sum()
        covered += hits.any(dim=1).sum()
    return inside / (k * len(fake)), covered / len(real)


def squared_distances(x: Tensor, y: Tensor, chunk: int = _CHUNK) -> Iterator[tuple[Tensor, Tensor]]:
    """From rows of ``x`` (N, D), some at a time, to all of ``y`` (M, D): those rows (n, D), and (n, M)."""
    of_y = y.square().sum(dim=1)
    for rows in x.split(chunk):
        yield rows, rows.square().sum(dim=1)[:, None] + of_y - 2 * rows @ y.T


def expected_coverage(num_real: int, num_fake: int, k: int) -> float:
    """Of samples from the distribution of the data (Naeem et al. 2020, Lemma 2).

    A ball stays empty if the k nearest to its center, of the N - 1 other real examples and the M samples, are all real.
    """
    empty = 1.0
    for j in range(1, k + 1):
        empty *= (num_real - j) / (num_real + num_fake - j)
    return 1.0 - empty

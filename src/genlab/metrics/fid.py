"""Frechet inception distance (Heusel et al. 2017, arXiv:1706.08500)."""

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from genlab.errors import DataError
from genlab.metrics.base import Direction, MetricBatch
from genlab.metrics.frechet import frechet_distance
from genlab.metrics.moments import Moments, concatenate, merge, moments_of


class FID(Metric):
    """Squared Frechet distance between Gaussians fitted to the features of real and of generated examples.

    Features are accumulated as float64 moments, which merge exactly: the number does not depend on the
    batch size, the order or the number of devices. It is biased upwards for few examples (by about 2 at n = 1000 and
    D = 64), so numbers with different n are not comparable. 0 is best; the unit is that of the features, squared.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"features"})
    directions: ClassVar[Mapping[str, Direction | None]] = {"fid": "lower"}
    is_differentiable = False
    full_state_update = True  # merged here: torchmetrics stacks states, which needs equal numbers of parts

    def __init__(self) -> None:
        super().__init__()
        for side in ("real", "fake"):
            for name, shape in (("total", (0,)), ("mean", (0, 0)), ("scatter", (0, 0, 0))):  # no parts yet
                self.add_state(f"{side}_{name}", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx=_side_by_side)

    def update(self, batch: MetricBatch, real: bool) -> None:
        """Takes ``features`` (N, D), N >= 1."""
        new = moments_of(batch["features"])
        self._set(real, merge(concatenate(self._get(real), new)) if len(self._get(real).total) else new)

    def compute(self) -> dict[str, Tensor]:
        """``fid``. Raises DataError if either side has fewer than 2 examples."""
        self._check_counts(*(int(self._get(real).total.sum()) for real in (True, False)))
        return {"fid": fid_of(self._get(True), self._get(False))}

    def check_enough(self, real: Tensor, fake: Tensor) -> None:
        """See NeedsEnough."""
        self._check_counts(len(real), len(fake))

    def _check_counts(self, real: int, fake: int) -> None:
        for count, side in ((real, "real"), (fake, "generated")):
            if count < 2:
                raise DataError(
                    f"FID needs at least 2 {side} examples, got {count}. Use a larger split or "
                    "evaluation.num_samples, or leave it out of metrics=[...]."
                )

    def settings(self) -> dict[str, int | float | str]:
        return {}

    def _get(self, real: bool) -> Moments:
        side = "real" if real else "fake"
        return Moments(*(getattr(self, f"{side}_{name}") for name in Moments._fields))

    def _set(self, real: bool, moments: Moments) -> None:
        for name, value in moments._asdict().items():
            setattr(self, f"{'real' if real else 'fake'}_{name}", value)

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state=()) -> "FID":  # type: ignore[no-untyped-def]
        """Moves to a model's device but keeps float64 moments."""
        return super()._apply(lambda t: t.to(fn(t.new_empty(0)).device), exclude_state)  # type: ignore[return-value]


def fid_of(real: Moments, fake: Moments) -> Tensor:
    """The distance of the Gaussians that have these moments and unbiased covariances; each of 2 examples or more."""
    real, fake = merge(real), merge(fake)
    counts = int(real.total), int(fake.total)
    (mean1, cov1), (mean2, cov2) = (
        (part.mean[0], part.scatter[0] / (count - 1)) for part, count in zip((real, fake), counts, strict=True)
    )
    return frechet_distance(mean1, cov1, mean2, cov2, ranks=(counts[0] - 1, counts[1] - 1))


def _side_by_side(stacked: Tensor) -> Tensor:
    """The parts of every rank, (ranks, P, ...) -> (ranks * P, ...)."""
    return stacked.flatten(0, 1)

"""Frechet inception distance (Heusel et al. 2017, arXiv:1706.08500)."""

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from genlab.errors import DataError
from genlab.metrics.base import Direction, MetricBatch
from genlab.metrics.frechet import Gaussian, distance
from genlab.metrics.moments import Moments, concatenate, merge, moments_of, no_moments

_NOTHING = no_moments(torch.zeros(0, 0, dtype=torch.float64))


class FID(Metric):
    """Squared Frechet distance between Gaussians fitted to the features of real and of generated examples.

    Features are kept in float64 while they are fewer than their dimensions, and as float64 moments from then on, which
    merge exactly: the number does not depend on the batch size, the order or the number of devices. It is biased
    upwards for few examples (by about 2 at n = 1000 and D = 64), so numbers with different n are not comparable. 0 is
    best; the unit is that of the features, squared.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"features"})
    directions: ClassVar[Mapping[str, Direction | None]] = {"fid": "lower"}
    is_differentiable = False
    full_state_update = True  # merged here: torchmetrics stacks states, which needs equal numbers of parts

    def __init__(self) -> None:
        super().__init__()
        for side in ("real", "fake"):
            for name in ("rows", *Moments._fields):  # features (n, D) that are in no moments yet; parts of moments
                self.add_state(f"{side}_{name}", [], dist_reduce_fx="cat")

    def update(self, batch: MetricBatch, real: bool) -> None:
        """Takes ``features`` (N, D), N >= 1."""
        new = batch["features"].double()
        moments, rows = self._get(real, no_moments(new))
        rows = [*rows, new]
        if len(moments.total) or sum(len(part) for part in rows) > new.shape[1]:
            moments = merge(concatenate(moments, *(moments_of(part) for part in rows if len(part))))
            rows = [new[:0]]
        self._set(real, moments, rows)

    def compute(self) -> dict[str, Tensor]:
        """``fid``. Raises DataError if either side has fewer than 2 examples."""
        real, fake = self._get(True), self._get(False)
        self._check_counts(*(_count(*side) for side in (real, fake)))
        return {"fid": distance(_gaussian(*real), _gaussian(*fake))}

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

    def _get(self, real: bool, empty: Moments = _NOTHING) -> tuple[Moments, list[Tensor]]:
        """Moments, and rows that are not in them; where nothing came in, ``empty``."""
        states = [getattr(self, f"{'real' if real else 'fake'}_{name}") for name in ("rows", *Moments._fields)]
        rows, *moments = ([state] if isinstance(state, Tensor) else state for state in states)  # a tensor: of all ranks
        if not rows:
            return empty, []
        return Moments(*(dim_zero_cat(state) for state in moments)), rows

    def _set(self, real: bool, moments: Moments, rows: list[Tensor]) -> None:
        side = "real" if real else "fake"
        setattr(self, f"{side}_rows", rows)
        for name, value in moments._asdict().items():
            setattr(self, f"{side}_{name}", [value])

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state=()) -> "FID":  # type: ignore[no-untyped-def]
        """Moves to a model's device but keeps float64 moments."""
        return super()._apply(lambda t: t.to(fn(t.new_empty(0)).device), exclude_state)  # type: ignore[return-value]


def fid_of_few(real: Tensor, fake: Tensor) -> Tensor:
    """Of the rows of two matrices (N, D) and (M, D), each of 2 or more."""
    return distance(*(_gaussian(no_moments(rows), [rows]) for rows in (real, fake)))


def _count(moments: Moments, rows: list[Tensor]) -> int:
    return int(moments.total.sum()) + sum(len(part) for part in rows)


def _gaussian(moments: Moments, rows: list[Tensor]) -> Gaussian:
    """With the mean and the unbiased covariance of 2 or more examples."""
    count = _count(moments, rows)
    if len(moments.total) == 0 and count <= rows[0].shape[1]:
        return Gaussian.of_few(dim_zero_cat(rows))
    whole = merge(concatenate(moments, *(moments_of(part) for part in rows if len(part))))
    return Gaussian(whole.mean[0], whole.scatter[0] / (count - 1), rank=count - 1)

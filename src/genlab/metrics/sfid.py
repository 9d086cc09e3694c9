"""Spatial FID (Nash et al. 2021, arXiv:2103.03841)."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from genlab.metrics.base import Direction, MetricBatch
from genlab.metrics.fid import FID


class SpatialFID(FID):
    """FID of spatial features: it detects a wrong arrangement of right parts, which FID does not.

    Which features: see :class:`genlab.metrics.extractor.inception.Inception`. 0 is best; biased like FID.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"spatial"})
    directions: ClassVar[Mapping[str, Direction | None]] = {"sfid": "lower"}

    def update(self, batch: MetricBatch, real: bool) -> None:
        """Takes ``spatial`` (N, S), N >= 1."""
        super().update({"features": batch["spatial"]}, real)

    def compute(self) -> dict[str, Tensor]:
        """``sfid``. Raises DataError if either side has fewer than 2 examples."""
        return {"sfid": super().compute()["fid"]}

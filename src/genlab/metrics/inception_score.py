"""Inception score (Salimans et al. 2016, arXiv:1606.03498), computed by torch-fidelity."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from genlab.errors import ConfigError, DataError
from genlab.metrics.base import Direction, MetricBatch
from genlab.metrics.ordered import in_order


class InceptionScore(Metric):
    """exp E_x KL(p(y|x) || p(y)), y the class by Inception: high if each image has a clear class and classes vary.

    Between 1 and the number of classes, 1008. There is no reference: samples that do not resemble the data can score
    well, and a small set scores low. The mean of ``splits`` equal parts of the samples, in their order, as published
    scores are; ``inception_score_std`` is the spread over the parts.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"logits"})
    directions: ClassVar[Mapping[str, Direction | None]] = {"inception_score": "higher", "inception_score_std": None}
    is_differentiable = False
    full_state_update = False

    logits: list[Tensor]
    index: list[Tensor]

    def __init__(self, splits: int = 10):
        super().__init__()
        if splits < 1:
            raise ConfigError(f"metrics.inception_score.splits={splits} must be >= 1.")
        self.splits = splits
        self.add_state("logits", [], dist_reduce_fx="cat")
        self.add_state("index", [], dist_reduce_fx="cat")

    def update(self, batch: MetricBatch, real: bool) -> None:
        """Takes ``logits`` (N, K) and ``index`` (N,) of samples."""
        if not real:
            self.logits.append(batch["logits"])
            self.index.append(batch["index"])

    def compute(self) -> dict[str, Tensor]:
        """``inception_score`` and ``inception_score_std``. Raises DataError if there are fewer samples than parts."""
        from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

        logits = in_order(self.logits, self.index)
        self.check_enough(logits, logits)
        result = isc_features_to_metric(logits, splits=self.splits, shuffle=False)
        names = {"inception_score": KEY_METRIC_ISC_MEAN, "inception_score_std": KEY_METRIC_ISC_STD}
        return {name: torch.tensor(result[key], dtype=torch.float64) for name, key in names.items()}

    def check_enough(self, real: Tensor, fake: Tensor) -> None:
        """See NeedsEnough; only the number of samples matters."""
        if len(fake) < self.splits:
            raise DataError(
                f"the inception score needs at least {self.splits} samples, one for each of its splits, "
                f"got {len(fake)}. Set metrics.inception_score.splits=1."
            )

    def settings(self) -> dict[str, int | float | str]:
        return {"splits": self.splits}

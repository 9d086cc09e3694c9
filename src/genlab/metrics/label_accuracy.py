"""Does the model draw what it was asked for? An independent classifier says."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from genlab.errors import DataError
from genlab.metrics.base import Direction, MetricBatch
from genlab.metrics.classes import check_two_classes
from genlab.metrics.judge import Judge
from genlab.metrics.ordered import in_order


class LabelAccuracy(Metric):
    """The share of samples that a judge gives the label that was asked for: the classification accuracy score's
    counterpart with a fixed judge (Ravuri & Vinyals 2019, arXiv:1905.10887, train it on samples instead).

    The judge is a support vector machine on pixels, fitted to the reference: with the held-out split, to images that
    neither the model nor the extractor has seen. For small images: on digits it is right 98 times in 100. 1 is best; a
    model that ignores its condition gets 1 / classes.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"image", "label"})
    directions: ClassVar[Mapping[str, Direction | None]] = {"label_accuracy": "higher"}
    is_differentiable = False
    full_state_update = False

    real_images: list[Tensor]
    real_labels: list[Tensor]
    real_index: list[Tensor]
    fake_images: list[Tensor]
    fake_labels: list[Tensor]

    def __init__(
        self,
        num_reference: int = 5000,  # images that the judge is fitted to, the first ones: its cost grows as the square
        penalty: float = 10.0,  # C of the support vector machine
    ):
        super().__init__()
        self.num_reference, self.penalty = num_reference, penalty
        for state in ("real_images", "real_labels", "real_index", "fake_images", "fake_labels"):
            self.add_state(state, [], dist_reduce_fx="cat")

    def update(self, batch: MetricBatch, real: bool) -> None:
        """Takes ``image`` (N, C, H, W) uint8, ``label`` (N,), of which -1 is left out, and ``index`` (N,)."""
        if "label" not in batch:
            raise DataError("label_accuracy needs labels and the data have none. Leave it out of metrics=[...].")
        labelled = batch["label"] >= 0
        images, labels = batch["image"][labelled], batch["label"][labelled]
        (self.real_images if real else self.fake_images).append(images)
        (self.real_labels if real else self.fake_labels).append(labels)
        if real:
            self.real_index.append(batch["index"][labelled])

    def compute(self) -> dict[str, Tensor]:
        """``label_accuracy`` in [0, 1]."""
        kept = slice(0, self.num_reference)
        images, labels = (in_order(rows, self.real_index)[kept] for rows in (self.real_images, self.real_labels))
        judge = Judge(images.cpu().numpy(), labels.cpu().numpy(), self.penalty, blurred=False)
        named = judge.name(dim_zero_cat(self.fake_images))
        return {"label_accuracy": torch.tensor(np.mean(named == dim_zero_cat(self.fake_labels).cpu().numpy()))}

    def check_enough(self, real: Tensor, fake: Tensor) -> None:
        """See NeedsEnough."""
        check_two_classes(real[: self.num_reference] if (real >= 0).all() else real, "label_accuracy")

    def settings(self) -> dict[str, int | float | str]:
        return {"judge": "SVC rbf", "num_reference": self.num_reference, "penalty": self.penalty}

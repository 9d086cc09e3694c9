"""Balance of the classes among samples, by an independent classifier: are all drawn, each as often as it should be?"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from genlab.errors import DataError
from genlab.metrics.base import Direction, MetricBatch
from genlab.metrics.classes import check_two_classes
from genlab.metrics.judge import verdicts
from genlab.metrics.ordered import in_order

REACHED = 0.25  # of its expected share: fewer may be errors of the judge
_EXPECTED = 5  # fewest expected samples to call a class absent: a Poisson variable of mean 5 is 0 in 0.7 %


class ClassBalance(Metric):
    """The frequency of each class among samples, compared with the expected one.

    * ``classes_reached`` in [0, 1], 1 is best: the share of classes that samples reach at all, with a quarter of
      their expected share. It falls with whole modes that are missing (Srivastava et al. 2017, arXiv:1705.07761,
      sec. 4, count the modes that a classifier finds).
    * ``class_balance`` in [0, 1], 0 is best: the total variation distance, sum |p - q| / 2, between the two histograms
      over the classes that are reached, each renormalized. It falls to 0.05 and not to 0 for 500 independent real
      samples of ten classes: about sqrt(K / (2 pi N)) is chance.

    The class of a sample is the judge's prediction, not the label it is conditioned on. The expected shares are those
    of the reference's classes, or of the labels of conditional samples; in either case as the judge would predict
    them, since it makes errors on real images too.
    """

    reads: frozenset[str]
    optional: ClassVar[frozenset[str]] = frozenset({"label"})
    directions: ClassVar[Mapping[str, Direction | None]] = {"class_balance": "lower", "classes_reached": "higher"}
    is_differentiable = False
    full_state_update = False

    real: list[Tensor]
    real_labels: list[Tensor]
    real_index: list[Tensor]
    fake: list[Tensor]
    fake_labels: list[Tensor]

    def __init__(
        self,
        judge: Literal["pixels", "logits"] = "pixels",  # a machine fitted to the reference, or the extractor's logits
        num_reference: int = 2000,  # images that the judge on pixels is fitted to, the first ones
        penalty: float = 10.0,  # C of its support vector machine
    ):
        super().__init__()
        self.judge, self.num_reference, self.penalty = judge, num_reference, penalty
        self.reads = frozenset({"image" if judge == "pixels" else "logits"})  # labels too, where there are any
        for state in ("real", "real_labels", "real_index", "fake", "fake_labels"):
            self.add_state(state, [], dist_reduce_fx="cat")

    def update(self, batch: MetricBatch, real: bool) -> None:
        """Takes ``image`` (N, C, H, W) uint8 or ``logits`` (N, K), ``index`` (N,), and ``label`` (N,), -1: none."""
        rows = batch["image"] if self.judge == "pixels" else batch["logits"].argmax(dim=1)
        labels = batch.get("label", torch.full((len(rows),), -1, device=rows.device))
        (self.real if real else self.fake).append(rows)
        (self.real_labels if real else self.fake_labels).append(labels)
        if real:
            self.real_index.append(batch["index"])

    def compute(self) -> dict[str, Tensor]:
        """``class_balance`` and ``classes_reached``. Raises DataError if the judge has too little to go by."""
        rows, labels = (in_order(state, self.real_index) for state in (self.real, self.real_labels))
        asked = dim_zero_cat(self.fake_labels).cpu().numpy()
        known, named_real, named = verdicts(
            self.judge, rows, labels, dim_zero_cat(self.fake), self.num_reference, self.penalty
        )
        expected = expected_shares(known, named_real, asked, 1 + int(max(named_real.max(), named.max())))
        balance, reached = compare(np.bincount(named, minlength=len(expected)), expected)
        return {"class_balance": torch.tensor(balance), "classes_reached": torch.tensor(reached)}

    def check_enough(self, real: Tensor, fake: Tensor) -> None:
        """See NeedsEnough."""
        if self.judge == "pixels":
            check_two_classes(real, "class_balance")
        lacking = sorted(set(fake[fake >= 0].tolist()) - set(real.tolist())) if (real >= 0).all() else []
        if lacking:
            raise DataError(
                f"class_balance: the reference has no image of class {lacking[0]}. Leave it out of metrics=[...]."
            )

    def settings(self) -> dict[str, int | float | str]:
        if self.judge == "logits":
            return {"judge": "logits"}
        return {"judge": "SVC rbf, blurred too", "num_reference": self.num_reference, "penalty": self.penalty}


def expected_shares(
    labels: np.ndarray,  # (M,) of the reference, -1: none
    named: np.ndarray,  # (M,) what the judge makes of the reference
    asked: np.ndarray,  # (N,) what samples were asked for, -1: nothing
    classes: int,  # number of the judge's classes
) -> np.ndarray:
    """The share (K,) of each class that the judge would predict for real images of the requested classes.

    Raises DataError if the reference has no image of such a class."""
    if (asked < 0).any() or (labels < 0).any():
        return np.bincount(named, minlength=classes) / len(named)
    expected = np.zeros(classes)
    for label, count in zip(*np.unique(asked, return_counts=True), strict=True):
        of_it = named[labels == label]
        if not len(of_it):
            raise DataError(
                f"class_balance: the reference has no image of class {label}. Leave it out of metrics=[...]."
            )
        expected += count / len(asked) * np.bincount(of_it, minlength=classes) / len(of_it)
    return expected


def compare(counts: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """Samples of each class (K,), and the shares that they should have (K,) -> the balance and the share reached.

    Classes of which fewer than five samples are expected are left out, unless that leaves none."""
    total = counts.sum()
    looked_at = expected * total >= _EXPECTED
    if not looked_at.any():
        looked_at = expected > 0
    reached = looked_at & (counts >= REACHED * expected * total)
    if not reached.any():
        return 1.0, 0.0
    p, q = counts[reached] / counts[reached].sum(), expected[reached] / expected[reached].sum()
    return float(np.abs(p - q).sum() / 2), float(reached.sum() / looked_at.sum())

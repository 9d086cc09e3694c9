"""Classification accuracy score: accuracy on real images of a classifier trained on samples."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from genlab.errors import DataError
from genlab.metrics.base import Direction, MetricBatch
from genlab.metrics.ordered import in_order


class ClassificationAccuracyScore(Metric):
    """CAS (Ravuri & Vinyals 2019, arXiv:1905.10887): the accuracy, on real images, of a classifier that was trained on
    samples and the labels that they are conditioned on.

    1 is best; an ignored condition gets about 1 / classes, missing or wrong classes cost their share. Real training
    images instead of samples give the best possible value.

    The paper trains a ResNet-50 on the pixels of as many samples as ImageNet has images, and reports its top-1 and
    top-5 accuracy on ImageNet's validation images. Here a logistic regression is trained on what the extractor gives of
    the samples, and tested on the whole reference, top-1: seconds, and deterministic. But the features come from real
    images: what they ignore (e.g. texture) is not counted against samples, and the probe needs fewer and less
    varied samples than a network would. So numbers are higher: comparable with each other, for one extractor and
    one number of samples, but never with published ones.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"features", "label"})
    directions: ClassVar[Mapping[str, Direction | None]] = {"cas": "higher"}
    is_differentiable = False
    full_state_update = False

    real_features: list[Tensor]
    real_labels: list[Tensor]
    real_index: list[Tensor]
    fake_features: list[Tensor]
    fake_labels: list[Tensor]
    fake_index: list[Tensor]

    def __init__(
        self,
        penalty: float = 1.0,  # C of the logistic regression, of standardised features: 1 / strength of its L2 penalty
        max_iterations: int = 500,
    ):
        """Raises ValueError if either is not above 0."""
        super().__init__()
        if penalty <= 0 or max_iterations < 1:
            raise ValueError(f"penalty={penalty} must be above 0, max_iterations={max_iterations} at least 1.")
        self.penalty, self.max_iterations = penalty, max_iterations
        for side in ("real", "fake"):
            for kind in ("features", "labels", "index"):
                self.add_state(f"{side}_{kind}", [], dist_reduce_fx="cat")

    def update(self, batch: MetricBatch, real: bool) -> None:
        """Takes ``features`` (N, D), ``label`` (N,), of which -1 is left out, and ``index`` (N,)."""
        if "label" not in batch:
            raise DataError("cas needs labels and the data have none. Leave it out of metrics=[...].")
        labelled, side = batch["label"] >= 0, "real" if real else "fake"
        for kind, key in (("features", "features"), ("labels", "label"), ("index", "index")):
            getattr(self, f"{side}_{kind}").append(batch[key][labelled])

    def compute(self) -> dict[str, Tensor]:
        """``cas`` in [0, 1]. Raises DataError if samples are of fewer than two classes, or no real example has a
        label."""
        from sklearn.linear_model import LogisticRegression  # slow to import, and not needed to train
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        features, labels = (in_order(rows, self.fake_index) for rows in (self.fake_features, self.fake_labels))
        real, truth = (in_order(rows, self.real_index) for rows in (self.real_features, self.real_labels))
        if len(labels.unique()) < 2 or len(truth) == 0:
            raise DataError(
                f"cas needs samples of two classes or more and real examples with labels, got "
                f"{len(labels.unique())} and {len(truth)}. Leave it out of metrics=[...]."
            )
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=self.penalty, max_iter=self.max_iterations))
        probe.fit(features.double().cpu().numpy(), labels.cpu().numpy())
        named = torch.from_numpy(probe.predict(real.double().cpu().numpy()))
        return {"cas": (named == truth.cpu()).double().mean()}

    def check_enough(self, real: Tensor, fake: Tensor) -> None:
        """See NeedsEnough."""
        if fake[fake >= 0].unique().numel() < 2 or not (real >= 0).any():
            raise DataError(
                "cas needs samples of two classes or more and real examples with labels. Leave it out of metrics=[...]."
            )

    def settings(self) -> dict[str, int | float | str]:
        return {"classifier": "logistic regression", "penalty": self.penalty, "max_iterations": self.max_iterations}

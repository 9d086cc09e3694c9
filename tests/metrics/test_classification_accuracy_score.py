"""CAS: real training images in place of samples score what real training does, meaningless labels what chance does."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from genlab.data.digits import Digits
from genlab.errors import DataError
from genlab.evaluation.evaluation import Evaluation
from genlab.metrics.classification_accuracy_score import ClassificationAccuracyScore
from genlab.metrics.extractor.digits import DigitsFeatures
from genlab.sampling.examples import Examples

Rows = tuple[Tensor, Tensor]  # features (N, D) and labels (N,)


def cas(fake: Rows, real: Rows, order: Tensor | None = None, **options: float) -> float:
    metric = ClassificationAccuracyScore(**options)
    for (features, labels), is_real in ((real, True), (fake, False)):
        index = torch.arange(len(labels))
        rows = index if order is None or is_real else order
        for part in rows.split(37):
            batch = {"features": features[part], "label": labels[part], "index": index[part]}
            metric.update(batch, real=is_real)
    return float(metric.compute()["cas"])


def blobs(count: int, seed: int, classes: int = 4, apart: float = 3.0) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    return apart * torch.eye(8)[labels] + torch.randn(count, 8, generator=generator), labels


def test_real_images_score_what_real_training_does_and_wrong_labels_what_chance_does() -> None:
    data = Digits()
    train, held_out = data.table("train"), data.table("val")
    judge = Evaluation(DigitsFeatures(), {"cas": ClassificationAccuracyScore()})
    images, labels = torch.from_numpy(train.images), torch.from_numpy(train.labels)
    found = judge.score(Examples.of(image=images, label=labels), data).values["cas_digits64_1297"]

    def features(table: np.ndarray) -> np.ndarray:
        return DigitsFeatures().extract(torch.from_numpy(table), frozenset({"features"}))["features"].numpy()

    x = features(train.images)
    scaled = [(values - x.mean(0)) / x.std(0) for values in (x, features(held_out.images))]
    direct = LogisticRegression(max_iter=1000).fit(scaled[0], train.labels).score(scaled[1], held_out.labels)
    assert found == pytest.approx(direct, abs=0.004)  # two of 500
    assert found > 0.95
    shuffled = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    assert judge.score(Examples.of(image=images, label=shuffled), data).values["cas_digits64_1297"] < 0.25
    consistent = (labels + 1) % 10  # every class takes another's name
    assert judge.score(Examples.of(image=images, label=consistent), data).values["cas_digits64_1297"] < 0.05


def test_shuffled_labels_are_chance() -> None:
    (features, labels), real = blobs(4000, 0), blobs(4000, 1)
    shuffled = labels[torch.randperm(4000, generator=torch.Generator().manual_seed(2))]
    assert cas((features, labels), real) > 0.9
    assert cas((features, shuffled), real) == pytest.approx(0.25, abs=0.12)  # a map of chance may favor a class


def test_a_class_that_is_never_drawn_costs_its_share() -> None:
    (features, labels), real = blobs(800, 0, apart=20.0), blobs(800, 1, apart=20.0)
    kept = labels != 3
    assert cas((features[kept], labels[kept]), real) == 0.75


def test_neither_order_nor_unlabelled_examples_nor_the_scale_of_features_show() -> None:
    (features, labels), (real, truth) = blobs(300, 0, apart=1.0), blobs(300, 1, apart=1.0)
    expected = cas((features, labels), (real, truth))
    assert 0.3 < expected < 0.9
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    assert cas((features, labels), (real, truth), order) == expected
    noise, none = 100 * torch.randn(20, 8), torch.full((20,), -1)
    with_more = (torch.cat([features, noise]), torch.cat([labels, none]))
    assert cas(with_more, (torch.cat([real, noise]), torch.cat([truth, none]))) == expected
    scale = torch.logspace(-3, 3, 8)
    assert cas((features * scale, labels), (real * scale, truth)) == pytest.approx(expected, abs=0.01)


def test_the_penalty_is_a_part_of_the_protocol() -> None:
    assert ClassificationAccuracyScore(penalty=0.1).settings()["penalty"] == 0.1


def test_what_cannot_be_scored_is_refused() -> None:
    features, labels = blobs(20, 0)
    with pytest.raises(DataError, match="samples of two classes or more and real examples with labels, got 1 and 20"):
        cas((features, torch.zeros(20, dtype=torch.long)), (features, labels))
    with pytest.raises(DataError, match="got 4 and 0"):
        cas((features, labels), (features, torch.full((20,), -1)))
    with pytest.raises(DataError, match="cas needs labels and the data have none"):
        ClassificationAccuracyScore().update({"features": features, "index": torch.arange(20)}, real=True)
    with pytest.raises(ValueError, match="penalty=0 must be above 0"):
        ClassificationAccuracyScore(penalty=0)

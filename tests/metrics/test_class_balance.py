"""Histograms of classes, by hand; and what is expected of samples that were asked for labels."""

import numpy as np
import pytest
import torch

from genlab.data.base import Split
from genlab.data.digits import Digits
from genlab.data.image import ImageDataModule, ImageTable
from genlab.errors import DataError
from genlab.evaluation.evaluation import Evaluation
from genlab.metrics.class_balance import ClassBalance, compare, expected_shares
from genlab.metrics.judge import judge_of
from genlab.sampling.examples import Examples


def test_distance_of_histograms_over_the_classes_that_are_reached() -> None:
    quarters = np.full(4, 0.25)
    assert compare(np.array([25, 25, 25, 25]), quarters) == (0.0, 1.0)
    assert compare(np.array([40, 40, 20, 20]), quarters) == (pytest.approx(1 / 6), 1.0)
    assert compare(np.array([40, 40, 40, 0]), quarters) == (pytest.approx(0.0), 0.75)  # one missing, the rest even
    assert compare(np.array([46, 46, 24, 4]), quarters)[1] == 0.75  # 4 of 30 may be the judge's mistakes
    assert compare(np.array([100, 0]), np.array([0.97, 0.03])) == (0.0, 1.0)  # 3 in 100 are too few to be missed
    assert compare(np.array([2, 0]), np.array([0.5, 0.5])) == (0.0, 0.5)  # too few for any: then all count


def test_what_is_expected_follows_what_was_asked_and_what_the_judge_gets_wrong() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1])
    named = np.array([0, 0, 0, 1, 1, 1])  # takes a quarter of class 0 for class 1
    nothing = np.full(6, -1)
    assert expected_shares(labels, named, nothing, 2).tolist() == [0.5, 0.5]  # as in the reference
    assert expected_shares(labels, named, np.array([0, 0, 0]), 2).tolist() == [0.75, 0.25]
    assert expected_shares(labels, named, np.array([0, 1]), 2).tolist() == [0.375, 0.625]
    with pytest.raises(DataError, match="the reference has no image of class 2"):
        expected_shares(labels, named, np.array([2]), 2)


def test_even_requests_are_held_to_be_even_though_the_reference_is_not() -> None:
    """The reference: thrice as many 0. Samples: ten classes in equal numbers, as asked or not."""
    table = Digits().table("val")
    chosen = np.concatenate([np.flatnonzero(table.labels == 0)] * 3 + [np.flatnonzero(table.labels > 0)])

    def balance(asked: bool) -> float:
        metric = ClassBalance()
        images, labels = torch.from_numpy(table.images), torch.from_numpy(table.labels)
        reference = {"image": images[chosen], "label": labels[chosen], "index": torch.arange(len(chosen))}
        metric.update(reference, real=True)
        samples = {"image": images, "index": torch.arange(500)}
        metric.update(samples | ({"label": labels} if asked else {}), real=False)
        return metric.compute()["class_balance"].item()

    assert balance(asked=True) < 0.04
    assert balance(asked=False) == pytest.approx(3 / 12 - 1 / 10, abs=0.04)


def test_logits_judge_without_pixels_or_labels() -> None:
    metric = ClassBalance(judge="logits")
    assert metric.reads == {"logits"}
    logits = torch.eye(2).repeat(50, 1)
    metric.update({"logits": logits, "index": torch.arange(100)}, real=True)
    metric.update({"logits": logits[::2], "index": torch.arange(50)}, real=False)
    assert {name: value.item() for name, value in metric.compute().items()} == {
        "class_balance": 0.0, "classes_reached": 0.5}  # fmt: skip


def test_the_judge_knows_blurred_digits_and_how_often_it_is_wrong() -> None:
    train, val = Digits().table("train"), Digits().table("val")
    images, labels = torch.from_numpy(val.images), torch.from_numpy(val.labels)
    judge, unseen = judge_of(images, labels, penalty=10.0, blurred=True)
    assert (judge.predict(train.images) == train.labels).mean() > 0.97
    assert (judge.name(images).astype(int) == val.labels).all()  # it has seen them
    assert 0.93 < (unseen == val.labels).mean() < 0.99  # these judges had not


class Random(ImageDataModule):
    """Labels that say nothing about the pictures, or none."""

    labelled = True

    def load(self, split: Split) -> ImageTable:
        rng = np.random.default_rng(0)
        images, labels = rng.integers(0, 256, (60, 1, 4, 4), dtype=np.uint8), rng.integers(0, 2, 60)
        return ImageTable(images, labels, ("a", "b")) if self.labelled else ImageTable(images)


def test_refuses_pictures_that_pixels_do_not_tell_apart_and_data_without_labels() -> None:
    data, judge = Random(), Evaluation(None, {"class_balance": ClassBalance()})
    examples = Examples.of(image=torch.from_numpy(data.table("val").images))
    with pytest.raises(DataError, match=r"a judge on pixels classifies only \d\d% of the held-out images correctly"):
        judge.score(examples, data)
    unlabelled = Random()
    unlabelled.labelled = False
    with pytest.raises(DataError, match="class_balance needs labels and the data have none"):
        Evaluation(None, {"class_balance": ClassBalance()}).score(examples, unlabelled)

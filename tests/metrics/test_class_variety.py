"""Variety inside classes: closed forms, and a filter that cancels exactly."""

import numpy as np
import pytest
import torch

from genlab.data.digits import Digits
from genlab.errors import DataError
from genlab.metrics.class_variety import ClassVariety, relative_variety, spectra, strong, variety


def test_strong_frequencies_hold_four_fifths_of_the_power() -> None:
    assert strong(np.array([5.0, 1.0, 3.0, 1.0])) == pytest.approx(np.array([5 / 8, 0, 3 / 8, 0]))


def test_variety_is_the_share_of_power_that_varies() -> None:
    """x = mean + spread z with z of variance 1: spread^2 / (mean^2 + spread^2)."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((200_000, 2))
    x = np.array([3.0, 1.0]) + np.array([1.0, 2.0]) * z
    assert variety(x, np.array([1.0, 0.0])) == pytest.approx(1 / 10, rel=0.02)
    assert variety(x, np.array([0.0, 1.0])) == pytest.approx(4 / 5, rel=0.02)
    assert variety(x, np.array([0.5, 0.5])) == pytest.approx(0.45, rel=0.02)
    assert variety(x[:1].repeat(9, axis=0), np.array([0.5, 0.5])) < 1e-20


def test_a_filter_cancels_and_a_smaller_spread_shows() -> None:
    table = Digits().table("val")
    x, labels = spectra(torch.from_numpy(table.images)), table.labels
    assert labels is not None
    assert relative_variety(x, labels, x, labels) == 1.0
    transfer = np.random.default_rng(0).uniform(0.1, 1, x.shape[1])
    assert relative_variety(x * transfer, labels, x, labels) == pytest.approx(1.0)
    means = np.stack([x[labels == label].mean(axis=0) for label in range(10)])[labels]
    halfway = relative_variety((x + means) / 2, labels, x, labels)
    assert 0.25 < halfway < 0.45  # a quarter of the variance, of less power
    assert relative_variety(means, labels, x, labels) == pytest.approx(0.0, abs=1e-9)


def test_data_without_labels_are_one_class() -> None:
    metric = ClassVariety()
    images = torch.from_numpy(Digits().table("val").images)
    metric.update({"image": images[:250], "index": torch.arange(250)}, real=True)
    metric.update({"image": images[250:], "index": torch.arange(250)}, real=False)
    assert 0.9 < metric.compute()["class_variety"].item() <= 1.0
    metric.reset()
    metric.update({"image": images[:250], "index": torch.arange(250)}, real=True)
    metric.update({"image": images[:1].expand(250, -1, -1, -1), "index": torch.arange(250)}, real=False)
    assert metric.compute()["class_variety"].item() == pytest.approx(0.0, abs=1e-6)


def test_logits_name_the_classes() -> None:
    """Two pictures over and over: all the variety of one class, none of two."""
    images = torch.zeros(20, 1, 4, 4, dtype=torch.uint8)
    images[::2, 0, 0], images[1::2, 0, 1] = 200, 200
    images[:, 0, 2] = torch.arange(20, dtype=torch.uint8)[:, None]
    classes = torch.eye(2).repeat(10, 1)
    metric = ClassVariety(judge="logits")
    metric.update({"image": images, "logits": classes, "index": torch.arange(20)}, real=True)
    metric.update({"image": images[:2].repeat(10, 1, 1, 1), "logits": classes, "index": torch.arange(20)}, real=False)
    assert metric.compute()["class_variety"].item() == 0.0


def test_where_no_class_has_five_all_are_one() -> None:
    x = np.random.default_rng(0).standard_normal((8, 3))
    nobody = np.arange(8)
    assert relative_variety(x, nobody, x, nobody) == 1.0
    assert relative_variety(x[:1].repeat(8, axis=0), nobody, x, nobody) < 1e-20
    with pytest.raises(DataError, match="class_variety: images of the reference do not differ"):
        relative_variety(x, nobody, np.ones((4, 3)), nobody[:4])


def test_one_picture_over_and_over_does_not_differ() -> None:
    """Whose variation in float32 is 1e-14, not 0: samples were as varied as that."""
    picture = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 16, 16), dtype=np.uint8))
    metric = ClassVariety(judge="pixels")
    for real in (True, False):
        metric.update({"image": picture.repeat(12, 1, 1, 1), "index": torch.arange(12)}, real=real)
    with pytest.raises(DataError, match="class_variety: images of the reference do not differ"):
        metric.compute()

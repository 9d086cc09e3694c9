"""What samples are asked for: the reference's mix of classes, in every prefix."""

import numpy as np
import pytest
import torch

from genlab.data.base import Split
from genlab.data.class_counts import remark
from genlab.data.image import ImageDataModule, ImageTable
from genlab.errors import ConfigError
from genlab.metrics.fid import FID
from genlab.task.asked_labels import AskedLabels
from genlab.task.generate import Generate

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    "counts",
    [(955, 45), (1, 1, 998), tuple(2**k for k in range(10)), tuple(RNG.integers(1, 50, 40).tolist()), (7, 0, 3)],
)
def test_every_prefix_is_within_two_of_its_share(counts: tuple[int, ...]) -> None:
    total = sum(counts)
    labels = AskedLabels(counts).of(range(total)).numpy()
    seen = np.cumsum(labels[:, None] == np.arange(len(counts)), axis=0)
    shares = np.arange(1, total + 1)[:, None] * np.array(counts) / total
    assert np.abs(seen - shares).max() < 2
    assert seen[-1].tolist() == list(counts), "as many samples as the reference has: exactly its mix"


def test_a_label_is_a_function_of_its_number() -> None:
    asked = AskedLabels((60, 30, 7))
    everything = asked.of(range(300))
    assert torch.equal(asked.of([250, 3, 96]), everything[[250, 3, 96]])
    assert torch.equal(asked.of(range(1, 300, 2)), everything[1::2]), "the share of the second of two devices"
    assert len(asked.of([])) == 0


def test_equal_classes_come_in_turn_and_empty_ones_never() -> None:
    labels = np.repeat(np.arange(4), 5)
    even = AskedLabels.like(labels, 4)
    assert even.in_turn
    assert even.of(range(10)).tolist() == [i % 4 for i in range(10)]
    skewed = np.array([1, 1, 1, 3, -1])
    assert AskedLabels.like(skewed, 4).of(range(4)).tolist() == [1, 1, 3, 1]
    balanced = AskedLabels.like(skewed, 4, empty=[0], balanced=True)
    assert balanced.of(range(4)).tolist() == [1, 2, 3, 1]
    assert not balanced.in_turn
    assert AskedLabels.like(None, 2).of(range(3)).tolist() == [0, 1, 0]
    assert AskedLabels.like(np.array([0]), 3, empty=[0]).of(range(2)).tolist() == [1, 2], "nothing else can be asked"


class Skewed(ImageDataModule):
    """Nine in ten images are dark, the others bright; labels begin at 1."""

    def load(self, split: Split) -> ImageTable:
        rng = np.random.default_rng(split == "val")
        labels = np.where(np.arange(300) % 10 == 0, 2, 1)
        images = rng.integers(0, 40, (300, 1, 4, 4)) + 180 * (labels == 2)[:, None, None, None]
        return ImageTable(images.astype(np.uint8), labels, ("0", "1", "2"))


def test_real_images_of_unbalanced_data_are_near_the_reference() -> None:
    data = Skewed()
    assert data.spec.condition["label"].empty == (0,)

    def distance(balanced: bool) -> float:
        metric = FID()
        copies = Generate(balanced).on(data, "val").baselines(200, seed=0)["copies"]
        metric.update({"features": copies["image"].flatten(1).float()}, real=False)
        metric.update({"features": torch.from_numpy(data.table("val").images).flatten(1).float()}, real=True)
        return float(metric.compute()["fid"])

    assert distance(balanced=False) < 0.01 * distance(balanced=True)
    labels = Generate().on(data, "val").baselines(200, seed=0)["class_gaussian"]["label"]
    assert labels is not None
    assert labels.bincount().tolist() == [0, 180, 20]
    assert "class_mix" in Generate().on(data, "val").facts()
    assert Generate().on(data, "val").facts() != Generate(balanced_classes=True).on(data, "val").facts()


def test_data_without_labels_cannot_be_balanced() -> None:
    class Plain(Skewed):
        def load(self, split: Split) -> ImageTable:
            return ImageTable(super().load(split).images)

    with pytest.raises(ConfigError, match="balanced_classes=true: the data have no labels"):
        Generate(balanced_classes=True).on(Plain(), "val")


def test_empty_and_tiny_classes_are_named(caplog: pytest.LogCaptureFixture) -> None:
    Skewed(batch_size=4).check(1)
    assert "no training image has the label 0: it will not be sampled" in caplog.text
    assert remark(np.array([50, 50]), "ab") is None
    assert remark(np.array([955, 45]), "ab") == "of 1,000 training images, few are of the class b (45)."
    said = remark(np.array([9] + 9 * [0]), "abcdefghij")
    assert said == "no training image has the label b, c, d, e, f and 4 more: they will not be sampled."

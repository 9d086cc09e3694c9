"""Accuracy: of held-out images alone, each counted once, on any batch size and number of ranks."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bigrams import Bigrams
from genlab.data.base import Split
from genlab.data.digits import Digits
from genlab.data.image import ImageDataModule, ImageTable
from genlab.errors import ConfigError
from genlab.evaluation.evaluation import Evaluation
from genlab.metrics import accuracy
from genlab.metrics.accuracy import Accuracy
from genlab.metrics.extractor.random_conv import RandomConv
from genlab.metrics.fid import FID
from genlab.model.base import Model
from genlab.model.schedule import Constant

SURE = math.log(9)  # a logit that makes one of four classes 3/4 likely


class SaysItsGray(Model):
    """Takes the first pixel's gray level for the class."""

    kinds = frozenset({"continuous"})

    def __init__(self) -> None:
        super().__init__(seed=0, schedule=Constant())
        self.shape = (1, 2, 2)
        self.looked_at = 0

    def configure_model(self) -> None: ...

    def training_step(self, batch: Any, batch_idx: int) -> None: ...

    def losses(self, batch: Any) -> dict[str, Tensor]:
        return {}

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def logits(self, x: Tensor) -> Tensor:
        assert not self.training
        self.looked_at += len(x)
        named = ((x[:, 0, 0, 0] + 1) * 127.5).round().long()
        return SURE * torch.nn.functional.one_hot(named, 4).float()


class GrayImages(ImageDataModule):
    """20 held-out images: 5 have no label, 3 another than their gray level. Labels of training images are all wrong."""

    def load(self, split: Split) -> ImageTable:
        grays = np.arange(20) % 4
        labels = (grays + 1) % 4 if split == "train" else grays.copy()
        if split == "val":
            labels[:5] = -1
            labels[[6, 7, 11]] = (labels[[6, 7, 11]] + 2) % 4
        return ImageTable(np.tile(grays.astype(np.uint8)[:, None, None, None], (1, 1, 2, 2)), labels, tuple("abcd"))


def test_by_hand() -> None:
    metric, model = Accuracy(), SaysItsGray().eval()
    metric.measure(model, GrayImages(), "train", batch_size=4)
    found = metric.compute()
    total = 9 + 3
    assert found["accuracy"] == 12 / 15
    assert found["cross_entropy"].item() == pytest.approx((12 * math.log(total / 9) + 3 * math.log(total)) / 15)
    assert model.looked_at == 15


@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_and_batches_do_not_show(batch_size: int, world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    metric = Accuracy()
    monkeypatch.setattr(accuracy, "world", lambda: world)
    for rank in range(world):
        monkeypatch.setattr(accuracy, "rank", lambda rank=rank: rank)
        metric.measure(SaysItsGray().eval(), GrayImages(), "val", batch_size)
    assert metric.count == 15
    assert metric.compute()["accuracy"] == 12 / 15


def test_the_protocol_says_which_images_and_the_name_that_they_are_held_out() -> None:
    def result(data: ImageDataModule, **options: Any) -> Any:
        return Evaluation(None, {"accuracy": Accuracy()}, **options).run(SaysItsGray(), data, weights="ema")

    class Fewer(GrayImages):
        def load(self, split: Split) -> ImageTable:
            return super().load(split).first(18)

    first, of_train = result(GrayImages()), result(GrayImages(), reference="train")
    assert first.values == of_train.values
    assert set(first.values) == {"accuracy_val", "cross_entropy_val"}
    assert first.directions == {"accuracy_val": "higher", "cross_entropy_val": "lower"}
    assert result(Fewer()).ids["accuracy_val"] != first.ids["accuracy_val"]
    assert result(GrayImages(), batch_size=3).ids == first.ids


def test_what_cannot_be_measured_is_refused() -> None:
    class Unlabelled(GrayImages):
        def load(self, split: Split) -> ImageTable:
            return ImageTable(super().load(split).images)

    with pytest.raises(ConfigError, match="metrics=accuracy: a Bigrams is not a classifier"):
        Accuracy().check(Bigrams(4), Digits())
    with pytest.raises(ConfigError, match="no held-out image has a label"):
        Accuracy().check(SaysItsGray(), Unlabelled())
    with pytest.raises(ConfigError, match="metrics=accuracy is for images; the data are text"):
        Accuracy().check(SaysItsGray(), SimpleNamespace(spec=SimpleNamespace(modality="text")))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="metrics=fid measures samples, and a SaysItsGray draws none"):
        Evaluation(RandomConv(), {"fid": FID()}).check(SaysItsGray(), GrayImages())

"""The protocol: names, ids, what samples are asked for, and that batch sizes do not show."""

import pytest
import torch
from torch import Tensor

from genlab.data.base import Split
from genlab.data.digits import Digits
from genlab.data.image import ImageDataModule, ImageTable, to_float
from genlab.errors import ConfigError, DataError, NumericsError
from genlab.metrics.baselines import baselines
from genlab.metrics.evaluation import Evaluation
from genlab.metrics.extractor.digits import DigitsFeatures
from genlab.metrics.extractor.random_conv import RandomConv
from genlab.metrics.fid import FID
from genlab.metrics.kid import KID
from genlab.metrics.label_agreement import LabelAgreement
from genlab.metrics.nearest_neighbor import NearestNeighbor
from genlab.metrics.precision_recall import PrecisionRecall
from genlab.model.base import GenerativeModel
from genlab.seeding import RandomStream


class Constant:
    """A learning rate that stays."""

    def scale(self, examples: int, fraction: float) -> float:
        return 1.0


class NoisyPrototypes(GenerativeModel):
    """A training image of the class asked for, plus noise: a conditional model that needs no training."""

    modalities = frozenset({"image"})
    num_classes = 10

    def __init__(self, data: ImageDataModule, noise: float = 0.1):
        super().__init__(seed=0, schedule=Constant())
        table = data.table("train")
        first = [int((table.labels == label).argmax()) for label in range(10)]
        self.prototypes = to_float(torch.from_numpy(table.images[first]))
        self.noise = noise
        self.still = torch.nn.Dropout().eval()
        self.asked: list[int] = []

    def configure_model(self) -> None: ...

    def training_step(self, batch, batch_idx): ...

    def losses(self, batch) -> dict[str, Tensor]:
        return {}

    def sample(self, num_samples, condition=None, generator: RandomStream | None = None) -> Tensor:
        assert not self.training
        assert len(generator) == num_samples
        self.asked += condition["label"].tolist()
        clean = self.prototypes[condition["label"]]
        return clean + self.noise * generator.randn_like(clean)


@pytest.fixture(scope="module")
def data() -> Digits:
    return Digits()


def evaluation(batch_size: int = 64, seed: int = 0, num_samples: int = 200) -> Evaluation:
    metrics = {
        "fid": FID(),
        "kid": KID(subset_size=100, num_subsets=10),
        "prc": PrecisionRecall(),
        "as_asked": LabelAgreement(),
        "nearest": NearestNeighbor(),
    }
    return Evaluation(DigitsFeatures(), metrics, num_samples, "val", seed, batch_size)


def test_batch_size_does_not_show(data: Digits) -> None:
    results = [evaluation(size).run(NoisyPrototypes(data), data, weights="raw") for size in (1, 33, 200)]
    assert results[0].values == results[1].values == results[2].values
    assert len({result.protocol_id for result in results}) == 1


def test_names_say_features_and_count_where_they_matter(data: Digits) -> None:
    assert set(evaluation().run(NoisyPrototypes(data), data, weights="raw").values) == {
        "fid_digits64_200",
        "kid_digits64_200",
        "kid_std_digits64_200",
        "precision_digits64_200",
        "recall_digits64_200",
        "as_asked_200",
        "nn_distance_200",
        "nn_distance_ratio_200",
    }
    result = Evaluation(RandomConv(), {"fid": FID()}).run(NoisyPrototypes(data), data, weights="raw")
    assert set(result.values) == {"fid_random256_1k"}


def test_protocol_is_on_record(data: Digits) -> None:
    result = evaluation().run(NoisyPrototypes(data), data, weights="ema", num_samples=50)
    assert result.protocol["num_samples"] == 50
    assert result.protocol["num_reference"] == 500
    assert result.protocol["weights"] == "ema"
    assert result.protocol["metrics"]["kid"]["subset_size"] == 50
    assert result.samples_per_second > 0


def test_protocol_id_tells_what_compares(data: Digits) -> None:
    def protocol_id(evaluation: Evaluation, weights="raw") -> str:
        return evaluation.run(NoisyPrototypes(data), data, weights=weights, num_samples=20).protocol_id

    base = protocol_id(evaluation())
    assert protocol_id(evaluation(), weights="ema") == base
    assert protocol_id(Evaluation(DigitsFeatures(), {"fid": FID()})) == base
    assert protocol_id(evaluation(seed=1)) != base
    assert protocol_id(Evaluation(RandomConv(), {"fid": FID()})) != base
    assert protocol_id(Evaluation(DigitsFeatures(), {"fid": FID()}, reference="train")) != base


def test_samples_are_asked_for_in_turn_and_the_model_is_left_as_it_was(data: Digits) -> None:
    model = NoisyPrototypes(data).train()
    model.still.eval()
    evaluation(batch_size=32).run(model, data, weights="raw", num_samples=50)
    assert model.asked == [i % 10 for i in range(50)]
    assert model.training
    assert not model.still.training


def test_labels_that_a_model_does_not_take_cannot_be_measured(data: Digits) -> None:
    model = NoisyPrototypes(data)
    model.num_classes = None
    with pytest.raises(ConfigError, match="metrics=as_asked needs a model that takes labels"):
        evaluation().check_labels(model)


def test_an_evaluation_can_be_used_again(data: Digits) -> None:
    judge, model = evaluation(), NoisyPrototypes(data)
    first = judge.run(model, data, weights="raw")
    judge.run(NoisyPrototypes(data, noise=1.0), data, weights="raw")
    assert judge.run(model, data, weights="raw").values == first.values


def test_run_is_generate_then_score(data: Digits) -> None:
    judge, model = evaluation(), NoisyPrototypes(data)
    images, labels = judge.generate(model, data, 200)
    assert judge.score(images, labels, data).values == judge.run(model, data, weights="raw").values


def test_metrics_see_what_they_are_for(data: Digits) -> None:
    """Prototypes are recognised and near the training images, and cover little of the data."""
    judge = evaluation()
    prototypes = judge.run(NoisyPrototypes(data), data, weights="raw").values
    images, labels = baselines(data, 200, seed=0)["floor"]
    real = judge.score(images, labels, data).values
    assert real["fid_digits64_200"] < 0.2 * prototypes["fid_digits64_200"]
    assert prototypes["recall_digits64_200"] < 0.3 < 0.7 < real["recall_digits64_200"]
    assert min(real["as_asked_200"], prototypes["as_asked_200"]) > 0.9
    assert real["nn_distance_200"] == 0.0
    wrong = judge.score(images, (labels + 1) % 10, data).values
    assert wrong["as_asked_200"] < 0.1
    assert wrong["fid_digits64_200"] == real["fid_digits64_200"]


def test_held_out_images_have_a_distance_ratio_of_one(data: Digits) -> None:
    judge = Evaluation(RandomConv(), {"nearest": NearestNeighbor()})
    held_out = torch.from_numpy(data.table("val").images)
    assert judge.score(held_out, None, data).values["nn_distance_ratio_500"] == pytest.approx(1.0)


class Unlabelled(ImageDataModule):
    def load(self, split: Split) -> ImageTable:
        return ImageTable(Digits().table(split).images)


def test_unlabelled_data(data: Digits) -> None:
    images = torch.from_numpy(data.table("val").images)
    unlabelled = Unlabelled()
    values = Evaluation(RandomConv(), {"fid": FID()}).score(images, None, unlabelled).values
    assert values["fid_random256_500"] < 1e-6
    with pytest.raises(DataError, match="as_asked needs labels"):
        Evaluation(RandomConv(), {"as_asked": LabelAgreement()}).score(images, None, unlabelled)


def test_bad_samples_are_refused(data: Digits) -> None:
    with pytest.raises(NumericsError, match="not finite"):
        evaluation().run(NoisyPrototypes(data, noise=float("nan")), data, weights="raw")
    with pytest.raises(DataError, match=r"samples have shape \(3, 8, 8\), the data \(1, 16, 16\)"):
        evaluation().score(torch.zeros(5, 3, 8, 8, dtype=torch.uint8), None, data)
    with pytest.raises(ConfigError, match="num_samples=1 must be >= 2"):
        evaluation(num_samples=1)

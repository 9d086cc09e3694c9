"""The protocol: names, ids, what samples are asked for, and that batch sizes do not show."""

import shutil
import statistics
from pathlib import Path

import pytest
import torch
from torch import Tensor

from genlab.data.base import Split
from genlab.data.digits import Digits
from genlab.data.image import ImageDataModule, ImageTable, to_float
from genlab.errors import ConfigError, DataError, NumericsError
from genlab.evaluation.evaluation import Evaluation
from genlab.metrics.extractor.digits import DigitsFeatures
from genlab.metrics.extractor.random_conv import RandomConv
from genlab.metrics.fid import FID
from genlab.metrics.kid import KID
from genlab.metrics.label_accuracy import LabelAccuracy
from genlab.metrics.nearest_neighbor import NearestNeighbor
from genlab.metrics.precision_recall import PrecisionRecall
from genlab.model.base import GenerativeModel, in_eval_mode
from genlab.sampling.examples import Examples
from genlab.seeding import RandomStream
from genlab.task.generate import Generate
from told import classes


class Constant:
    """A learning rate that stays."""

    def scale(self, examples: int, fraction: float) -> float:
        return 1.0


class NoisyPrototypes(GenerativeModel):
    """A training image of the class asked for, plus noise: a conditional model that needs no training."""

    kinds = frozenset({"continuous"})
    conditions = classes(10)

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
        "precision_recall": PrecisionRecall(),
        "label_accuracy": LabelAccuracy(),
        "nearest_neighbor": NearestNeighbor(),
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
        "kid_se_digits64_200",
        "precision_digits64_200",
        "recall_digits64_200",
        "label_accuracy_200",
        "nn_distance_200",
        "nn_distance_ratio_200",
        "memorized_200",
        "authpct_200",
    }
    result = Evaluation(RandomConv(), {"fid": FID()}).run(NoisyPrototypes(data), data, weights="raw")
    assert set(result.values) == {"fid_random256_1k"}


def test_a_quicker_extractor_stands_in_on_the_way_and_says_so(data: Digits, tmp_path: Path) -> None:
    class Exact(DigitsFeatures):
        def interim(self) -> RandomConv:
            return RandomConv(widths=(4,))

    model, measured = NoisyPrototypes(data), {"fid": FID()}
    ours = Evaluation(Exact(), measured, 40, cache_dir=str(tmp_path))
    quick = Evaluation(RandomConv(widths=(4,)), measured, 40, cache_dir=str(tmp_path))
    for _ in range(2):  # one does not disturb the other
        on_the_way = ours.run(model, data, 30, weights="raw")
        assert on_the_way.values == quick.run(model, data, 30, weights="raw").values
        assert set(on_the_way.values) == {"fid_random8_30"}
        assert on_the_way.protocol["extractor"] == "random8"
        final = ours.run(model, data, weights="raw")
        assert set(final.values) == {"fid_digits64_40"}
        assert final.protocol["extractor"] == "digits64"


def test_protocol_is_on_record(data: Digits) -> None:
    result = evaluation().run(NoisyPrototypes(data), data, weights="ema", num_samples=50)
    assert result.protocol["num_samples"] == 50
    assert result.protocol["num_reference"] == 500
    assert result.protocol["weights"] == "ema"
    assert result.protocol["metrics"]["kid"]["subset_size"] == 50
    assert result.samples_per_second > 0
    assert result.evaluations_per_sample is None, "it does not count them"


def test_protocol_id_tells_what_compares(data: Digits) -> None:
    def protocol_id(evaluation: Evaluation, weights="raw") -> str:
        return evaluation.run(NoisyPrototypes(data), data, weights=weights, num_samples=20).protocol_id

    base = protocol_id(evaluation())
    assert protocol_id(evaluation(), weights="ema") != base
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
    model.conditions = classes(None)
    with pytest.raises(ConfigError, match="metrics=label_accuracy needs a model that takes labels"):
        evaluation().check(model, data)


def test_an_evaluation_can_be_used_again(data: Digits) -> None:
    judge, model = evaluation(), NoisyPrototypes(data)
    first = judge.run(model, data, weights="raw")
    judge.run(NoisyPrototypes(data, noise=1.0), data, weights="raw")
    assert judge.run(model, data, weights="raw").values == first.values


def test_run_is_generate_then_score(data: Digits) -> None:
    judge, model = evaluation(), NoisyPrototypes(data)
    with torch.no_grad(), in_eval_mode(model):
        drawn = judge.draw(model, data, 200, seed=0)
    assert judge.score(drawn, data).values == judge.run(model, data, weights="raw").values


def test_metrics_see_what_they_are_for(data: Digits) -> None:
    """Prototypes are recognized and near the training images, and cover little of the data."""
    judge = evaluation()
    prototypes = judge.run(NoisyPrototypes(data), data, weights="raw").values
    floor = Generate().on(data, "val").baselines(200, seed=0)["floor"]
    real = judge.score(floor, data).values
    assert real["fid_digits64_200"] < 0.2 * prototypes["fid_digits64_200"]
    assert prototypes["recall_digits64_200"] < 0.3 < 0.7 < real["recall_digits64_200"]
    assert min(real["label_accuracy_200"], prototypes["label_accuracy_200"]) > 0.9
    assert real["nn_distance_200"] == 0.0
    wrong = judge.score(Examples.of(image=floor["image"], label=(floor["label"] + 1) % 10), data).values
    assert wrong["label_accuracy_200"] < 0.1
    assert wrong["fid_digits64_200"] == real["fid_digits64_200"]


def test_held_out_images_have_a_distance_ratio_of_one(data: Digits) -> None:
    judge = Evaluation(RandomConv(), {"nearest_neighbor": NearestNeighbor()})
    held_out = torch.from_numpy(data.table("val").images)
    assert judge.score(Examples.of(image=held_out), data).values["nn_distance_ratio_500"] == pytest.approx(1.0)


class Unlabelled(ImageDataModule):
    def load(self, split: Split) -> ImageTable:
        return ImageTable(Digits().table(split).images)


def test_unlabelled_data(data: Digits) -> None:
    images = torch.from_numpy(data.table("val").images)
    unlabelled = Unlabelled()
    values = Evaluation(RandomConv(), {"fid": FID()}).score(Examples.of(image=images), unlabelled).values
    assert values["fid_random256_500"] < 1e-6
    with pytest.raises(DataError, match="label_accuracy needs labels"):
        Evaluation(RandomConv(), {"label_accuracy": LabelAccuracy()}).score(Examples.of(image=images), unlabelled)


def test_bad_samples_are_refused(data: Digits) -> None:
    with pytest.raises(NumericsError, match="not finite"):
        evaluation().run(NoisyPrototypes(data, noise=float("nan")), data, weights="raw")
    with pytest.raises(DataError, match=r"samples have shape \(3, 8, 8\), the data \(1, 16, 16\)"):
        evaluation().score(Examples.of(image=torch.zeros(5, 3, 8, 8, dtype=torch.uint8)), data)
    with pytest.raises(ConfigError, match="num_samples=1 must be >= 2"):
        evaluation(num_samples=1)


def test_several_seeds_give_means_and_their_spread(data: Digits) -> None:
    model = NoisyPrototypes(data)
    single = [evaluation(seed=seed).run(model, data, weights="raw").values["fid_digits64_200"] for seed in (4, 5, 6)]
    judge = Evaluation(DigitsFeatures(), {"fid": FID()}, 200, seed=4, num_seeds=3)
    result = judge.run(model, data, weights="raw")
    assert result.values["fid_digits64_200"] == pytest.approx(statistics.mean(single), rel=1e-12)
    assert result.deviations["fid_digits64_200"] == pytest.approx(statistics.stdev(single), rel=1e-12)
    assert result.protocol["seed"] == [4, 5, 6]
    cheap = judge.run(model, data, 200, weights="raw")
    assert cheap.values["fid_digits64_200"] == single[0]
    assert cheap.deviations == {}
    assert cheap.protocol_id != result.protocol_id


def test_bootstrap_errors_are_the_spread_over_sets_of_samples(data: Digits) -> None:
    """Of the mean distance, whose standard error is known; and no more often than metrics read no pixels."""

    class MeanNorm(FID):
        def compute(self) -> dict[str, Tensor]:
            return {"fid": self.fake_mean[0][0, 0]}

    judge = Evaluation(DigitsFeatures(), {"first": MeanNorm(), "label_accuracy": LabelAccuracy()}, 200, bootstrap=400)
    model = NoisyPrototypes(data)
    result = judge.run(model, data, weights="raw")
    assert set(result.errors) == {"fid_digits64_200"}
    with torch.no_grad(), in_eval_mode(model):
        features = DigitsFeatures().extract(judge.draw(model, data, 200, seed=0)["image"], frozenset({"features"}))
    expected = float(features["features"][:, 0].std() / 200**0.5)
    assert result.errors["fid_digits64_200"] == pytest.approx(expected, rel=0.15)
    assert judge.run(model, data, weights="raw").errors == result.errors
    assert judge.run(model, data, 200, weights="raw").errors == {}


def test_a_number_has_an_id_of_what_it_depends_on(data: Digits) -> None:
    def ids(**changes) -> dict[str, str]:
        metrics = {
            "fid": FID(),
            "kid": KID(subset_size=10, num_subsets=changes.pop("num_subsets", 2)),
            "label_accuracy": LabelAccuracy(),
        }
        judge = Evaluation(changes.pop("extractor", DigitsFeatures()), metrics, 20, **changes)
        found = judge.run(NoisyPrototypes(data), data, weights="raw").ids
        return {name.split("_digits64")[0].split("_random256")[0].split("_20")[0]: found[name] for name in found}

    first = ids()
    assert first["fid"] != first["kid"] == first["kid_std"] == first["kid_se"]
    assert ids() == first
    assert {name for name, value in ids(num_subsets=3).items() if value != first[name]} == {"kid", "kid_std", "kid_se"}
    assert {name for name, value in ids(extractor=RandomConv()).items() if value == first[name]} == {"label_accuracy"}
    assert not set(ids(seed=1).values()) & set(first.values())


def test_the_reference_is_looked_at_once_and_kept_for_others(data: Digits, tmp_path: Path) -> None:
    class Counting(DigitsFeatures):
        looked_at = 0

        def extract(self, examples: Tensor, wanted: frozenset[str]) -> dict[str, Tensor]:
            self.looked_at += len(examples)
            return super().extract(examples, wanted)

    def measured(folder: Path, seed: int = 0) -> tuple[int, float]:
        extractor = Counting()
        judge = Evaluation(extractor, {"fid": FID()}, 50, seed=seed, cache_dir=str(folder))
        value = judge.run(NoisyPrototypes(data), data, weights="raw").values["fid_digits64_50"]
        return extractor.looked_at, value

    count, value = measured(tmp_path / "a")
    assert count == 500 + 50
    shutil.copytree(tmp_path / "a", tmp_path / "b")  # shipped to another machine
    assert measured(tmp_path / "b") == (50, value)
    assert measured(tmp_path / "b", seed=1)[0] == 50
    statistics_file = next((tmp_path / "b").glob("reference-*.npy"))
    statistics_file.write_bytes(statistics_file.read_bytes()[:-8])  # damaged on the way
    assert measured(tmp_path / "b") == (550, value)

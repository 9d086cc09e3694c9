"""Probes of representations: against scikit-learn, by brute force, and what they leave as it was."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.data.base import Split
from genlab.data.digits import Digits
from genlab.data.image import ImageDataModule, ImageTable
from genlab.errors import ConfigError
from genlab.evaluation.evaluation import Evaluation
from genlab.metrics.extractor.classifier import ClassifierFeatures
from genlab.metrics.few_labels import FewLabels, stratified
from genlab.metrics.fine_tuning import FineTuning
from genlab.metrics.knn_probe import KNNProbe
from genlab.metrics.linear_probe import LinearProbe
from genlab.metrics.logistic import fifth_of_each, fit, fit_best
from genlab.metrics.probe import Labelled, chance, labelled
from genlab.model.base import Model
from genlab.model.schedule import Constant
from ranks import on_ranks


class Given(ImageDataModule):
    """Tables by split."""

    def __init__(self, **tables: ImageTable):
        super().__init__()
        self.given = tables

    def load(self, split: Split) -> ImageTable:
        return self.given[split]


def table(count: int, seed: int, names: tuple[str, ...] = ("a", "b", "c")) -> ImageTable:
    """Images of 4x4 whose brightness says, not always, which class they are of; -1 now and then."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(names), count)
    images = np.clip(60 * labels[:, None, None, None] + rng.normal(60, 40, (count, 1, 4, 4)), 0, 255)
    labels[::17] = -1
    return ImageTable(images.astype(np.uint8), labels.astype(np.int64), names)


DATA = Given(train=table(150, 0), val=table(90, 1))


class Features(Model):
    """A network with all that training changes: batch norm and dropout."""

    kinds = frozenset({"continuous"})

    def __init__(self) -> None:
        super().__init__(0, Constant())
        self.shape = (1, 4, 4)
        self.made = 0

    def configure_model(self) -> None:
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.BatchNorm1d(12), nn.GELU(), nn.Dropout(0.5))

    def features(self, x: Tensor) -> Tensor:
        return self.encoder(x)

    def training_step(self, batch: Any, batch_idx: int) -> None: ...

    def losses(self, batch: Any) -> dict[str, Tensor]:
        return {}


@pytest.fixture
def model() -> Features:
    found = Features()
    found.configure_model()
    return found


def measured(metric: Any, model: Model, data: ImageDataModule = DATA, **options: Any) -> dict[str, float]:
    result = Evaluation(None, {"probe": metric}, 8, **options).run(model, data, weights="raw")
    for error in result.failures.values():
        raise error
    return result.values


def known(split: Split) -> tuple[Tensor, Tensor]:
    """Pixels on [-1, 1] (N, 16) and labels of the labelled images of a split."""
    rows = DATA.table(split)
    assert rows.labels is not None
    kept = rows.labels >= 0
    return torch.from_numpy(rows.images[kept]).flatten(1) / 127.5 - 1, torch.from_numpy(rows.labels[kept])


# --- logistic regression ----------------------------------------------------------------------------------------------


def test_the_regression_is_that_of_scikit_learn() -> None:
    strength = 3e-3
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    (train, labels), (held_out, _) = known("train"), known("val")
    scaler = StandardScaler().fit(train.double().numpy())
    theirs = LogisticRegression(C=1 / (len(train) * strength), max_iter=2000, tol=1e-8)
    theirs.fit(scaler.transform(train.double().numpy()), labels.numpy())
    expected = theirs.predict_proba(scaler.transform(held_out.double().numpy()))
    ours = fit(train, labels, 3, strength).logits(held_out).softmax(dim=1)
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-4)


def test_features_that_do_not_vary_are_harmless() -> None:
    features, labels = known("train")
    padded = torch.cat([features, torch.full((len(features), 1), 3.0)], dim=1)
    ours, other = fit(features, labels, 3, 0.01), fit(padded, labels, 3, 0.01)
    torch.testing.assert_close(ours.logits(features), other.logits(padded), atol=1e-4, rtol=0)


def test_the_strength_is_chosen_by_training_examples_alone() -> None:
    """Of features of which one says the class and many are noise, a weak penalty learns the noise by heart."""
    torch.manual_seed(0)
    labels = torch.arange(60) % 3
    features = torch.cat([F.one_hot(labels, 3) + 0.8 * torch.randn(60, 3), torch.randn(60, 40)], dim=1)
    kept_back = fifth_of_each(labels)
    assert kept_back.sum() == 12
    assert labels[kept_back].bincount().tolist() == [4, 4, 4]
    right = {s: fit(features[~kept_back], labels[~kept_back], 3, s) for s in (1e-6, 1.0, 100.0)}
    accuracy = {s: float(probe.accuracy(features[kept_back], labels[kept_back])) for s, probe in right.items()}
    probe, strength = fit_best(features, labels, 3, (1e-6, 1.0, 100.0))
    assert accuracy[strength] == max(accuracy.values()) > min(accuracy.values())
    torch.testing.assert_close(probe.weight, fit(features, labels, 3, strength).weight, atol=1e-4, rtol=0)


# --- probes -----------------------------------------------------------------------------------------------------------


def by_neighbors(train: Any, labels: Any, x: Any, k: int, temperature: float) -> list[int]:
    named = []
    for row in x:
        cosines = train @ row / np.linalg.norm(train, axis=1) / np.linalg.norm(row)
        votes = np.zeros(3)
        for near in np.argsort(-cosines)[:k]:
            votes[labels[near]] += np.exp(cosines[near] / temperature)
        named.append(int(votes.argmax()))
    return named


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (7, 0.07), (30, 5.0)])
def test_neighbors_vote_as_one_by_one(k: int, temperature: float) -> None:
    (train, labels), (held_out, truth) = known("train"), known("val")
    named = by_neighbors(train.double().numpy(), labels.numpy(), held_out.double().numpy(), k, temperature)
    found = KNNProbe(k, temperature).scores(Labelled(train, labels), Labelled(held_out, truth))
    assert float(found["knn_probe"]) == pytest.approx((np.array(named) == truth.numpy()).mean())
    assert 0.4 < float(found["knn_probe"]) < 1


def test_each_number_stands_beside_its_baselines(model: Features) -> None:
    values = measured(KNNProbe(), model) | measured(LinearProbe(), model)
    values |= measured(FineTuning(0.5, 200), model)
    (train, labels), (held_out, truth) = known("train"), known("val")
    sides = Labelled(train, labels), Labelled(held_out, truth)
    usual = float((truth == labels.mode().values).double().mean())
    for name, metric in (("knn_probe", KNNProbe()), ("linear_probe", LinearProbe())):
        expected = metric.scores(*sides)
        assert values[f"{name}_pixels_val"] == pytest.approx(float(expected[name]))
        assert values[f"{name}_chance_val"] == pytest.approx(usual)
        assert usual < values[f"{name}_val"] <= 1
    assert values["fine_tuning_chance_val"] == pytest.approx(usual)
    assert values["linear_probe_strength_val"] in (1e-4, 1e-3, 1e-2, 1e-1)


def test_scores_of_pixels_are_computed_once_on_a_machine(
    model: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By what they depend on: the settings, of the pictures too. Without a place to keep them they are as they are."""
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "cache"))
    first = measured(KNNProbe(7), model)
    kept = [*(tmp_path / "cache").glob("pixels-*.npy")]
    assert len(kept) == 1
    asked: list[int] = []
    scores = KNNProbe.scores
    monkeypatch.setattr(KNNProbe, "scores", lambda self, *sides: asked.append(self.k) or scores(self, *sides))
    assert measured(KNNProbe(7), model) == first
    assert asked == [7]  # of the features alone
    assert measured(KNNProbe(8), model)["knn_probe_pixels_val"] != first["knn_probe_pixels_val"]
    assert asked == [7, 8, 8]
    (tmp_path / "file").touch()
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "file"))
    assert measured(KNNProbe(7), model) == first
    assert "are computed again by every run until then" in caplog.text


def test_features_are_of_eval_mode_whatever_the_mode_was(model: Features) -> None:
    torch.manual_seed(0)
    model.encoder[2].running_mean.normal_()
    found: list[dict[str, Tensor]] = []
    states = {name: value.clone() for name, value in model.state_dict().items()}
    for training in (True, False):
        model.train(training)
        metric = LinearProbe()
        metric.measure(model, DATA, "val", 64)
        assert model.encoder[4].training is training
        found.append(metric.compute())
        with torch.no_grad():
            model.eval()
            images, _ = known("train")
            torch.testing.assert_close(torch.cat(metric.train_features), model.features(images))
    assert found[0] == found[1]
    assert all(torch.equal(value, states[name]) for name, value in model.state_dict().items())


def test_numbers_do_not_depend_on_the_batch_size(model: Features) -> None:
    for metric in (KNNProbe(), LinearProbe(), FineTuning(0.5, 128)):
        assert measured(metric, model, batch_size=64) == measured(metric, model, batch_size=7)


def test_the_training_split_is_not_measured(model: Features) -> None:
    """What was learned by heart says nothing."""
    assert measured(KNNProbe(1), model, reference="train") == measured(KNNProbe(1), model)
    assert measured(KNNProbe(1), model)["knn_probe_val"] < 1


def test_num_train_are_spread_evenly(model: Features) -> None:
    metric = KNNProbe(5, num_train=20)
    metric.measure(model, DATA, "val", 64)
    _, labels = known("train")
    rows = np.linspace(0, len(labels) - 1, 20).round().astype(int)
    assert torch.cat(metric.train_labels).tolist() == labels[rows].tolist()


def test_settings_name_what_was_learned_from_and_measured(model: Features) -> None:
    metric = LinearProbe()
    metric.measure(model, DATA, "val", 64)
    first = metric.settings()
    assert (first["split"], first["num_train"], first["layer"]) == ("val", 10000, "of the family")
    for other in (Given(train=table(150, 0), val=table(90, 2)), Given(train=table(150, 3), val=table(90, 1))):
        metric.measure(model, other, "val", 64)
        assert {key for key, value in metric.settings().items() if value != first[key]} in (
            {"sha256"},
            {"train_sha256"},
        )


# --- few labels -------------------------------------------------------------------------------------------------------

MORE_DATA = Given(train=table(600, 0), val=table(90, 1))


def test_draws_keep_the_shares_of_classes() -> None:
    labels = torch.tensor([0] * 600 + [1] * 300 + [2] * 3)
    first = stratified(labels, 0.1, 0)
    assert labels[first].bincount().tolist() == [60, 30, 1]
    assert torch.equal(first, stratified(labels, 0.1, 0))
    assert not torch.equal(first, stratified(labels, 0.1, 1))
    assert len(first.unique()) == len(first)


def test_few_labels_are_a_mean_over_draws(model: Features) -> None:
    values = measured(FewLabels(draws=2), model, MORE_DATA)
    assert values["few_labels_10pct_val"] > values["few_labels_1pct_val"] > values["few_labels_chance_val"]
    assert values["few_labels_1pct_std_val"] > 0
    other = measured(FewLabels(draws=2, seed=1), model, MORE_DATA)
    assert other["few_labels_1pct_val"] != values["few_labels_1pct_val"]


# --- fine-tuning ------------------------------------------------------------------------------------------------------


def test_a_copy_is_tuned_and_learns_while_the_model_stays(model: Features) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    values = measured(FineTuning(0.5, 2000, lr=3e-3), model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    assert values["fine_tuning_val"] > 0.6 > values["fine_tuning_chance_val"]
    assert measured(FineTuning(0.5, 2000, lr=3e-3), model) == values


def test_every_weight_of_the_copy_is_trained(model: Features) -> None:
    metric = FineTuning(1.0, 128)
    tuned = metric._tuned(model, labelled(DATA, "train", None, "fine_tuning"))
    moved = {n for n, p in tuned.model.named_parameters() if not torch.equal(p, model.get_parameter(n))}
    assert moved == {name for name, _ in model.named_parameters()}
    assert not torch.equal(tuned.model.encoder[2].running_mean, model.encoder[2].running_mean)
    assert tuned.head.weight.abs().max() > 0


class WithoutGradient(Features):
    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        return super().features(x)


def test_features_without_a_gradient_are_not_tuned() -> None:
    model = WithoutGradient()
    model.configure_model()
    with pytest.raises(ConfigError, match=r"the features of a WithoutGradient have no gradient\. Leave it out"):
        measured(FineTuning(), model)


# --- what cannot be ---------------------------------------------------------------------------------------------------


def unlabelled(count: int) -> ImageTable:
    return ImageTable(table(count, 0).images)


class Draws(Model):
    """Of a family without features."""

    kinds = frozenset({"continuous"})

    def configure_model(self) -> None: ...

    def training_step(self, batch: Any, batch_idx: int) -> None: ...

    def losses(self, batch: Any) -> dict[str, Tensor]:
        return {}


@pytest.mark.parametrize(
    "metric", [KNNProbe(), LinearProbe(), FewLabels(), FineTuning()], ids=lambda m: type(m).__name__
)
def test_bad_data_are_refused_in_a_line(metric: Any, model: Features) -> None:
    few = Given(train=ImageTable(*list(vars(table(9, 0)).values())[:2], names=tuple("abcdefghijkl")), val=table(9, 1))
    for data, message in (
        (Given(train=unlabelled(9), val=table(9, 1)), r"no image of the train split has a label\. Leave it out"),
        (Given(train=table(40, 0), val=unlabelled(9)), r"no image of the val split has a label\. Leave it out"),
        (few, r"8 training images have one of 12 classes: too few\. Leave it out of metrics=\[...\]"),
    ):
        with pytest.raises(ConfigError, match=message):
            metric.check(model, data)
    with pytest.raises(ConfigError, match=r"is for images; the data are text\. Leave it out of metrics"):
        metric.check(model, Text())


def test_models_that_cannot_be_probed(model: Features, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"metrics=fine_tuning: a Draws has no features of images\. Leave it out"):
        FineTuning().check(Draws(0, Constant()), DATA)
    monkeypatch.setattr(Features, "device_mesh", object())
    with pytest.raises(ConfigError, match=r"fine_tuning cannot copy a sharded model\. Leave it out of metrics"):
        FineTuning().check(model, DATA)


class Text:
    class spec:
        modality = "text"


def test_places_that_are_not_there() -> None:
    metric = LinearProbe(layer=0.5)
    model = Features()
    with pytest.raises(
        ConfigError, match=r"linear_probe\.layer: features of a Features are read, without a layer\. Use metrics\."
    ):
        metric.check(model, DATA)
    with pytest.raises(ConfigError, match=r"Use metrics\.linear_probe\.noise_level=null\."):
        LinearProbe(noise_level=0.1).check(model, DATA)
    with pytest.raises(ValueError, match=r"layer=1\.5 is a depth"):
        LinearProbe(layer=1.5)
    with pytest.raises(
        ConfigError, match=r"k=160 is larger than the 141 labelled training images\. Use metrics.knn_pr"
    ):
        KNNProbe(160).check(model, DATA)
    with pytest.raises(ConfigError, match=r"1 % of 141 training labels are 1, fewer than the 3 classes"):
        FewLabels().check(model, DATA)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (KNNProbe, {"k": 0}),
        (KNNProbe, {"temperature": 0.0}),
        (LinearProbe, {"strengths": []}),
        (LinearProbe, {"strengths": [0.0]}),
        (LinearProbe, {"num_train": 1}),
        (LinearProbe, {"noise_level": -1.0}),
        (FewLabels, {"draws": 1}),
        (FineTuning, {"share": 0.0}),
        (FineTuning, {"lr": 0.0}),
        (FineTuning, {"num_examples": 1}),
    ],
)
def test_arguments_outside_their_range(kind: Any, options: Mapping[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        kind(**options)


# --- an extractor -----------------------------------------------------------------------------------------------------


class MaskedImages(Features):
    """Of a family that neither classifies nor reads captions."""


def test_any_model_with_features_is_an_extractor() -> None:
    found = ClassifierFeatures(MaskedImages())
    assert (found.name, found.gives) == ("masked_images12", frozenset({"features"}))
    images = torch.from_numpy(DATA.table("val").images[:5])
    alone = found.extract(images[:1], frozenset({"features"}))["features"]
    features = found.extract(images, frozenset({"features"}))["features"]
    torch.testing.assert_close(features[:1], alone)
    first = found.fingerprint()
    found.model.encoder[2].running_mean += 1  # type: ignore[operator]
    assert found.fingerprint() != first


def test_pixels_of_digits_are_as_good_as_they_are_known_to_be() -> None:
    """Nearest neighbors and a linear map of 8x8 digits: about 0.98 and 0.95, whoever measures."""
    data = Digits()
    train, val = data.table("train"), data.table("val")
    sides = [Labelled(torch.from_numpy(t.images).flatten(1) / 255.0, torch.from_numpy(t.labels)) for t in (train, val)]
    assert float(KNNProbe().scores(*sides)["knn_probe"]) > 0.95
    assert 0.9 < float(fit(*vars(sides[0]).values(), 10, 0.01).accuracy(*vars(sides[1]).values())) < 0.98
    assert float(chance(sides[0].labels, sides[1].labels)) == pytest.approx(0.1, abs=0.02)


# --- ranks ------------------------------------------------------------------------------------------------------------


def on_a_rank(rank: int = 0) -> dict[str, float]:
    """What all probes find together with other ranks."""
    model, found = Features(), {}
    model.configure_model()
    for metric in (KNNProbe(7), LinearProbe((1e-2,)), FewLabels(2), FineTuning(0.2, 128)):
        metric.measure(model, MORE_DATA, "val", 16)
        found |= {name: float(value) for name, value in metric.compute().items()}
    return found


@pytest.mark.matrix  # two processes that start anew
def test_two_ranks_find_what_one_does(tmp_path: Path) -> None:
    alone = on_a_rank()
    assert all(found == pytest.approx(alone, abs=1e-9) for found in on_ranks(2, tmp_path, on_a_rank))

"""Each failure is named, once, and what is sound is not. Thresholds are met from both sides."""

import csv
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.plugins.precision import MixedPrecision
from test_ema import Line
from torch import Tensor

from genlab.callbacks.checkpoint import Checkpoints
from genlab.callbacks.diversity import classes_drawn, distance_ratio, pairwise_distance
from genlab.callbacks.failure_monitor import Average, FailureMonitor, Norms, gradient_norm, optimizer_names
from genlab.checkpoint import read
from genlab.command.train import Interrupted
from genlab.data.digits import Digits
from genlab.data.image import ImageTable
from genlab.model.network.dcgan import DCGANGenerator
from tiny_run import MLP, SignalAt, only_run, resume, same, small, train
from told import classes

VAL, TRAIN = Digits().table("val"), Digits().table("train")


class Heard:
    """A trainer and a model, as far as the monitor looks at them, and what it says of them."""

    def __init__(self, monitor: FailureMonitor, monkeypatch: pytest.MonkeyPatch, num_classes: int | None = 10):
        self.monitor, self.sentences = monitor, [""][:0]
        data = SimpleNamespace(table={"val": VAL, "train": TRAIN}.__getitem__)
        self.trainer: Any = SimpleNamespace(callback_metrics={}, datamodule=data)
        self.model: Any = Line()
        self.model.conditions = classes(num_classes)
        self.model.progress.fraction, self.model.progress.examples = 0.5, 50_000
        monkeypatch.setattr(warnings, "warn", lambda sentence, **_: self.sentences.append(sentence))

    def scores(self, real: float, fake: float, examples: int) -> None:
        self.model.progress.examples = examples
        self.trainer.callback_metrics = {
            "train/accuracy_real": torch.tensor(real),
            "train/accuracy_fake": torch.tensor(fake),
        }
        self.monitor.watch_discriminator(self.trainer, self.model)

    def samples(self, images: Tensor) -> dict[str, float]:
        return self.monitor.watch_samples(self.trainer, self.model, images)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    return Heard(FailureMonitor(), monkeypatch)


# --- the discriminator wins -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("real", "fake", "wins"), [(1, 1, True), (0.992, 0.992, True), (0.988, 1, False),
                                                    (1, 0.988, False), (0.5, 0.5, False)])  # fmt: skip
def test_a_discriminator_that_is_always_right(real: float, fake: float, wins: bool, heard: Heard) -> None:
    for examples in range(1000, 60_000, 1000):
        heard.scores(real, fake, examples)
    assert len(heard.sentences) == wins
    for sentence in heard.sentences:
        assert sentence.startswith("the discriminator wins: after 10,000 examples it is right about")
        assert "model/augment=diffaugment" in sentence
        assert "model.discriminator_optimizer.lr" in sentence


def test_it_has_to_win_for_long_and_not_only_at_the_start(heard: Heard) -> None:
    for examples in range(1000, 10_000, 1000):
        heard.scores(1, 1, examples)
    for examples in range(10_000, 60_000, 1000):
        heard.scores(0.9 if examples // 1000 % 4 else 1.0, 1, examples)
    assert not heard.sentences


def test_the_window_counts_examples_and_not_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (100, 1000):
        heard = Heard(FailureMonitor(window=20_000), monkeypatch)
        for examples in range(step, 40_000, step):
            heard.scores(0.5 if examples <= 2000 else 1, 1, examples)
            if heard.sentences:
                break
        else:
            pytest.fail("not said")
        assert 40_000 > examples > 20_000


def test_a_discriminator_may_win_early(heard: Heard) -> None:
    heard.model.progress.fraction = 0.1
    for examples in range(1000, 60_000, 1000):
        heard.scores(1, 1, examples)
    assert not heard.sentences


def test_the_average_is_one_of_what_it_is_given() -> None:
    average = Average(1000)
    for examples in (64, 300, 310, 2000):
        average.add(0.7, examples)
        assert average.value == pytest.approx(0.7)
    average.add(0.7, 2000)  # no examples, no weight
    for examples in range(3000, 30_000, 1000):
        average.add(0.2, examples)
    assert average.value == pytest.approx(0.2, abs=0.05)


# --- mode collapse --------------------------------------------------------------------------------------------------


def images_of(labels: list[int], table: ImageTable = VAL) -> Tensor:
    """From all over the table: images that stand side by side are of one hand."""
    assert table.labels is not None
    classes = [np.flatnonzero(table.labels == label) for label in range(10)]
    rows = [classes[label][len(classes[label]) * i // len(labels)] for i, label in enumerate(labels)]
    return torch.from_numpy(table.images[rows])


GRID = images_of([i % 10 for i in range(80)], TRAIN)  # as the grid asks for


def shrunk(images: Tensor, share: float) -> Tensor:
    """Each image moved towards the mean of its class, so that distances shrink to ``share``."""
    columns = images.float().unflatten(0, (8, 10))
    mean = columns.mean(dim=0, keepdim=True)
    return torch.lerp(mean, columns, share).flatten(0, 1).round().to(torch.uint8)


def test_distances_by_hand() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(3, 1, 1, 1).expand(3, 3, 2, 2)
    assert pairwise_distance(images) == pytest.approx((0.2 + 1 + 0.8) / 3)
    table = ImageTable(images.numpy(), np.array([0, 0, 1]), ("a", "b"))
    labels = torch.tensor([0, 1] * 5)
    one = images[[0, 2] * 5]  # class 0 is always black, class 1 white
    assert distance_ratio(one, labels, table) == 0
    five = torch.cat([images[:2]] * 3)[[0, 1, 2, 3, 4]]  # 6 of 10 pairs are 0.2 apart, as the data are
    assert distance_ratio(five, torch.zeros(5, dtype=torch.long), table) == pytest.approx(0.6)
    assert distance_ratio(images[:2], None, table) is None  # one pair
    same_images = ImageTable(np.zeros((5, 1, 2, 2), np.uint8))
    assert distance_ratio(five, None, same_images) is None


def test_training_images_are_as_far_apart_as_held_out_ones() -> None:
    labels = torch.arange(80) % 10
    for asked in (labels, None):
        ratio = distance_ratio(GRID, asked, VAL)
        assert ratio is not None
        assert 0.9 < ratio < 1.1
    apart = distance_ratio(torch.randint(256, GRID.shape, dtype=torch.uint8), labels, VAL)
    assert apart is not None
    assert apart > 1.5  # noise


@pytest.mark.parametrize(("share", "collapsed"), [(1.0, False), (0.45, False), (0.25, True), (0.0, True)])
def test_samples_of_a_class_that_are_alike(share: float, collapsed: bool, heard: Heard) -> None:
    values = heard.samples(shrunk(GRID, share))
    assert values["pairwise_distance_ratio"] == pytest.approx(share, abs=0.06)
    heard.samples(shrunk(GRID, share))
    assert len(heard.sentences) == collapsed, "once"
    if collapsed:
        assert "samples of a class are nearly alike after 50,000 examples (pairwise distance" in heard.sentences[0]
        assert "model.optimizer.lr" in heard.sentences[0]


def test_noise_is_no_collapse_and_blank_images_are_none_at_the_start(heard: Heard) -> None:
    heard.samples(torch.randint(256, GRID.shape, dtype=torch.uint8))
    blank = torch.full_like(GRID, 127)
    for fraction, examples in ((0.1, 50_000), (1.0, 5000)):
        heard.model.progress.fraction, heard.model.progress.examples = fraction, examples
        assert heard.samples(blank)["pairwise_distance_ratio"] == 0
    assert not heard.sentences
    heard.model.progress.fraction, heard.model.progress.examples = 0.2, 50_000
    heard.samples(blank)
    assert len(heard.sentences) == 1


def test_an_adversary_has_a_remedy_of_its_own(heard: Heard) -> None:
    heard.trainer.callback_metrics = {"train/accuracy_fake": torch.tensor(0.5)}
    heard.samples(shrunk(GRID, 0))
    assert "model/objective/penalty=r1" in heard.sentences[0]


@pytest.mark.parametrize("count", [10, 9, 3])
def test_classes_that_are_never_drawn(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard(FailureMonitor(), monkeypatch, num_classes=None)
    values = heard.samples(images_of([i % count for i in range(80)], TRAIN))
    absent = ", ".join(str(label) for label in range(count, 10))
    assert values["classes_drawn"] == count
    assert [sentence.partition(" (")[0].rpartition("class")[2].removeprefix("es ").strip()
            for sentence in heard.sentences] == [absent] * (count < 10)  # fmt: skip


def test_a_class_that_luck_may_leave_out_is_not_missed() -> None:
    drawn, missing = classes_drawn(images_of([0] * 20), TRAIN, VAL)
    assert (drawn, missing) == ([0], [])  # 0.9^20 = 0.12
    assert classes_drawn(images_of([0] * 100), TRAIN, VAL)[1] == list(range(1, 10))  # 0.9^100 = 3e-5


# --- gradients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("norms", "explodes"),
    [
        ([1.0] * 20 + [99.0] * 5, False),
        ([1.0] * 20 + [101.0] * 2, True),
        ([1.0] * 20 + [1e9] + [1.0] * 5 + [1e9] + [1.0], False),  # bad batches
        ([1.0, *[999.0] * 30], False),
        ([1.0, *[1001.0] * 30], True),  # it has been too late for a median since the second step
        ([1.0 * 1.5**i for i in range(20)], True),
        ([0.0] * 5 + [1.0] * 30, False),
        ([1.0, float("nan")], True),
        ([float("inf")], True),
    ],
)
def test_a_norm_far_above_its_median(norms: list[float], explodes: bool) -> None:
    usual = Norms()
    assert any(usual.explode(norm, 100.0) for norm in norms) == explodes


def test_the_norm_is_that_of_all_gradients_together() -> None:
    weights = [torch.nn.Parameter(torch.zeros(n)) for n in (2, 3, 1)]
    weights[0].grad, weights[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0, 0.0])
    assert gradient_norm(torch.optim.SGD(weights, 1.0)) == 5
    half = torch.nn.Parameter(torch.zeros(4, dtype=torch.float16))
    half.grad = torch.full((4,), 6e4, dtype=torch.float16)  # the sum of squares is none of float16's numbers
    assert gradient_norm(torch.optim.SGD([half], 1.0)) == pytest.approx(12e4, rel=1e-3)
    assert gradient_norm(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)) == 0


@pytest.mark.parametrize("fused", [True, False])
def test_a_loss_scale_is_taken_out(fused: bool, heard: Heard) -> None:
    """A fused optimizer still has to unscale its gradients when the hook is called; of others Lightning has."""
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0))
    plugin.scaler.scale(torch.zeros(()))  # type: ignore[union-attr]
    optimizer = torch.optim.Adam(heard.model.parameters(), fused=fused)
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(_batches_that_stepped=0))
    heard.trainer = SimpleNamespace(is_global_zero=True, precision_plugin=plugin, optimizers=[optimizer],
                                    log_every_n_steps=1, fit_loop=loop, gradient_clip_val=None)  # fmt: skip
    heard.monitor.on_train_start(heard.trainer, heard.model)
    for slope in (1024.0 if fused else 1.0, float("inf")):  # the latter is how a scale is found to be too large
        for p in heard.model.parameters():
            p.grad = torch.zeros_like(p)
        heard.model.network.bias.grad[0] = slope
        loop.epoch_loop._batches_that_stepped += 1
        heard.monitor.on_before_optimizer_step(heard.trainer, heard.model, optimizer)
    assert heard.monitor.gradients[""].recent == [1.0]
    assert not heard.sentences


def test_optimizers_are_named_by_what_they_train() -> None:
    model = torch.nn.ModuleDict({"generator": torch.nn.Linear(1, 1), "discriminator": torch.nn.Linear(1, 1)})
    first, second, both = (
        torch.optim.SGD(part.parameters(), 1.0) for part in (model["generator"], model["discriminator"], model)
    )
    assert optimizer_names([first, second], model) == ["generator", "discriminator"]
    assert optimizer_names([first, both], model) == ["generator", "1"]
    assert optimizer_names([both], model) == [""]


# --- runs -----------------------------------------------------------------------------------------------------------

SMALL_GAN = small("model=gan", "model/generator=dcgan", "model/discriminator=dcgan")
GRIDS = ("callbacks.samples.times=4", "callbacks.samples.rows=4", "callbacks.samples.columns=10")
SOON = ("callbacks.monitor.grace_examples=500", "callbacks.monitor.window=500")


class Deaf(DCGANGenerator):
    """Draws one image of a class."""

    def forward(self, noise: Tensor, condition: Any) -> Tensor:
        return super().forward(torch.zeros_like(noise), condition)


def column(run: Path, name: str) -> list[float]:
    with (run / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def said(record: pytest.WarningsRecorder) -> list[str]:
    return [str(warning.message) for warning in record if "failure_monitor" in warning.filename]


def test_a_generator_that_is_deaf_to_its_noise(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="samples of a class are nearly alike") as record:
        run = train(*SMALL_GAN, *GRIDS, *SOON, "model.generator._target_=test_failure_monitor.Deaf",
                    "budget.value=1200", outputs=tmp_path)  # fmt: skip
    assert len([sentence for sentence in said(record) if "alike" in sentence]) == 1
    assert column(run, "monitor/pairwise_distance_ratio") == pytest.approx([0.0] * 4, abs=1e-3)
    assert len(column(run, "monitor/gradient_norm_discriminator")) == 150
    assert len(column(run, "monitor/gradient_norm_generator")) == 150


def test_a_generator_that_does_not_learn(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="the discriminator wins"):
        train(*SMALL_GAN, *SOON, "model.optimizer.lr=1e-9", "model.discriminator_optimizer.lr=2e-3",
              "budget.value=2000", outputs=tmp_path)  # fmt: skip


def test_a_critic_is_right_about_nothing(tmp_path: Path) -> None:
    """Scores of a Wasserstein critic are no answers, so it cannot win."""
    gan = small("model=gan", "model/generator=dcgan", "model/discriminator=sngan", "model/objective=wgan_gp")
    run = train(*gan, outputs=tmp_path)
    assert column(run, "monitor/gradient_norm_generator")
    assert not column(run, "monitor/accuracy_real")
    assert not column(run, "train/accuracy_real")


@pytest.mark.parametrize(
    "family",
    [
        (*SMALL_GAN, *SOON, "budget.value=1200"),
        ("model/network=mlp", "data.limit=null", "data.batch_size=64", "budget.value=16_000"),
    ],
    ids=["gan", "diffusion"],
)
def test_a_healthy_run_hears_nothing(family: tuple[str, ...], tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    run = train(*family, *GRIDS, outputs=tmp_path)
    assert said(recwarn) == []
    assert len(column(run, "monitor/pairwise_distance_ratio")) == 4


@pytest.mark.parametrize("clip", [None, 1.0])
def test_an_exploding_learning_rate(clip: float | None, tmp_path: Path) -> None:
    """Adam's steps are as long as its rate, clipped or not."""
    with pytest.warns(UserWarning, match="the gradient explodes: after") as record:
        train(*MLP, "model.optimizer.lr=1", "model/schedule=constant", f"trainer.gradient_clip_val={clip or 'null'}",
              "budget.value=800", outputs=tmp_path)  # fmt: skip
    (sentence,) = said(record)
    assert ("trainer.gradient_clip_val=1.0" in sentence) == (clip is None)
    assert "model.optimizer.lr" in sentence


def test_training_is_the_same_without_it_and_looks_are_rare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    monkeypatch.setattr("genlab.callbacks.failure_monitor.gradient_norm", lambda o: looked.append(o) or 1.0)
    settings = (*SMALL_GAN, *GRIDS, "trainer.log_every_n_steps=7", "budget.value=400")
    watched = train(*settings, outputs=tmp_path / "a")
    assert len(looked) == 2 * (10 + 50 // 7 - 1)  # the first ten steps, then every seventh
    monkeypatch.undo()
    alone = train(*settings, "~callbacks.monitor", outputs=tmp_path / "b")
    for part in ("state_dict", "optimizer_states", "ema"):
        assert same(read.newest(watched).content[part], read.newest(alone).content[part])


def test_a_run_that_goes_on_is_not_warned_again(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    settings = (*MLP, "model.optimizer.lr=1", "model/schedule=constant", "budget.value=400")
    straight = train(*settings, outputs=tmp_path / "straight")
    with pytest.raises(Interrupted):
        train(*settings, SignalAt.override(304), outputs=tmp_path / "stopped")
    run = only_run(tmp_path / "stopped")
    assert len(said(recwarn)) == 2, "one a run"
    resume(run)
    assert len(said(recwarn)) == 2
    norms = column(straight, "monitor/gradient_norm")
    assert column(run, "monitor/gradient_norm") == norms
    assert len(norms) == 50
    (of_one, of_other) = (
        next(value for key, value in read.newest(r).content["callbacks"].items() if "FailureMonitor" in key)
        for r in (run, straight)
    )
    assert same(of_one, of_other)


def test_a_step_that_is_saved_for_its_grid_holds_what_was_logged_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is killed while the grid is drawn goes on from there."""
    saved: list[dict[str, Any]] = []
    whole = Checkpoints.save

    def save(self: Checkpoints, trainer: Trainer, model: LightningModule) -> None:
        whole(self, trainer, model)
        saved.append(dict(read.newest(Path(trainer.default_root_dir)).content["metrics"][-1]))

    monkeypatch.setattr(Checkpoints, "save", save)
    train(*MLP, "callbacks.samples.times=2", "budget.value=64", outputs=tmp_path)
    assert [row["progress/examples"] for row in saved] == [32, 64, 64]  # of the last, before its grid and at its end
    assert all("monitor/gradient_norm" in row for row in saved)

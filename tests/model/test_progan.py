"""Runs of progressive GANs: their stages, what is trained in each, samples, and stops in the middle of a fade."""

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf

from genlab.callbacks.forecast import Forecast
from genlab.callbacks.samples import SampleGrid
from genlab.checkpoint import read
from genlab.command import train as train_command
from genlab.command.train import Interrupted
from genlab.errors import ConfigError
from genlab.model.base import Grows
from genlab.model.growth import Stage
from genlab.model.progan import ProgressiveGAN
from genlab.run import assemble, run_folder
from genlab.run.load import load_run
from tiny_run import SignalAt, compose, only_run, plain, resume, same, small, train

# In examples, of batches of 8: 8x8 fades in from 16 to 40, and 16x16 from 56 to 80.
RUN = small("model=progan", "model.growth.stable=16", "model.growth.fade=24")
FADING = {16: (1, 0.0), 24: (1, 1 / 3), 32: (1, 2 / 3), 56: (2, 0.0), 64: (2, 1 / 3), 72: (2, 2 / 3)}
STAGES = [FADING.get(examples, (min(2, (examples + 24) // 40), 1.0)) for examples in range(0, 136, 8)]
WHOLE = (*RUN, "model.growth.batch_size={16:4}", "model.growth.lr_factor={8:0.5}", "trainer.gradient_clip_val=1.0",
         "budget.value=136")  # fmt: skip


class Trace(pl.Callback):
    """Of each batch: the kind of its step, the stage and learning rates it was made at, its FLOPs, and what it
    changed."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.stages: list[Stage] = []
        self.rates: list[tuple[float, ...]] = []
        self.counted: list[float] = []  # FLOPs so far
        self.changed: list[set[str]] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.kinds.append(pl_module.step_kind(batch_idx))
        self.before = {name: p.detach().clone() for name, p in pl_module.named_parameters()}

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.counted.append(pl_module.progress.flops)
        self.stages.append(pl_module.networks_stage())
        self.rates.append(tuple(optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers))
        changed = {name for name, p in pl_module.named_parameters() if not torch.equal(p, self.before[name])}
        self.changed.append({name.rpartition(".")[0] for name in changed})


class Straight(NamedTuple):
    """A run that was never stopped."""

    folder: Path
    trace: Trace


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Straight:
    trace, build = Trace(), train_command.build_trainer
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            train_command, "build_trainer", lambda c, m, callbacks, *rest: build(c, m, [*callbacks, trace], *rest)
        )
        return Straight(train(*WHOLE, outputs=tmp_path_factory.mktemp("straight")), trace)


def test_a_run_goes_through_the_stages(straight: Straight) -> None:
    assert straight.trace.stages == STAGES
    assert [kind.partition(":")[0] for kind in straight.trace.kinds] == [
        f"{4 * 2**level}{' fading' * (alpha < 1)}" for level, alpha in STAGES
    ]
    assert straight.trace.rates == [(5e-4, 5e-4) if level == 1 else (1e-3, 1e-3) for level, _ in STAGES]
    with (straight.folder / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/resolution"]]
    assert [(float(row["train/resolution"]), float(row["train/alpha"])) for row in rows] == [
        (4 * 2**level, pytest.approx(alpha)) for level, alpha in STAGES
    ]


def test_only_layers_of_the_stage_are_trained(straight: Straight) -> None:
    for (level, alpha), changed in zip(STAGES, straight.trace.changed, strict=True):
        colors = {level} if alpha == 1 else {level - 1} if alpha == 0 else {level - 1, level}
        blocks = set(range(level - (alpha == 0)))  # the newest has no part in images yet
        for network, layers in (("generator", "to_image"), ("discriminator", "from_image")):
            own = {name.removeprefix(f"{network}.") for name in changed if name.startswith(network)}
            assert {int(name[-1]) for name in own if name.startswith(layers)} == colors
            assert {int(name.split(".")[1]) for name in own if name.startswith("blocks")} == blocks
            assert "conv" in own


def test_each_stage_has_its_own_cost(straight: Straight) -> None:
    """At 16x16 a batch is of two steps of half the size, which cost the same. tests/test_flops.py compares the sum of
    all stages with torch's count."""
    counted = straight.trace.counted
    of_stage: dict[tuple[int, bool], set[float]] = {}
    for (level, alpha), before, after in zip(STAGES, [0, *counted], counted, strict=False):
        of_stage.setdefault((level, alpha < 1), set()).add(after - before)
    assert [len(costs) for costs in of_stage.values()] == [1] * 5
    ordered = [of_stage[stage].pop() for stage in ((0, False), (1, False), (1, True), (2, False), (2, True))]
    assert ordered == sorted({*ordered})


def test_divided_batches_train_as_small_ones(tmp_path: Path) -> None:
    """With as many steps of the same examples: to the last bit, but for averages, which are renewed by batches."""
    given = ("model.growth.stable=1000", "model.discriminator_steps=2", "budget.value=16")
    alone = train(*RUN, *given, "data.batch_size=4", outputs=tmp_path / "small")
    divided = train(*RUN, *given, "model.growth.batch_size={4:4}", outputs=tmp_path / "divided")
    one, other = read.newest(alone), read.newest(divided)
    assert same(one.state, other.state)
    assert same(one.content["optimizer_states"], other.content["optimizer_states"])
    assert one.progress.flops == other.progress.flops
    assert other.content["discriminator_steps_made"] == 4


# --- models that are not trained --------------------------------------------------------------------------------------


def built(tmp_path: Path, *overrides: str) -> ProgressiveGAN:
    config = compose(*RUN, *overrides, outputs=tmp_path)
    assemble.build_data(config)
    config.run_dir, config.run_id = "", ""
    model = assemble.build_model(plain(config))
    assert isinstance(model, ProgressiveGAN)
    torch.manual_seed(0)
    model.configure_model()
    return model


def test_samples_of_a_stage_have_the_shape_of_the_data(tmp_path: Path) -> None:
    model = built(tmp_path)
    model.generator.grow(1, 1 / 3)
    model.discriminator.grow(1, 1 / 3)
    assert isinstance(model, Grows)
    assert (model.resolution, model.is_grown) == (8, False)
    for images in (model.sample(3), model.decode(torch.randn(3, 8))):
        assert images.shape == (3, 1, 16, 16)
        pixels = images[:, :, ::2, ::2]
        assert torch.equal(pixels.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3), images)
        coarser = F.avg_pool2d(pixels, 2)
        assert not torch.allclose(coarser.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3), pixels)
    assert model.evaluations == 3
    caption = SampleGrid()._caption("samples", model, [])
    assert caption.startswith("after 0 examples")
    assert caption.endswith(", of 8x8 pixels")


def test_losses_are_of_the_stage(tmp_path: Path) -> None:
    """Of real images only what is left of them at the stage counts."""
    model, label = built(tmp_path), torch.tensor([0, 1, 2, 3])
    model.generator.grow(0, 1.0)
    model.discriminator.grow(0, 1.0)
    images = torch.rand(4, 1, 16, 16)
    means = F.interpolate(F.avg_pool2d(images, 4), scale_factor=4)
    torch.manual_seed(0)
    losses = model.losses({"image": images, "label": label})
    torch.manual_seed(0)
    torch.testing.assert_close(model.losses({"image": means, "label": label}), losses)


def test_batches_that_are_put_together_are_of_one_stage(tmp_path: Path) -> None:
    model = built(tmp_path)
    model.generator.grow(0, 1.0)
    model.progress.examples = 24
    assert model.next_stage() == (1, pytest.approx(1 / 3))
    model.accumulation.size = 2
    assert model.next_stage() == (0, 1.0)


def test_plans_and_forecasts_are_of_whole_networks(tmp_path: Path) -> None:
    model = built(tmp_path)
    assert model.next_stage() == (0, 1.0)
    model.at_full_cost()
    model.progress.examples = 8
    assert model.next_stage() == (2, 1.0)
    forecast, trainer = Forecast(), SimpleNamespace(is_global_zero=True)
    for level, counted in ((0, 0), (2, 1)):
        model.generator.grow(level, 1.0)
        forecast.on_train_batch_end(trainer, model, None, None, 0)  # type: ignore[arg-type]
        assert forecast._steps == counted


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model.growth.batch_size={8:3}",), "of 8 is 3, and does not divide data.batch_size=8.*Use data.batch_size=9"),
        (("model.growth.batch_size={8:32}",), "of 8 is 32, and does not divide.*Use data.batch_size=32"),
        (("model.growth.batch_size={8:4}", "trainer.accumulate_grad_batches=2"), "trainer.accumulate_grad_batches=1"),
        (("model.growth.batch_size={12:4}",), "names the resolution 12"),
    ],
)
def test_refused_in_a_sentence(overrides: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        train(*RUN, *overrides, outputs=tmp_path)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_a_batch_that_devices_cannot_divide_is_refused(tmp_path: Path) -> None:
    model: Any = built(tmp_path, "model.growth.batch_size={4:1}")
    model.generator.grow(0, 1.0)
    model._trainer = SimpleNamespace(datamodule=SimpleNamespace(batch_size=8), world_size=2)
    with pytest.raises(ConfigError, match="4 examples of a batch on each of 2 devices cannot be divided into the 8"):
        model.training_step({"image": torch.zeros(4, 1, 16, 16)}, 0)


# --- stops ------------------------------------------------------------------------------------------------------------


def state(run: Path) -> dict[str, Any]:
    """All of a checkpoint that training depends on, but for the clock."""
    content = dict(read.newest(run).content)
    content["progress"] = content["progress"] | {"seconds": None}
    kept = ("state_dict", "ema", "optimizer_states", "progress", "discriminator_steps_made", "global_step")
    return {key: content[key] for key in kept}


@pytest.mark.parametrize(
    "examples", [pytest.param(n, marks=[] if n == 64 else [pytest.mark.matrix]) for n in range(0, 128, 8)]
)
def test_a_run_goes_on_from_any_stage_to_the_last_bit(examples: int, straight: Straight, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(*WHOLE, SignalAt.override(examples), outputs=tmp_path)
    run = only_run(tmp_path)
    assert read.newest(run).progress.examples == examples + 8
    model, weights = load_run(OmegaConf.create(run_folder.read_config(run)), run)
    assert weights == "ema"
    assert isinstance(model, ProgressiveGAN)
    assert model.networks_stage() == pytest.approx(STAGES[examples // 8])
    assert model.sample(2).shape == (2, 1, 16, 16)
    resume(run)
    assert same(state(run), state(straight.folder))

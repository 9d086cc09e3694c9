"""A GAN's turns, its samples, and that it learns all of a distribution."""

import math
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from genlab.callbacks.ema import EMA
from genlab.checkpoint import read
from genlab.errors import ConfigError
from genlab.model.augment.diffaugment import DiffAugment
from genlab.model.base import HasPrior
from genlab.model.draws import truncated_normal
from genlab.model.gan import GAN
from genlab.model.objective.adversarial import NonSaturating
from genlab.model.objective.penalty import R1
from genlab.model.schedule import LinearDecay
from genlab.run import assemble
from genlab.seeding import RandomStream
from tiny_run import compose, plain, small, train

GAN_RUN = small("model=gan", "model/generator=dcgan", "model/discriminator=dcgan")


class Trace(pl.Callback):
    """What each batch did to the two networks."""

    def __init__(self) -> None:
        self.changed: list[str] = []
        self.kinds: list[str] = []

    @staticmethod
    def weights(model: GAN) -> dict[str, Tensor]:
        parts = {"G": model.generator, "D": model.discriminator}
        return {
            name: torch.cat([p.detach().flatten().clone() for p in part.parameters()]) for name, part in parts.items()
        }

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.before = self.weights(pl_module)
        self.kinds.append(pl_module.step_kind(batch_idx))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        after = self.weights(pl_module)
        self.changed.append("".join(name for name in after if not torch.equal(after[name], self.before[name])))


def traced(tmp_path: Path, *overrides: str, monkeypatch: pytest.MonkeyPatch) -> Trace:
    from genlab.command import train as train_command

    trace = Trace()
    build = train_command.build_trainer
    monkeypatch.setattr(
        train_command, "build_trainer", lambda c, m, callbacks, *rest: build(c, m, [*callbacks, trace], *rest)
    )
    train(*GAN_RUN, *overrides, outputs=tmp_path)
    return trace


def test_the_discriminator_steps_more_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = traced(tmp_path, "model.discriminator_steps=3", monkeypatch=monkeypatch)
    assert trace.changed == ["D", "D", "GD", "D", "D", "GD", "D", "D", "GD", "D", "D", "GD", "D"]
    assert [kind.endswith("generator") for kind in trace.kinds] == ["G" in changed for changed in trace.changed]


def test_accumulated_gradients_make_fewer_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five batches an epoch: a step may reach across its end."""
    trace = traced(tmp_path, "trainer.accumulate_grad_batches=2", "budget.value=80", monkeypatch=monkeypatch)
    assert trace.changed == ["", "GD"] * 5


def test_a_lazy_penalty_is_taken_every_so_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = traced(tmp_path, "model/objective=non_saturating", "model/objective/penalty=r1",
                   "model.objective.penalty.every=4", "budget.value=72", monkeypatch=monkeypatch)  # fmt: skip
    assert ["penalty" in kind for kind in trace.kinds] == [True, False, False, False] * 2 + [True]


def test_operations_of_each_kind_of_step_are_counted(tmp_path: Path) -> None:
    """Two turns of both networks and one of the discriminator alone, measured apart, make up the whole."""
    both = read.newest(train(*GAN_RUN, "budget.value=8", outputs=tmp_path / "1")).progress.flops
    alone = read.newest(train(*GAN_RUN, "model.discriminator_steps=2", "budget.value=8",
                                    outputs=tmp_path / "2")).progress.flops  # fmt: skip
    three = read.newest(train(*GAN_RUN, "model.discriminator_steps=2", "budget.value=24",
                                    outputs=tmp_path / "3")).progress.flops  # fmt: skip
    assert 0 < alone < both
    assert three == 2 * alone + both


def test_clipping_bounds_the_step(tmp_path: Path) -> None:
    """With plain gradient descent at rate 1, a step is the gradient itself."""
    sgd = [line for name in ("optimizer", "discriminator_optimizer")
           for line in (f"model.{name}._target_=torch.optim.SGD", f"model.{name}.lr=1.0", f"~model.{name}.betas",
                        f"~model.{name}.fused")]  # fmt: skip
    run = train(*GAN_RUN, *sgd, "trainer.gradient_clip_val=0.01", "callbacks.ema.half_life=1000000000",
                "callbacks.ema.ramp_up=1000000000.0", "budget.value=8", outputs=tmp_path)  # fmt: skip
    last = read.newest(run)  # an average that never moves is where the generator began
    moved = [last.state[n] - w for n, w in last.content["ema"].items() if n.endswith(("weight", "bias"))]
    assert math.sqrt(sum(float(m.square().sum()) for m in moved)) == pytest.approx(0.01, rel=1e-3)


def built(tmp_path: Path, *overrides: str) -> GAN:
    config = compose(*GAN_RUN, *overrides, outputs=tmp_path)
    assemble.build_data(config)
    config.run_dir, config.run_id = "", ""
    model = assemble.build_model(plain(config))
    assert isinstance(model, GAN)
    torch.manual_seed(0)
    model.configure_model()
    return model.eval()


@pytest.mark.parametrize("part", ["dcgan", "sngan", "biggan"])
def test_a_sample_is_the_same_in_any_batch(part: str, tmp_path: Path) -> None:
    choices = small("model=gan", f"model/generator={part}", f"model/discriminator={part}")
    config = compose(*choices, outputs=tmp_path)
    assemble.build_data(config)
    config.run_dir, config.run_id = "", ""
    model = assemble.build_model(plain(config))
    model.configure_model()
    model.eval()
    label = {"label": torch.tensor([3, 1, -1, 4])}
    images = model.sample(4, label, RandomStream.for_samples(5, range(4)))
    assert images.shape == (4, 1, 16, 16)
    assert images.abs().max() <= 1
    again = model.sample(1, {"label": label["label"][2:3]}, RandomStream.for_samples(5, [2]))
    torch.testing.assert_close(again, images[2:3], rtol=0, atol=1e-5)


def test_labels_matter_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    model = built(tmp_path)
    stream = [RandomStream.for_samples(5, [0]) for _ in range(2)]
    images = [model.sample(1, {"label": torch.tensor([k])}, s) for k, s in enumerate(stream)]
    assert not torch.equal(*images)
    with pytest.raises(ValueError, match="not all among the model's"):
        model.sample(1, {"label": torch.tensor([10])})


def test_a_sample_is_its_noise_decoded(tmp_path: Path) -> None:
    model, label = built(tmp_path), {"label": torch.tensor([3, 1])}
    assert isinstance(model, HasPrior)
    noise = RandomStream.for_samples(5, range(2)).randn(*model.latent_shape)
    torch.testing.assert_close(
        model.decode(noise, label), model.sample(2, label, RandomStream.for_samples(5, range(2)))
    )
    with pytest.raises(ValueError, match="not all among the model's"):
        model.decode(noise, {"label": torch.tensor([3, 10])})


def test_truncated_noise() -> None:
    u = torch.rand(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = truncated_normal(u, 1.0)
    assert noise.abs().max() <= 1
    phi, mass = math.exp(-0.5) / math.sqrt(2 * math.pi), math.erf(1 / math.sqrt(2))
    assert noise.mean().item() == pytest.approx(0, abs=0.005)
    assert noise.var().item() == pytest.approx(1 - 2 * phi / mass, abs=0.005)  # of a truncated normal


def test_what_is_averaged_is_the_generator_with_its_statistics(tmp_path: Path) -> None:
    averages = read.newest(train(*GAN_RUN, outputs=tmp_path)).content["ema"]
    assert all(name.startswith("generator.") for name in averages)
    assert any("running_var" in name for name in averages)


def test_sharding_is_refused(tmp_path: Path) -> None:
    model = built(tmp_path)
    model.generator, model._device_mesh = None, object()
    with pytest.raises(ValueError, match="trainer=ddp"):
        model.configure_model()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.truncation=0", "model.truncation=0 must be above 0"),
        ("model.discriminator_steps=0", "must be >= 1"),
        (
            "model/objective=edm",
            "Use model/objective=hinge or least_squares or non_saturating or non_",
        ),
    ],
)
def test_refused_in_a_sentence(override: str, message: str, tmp_path: Path) -> None:
    if "edm" in override:
        from genlab.cli import run

        with pytest.raises(ConfigError, match=message):
            run(["train", "model=gan", override, "data=digits"])
        return
    with pytest.raises(ConfigError, match=message):
        built(tmp_path, override)


# --- the eight Gaussians ---------------------------------------------------------------------------------------------

RADIUS, STD = 0.7, 0.05


class Perceptron(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, width: int = 128):
        layers = [nn.Linear(inputs, width), nn.LeakyReLU(0.2), nn.Linear(width, width), nn.LeakyReLU(0.2)]
        super().__init__(*layers, nn.Linear(width, outputs))


class PointGenerator(Perceptron):
    def forward(self, noise: Tensor, condition: Any) -> Tensor:
        return super().forward(noise)[:, :, None, None]  # (N, 2, 1, 1)


class PointDiscriminator(Perceptron):
    def forward(self, candidate: Tensor, condition: Any) -> Tensor:
        return super().forward(10 * candidate.flatten(1))[:, 0]


def ring(count: int, generator: torch.Generator) -> Tensor:
    angle = torch.randint(8, (count,), generator=generator) * math.pi / 4
    center = RADIUS * torch.stack([angle.cos(), angle.sin()], dim=1)
    return (center + STD * torch.randn(count, 2, generator=generator))[:, :, None, None]


class Counter(pl.Callback):
    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        pl_module.progress.examples += 256
        pl_module.progress.fraction = (batch_idx + 1) / trainer.max_steps * 2


@pytest.fixture(scope="module")
def trained_on_the_ring(tmp_path_factory: pytest.TempPathFactory) -> GAN:
    def adam(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=3e-3, betas=(0.0, 0.9), fused=True)

    model = GAN(lambda: PointGenerator(8, 2), lambda: PointDiscriminator(2, 1), NonSaturating(R1(0.02, 1)),
                DiffAugment([]), adam, adam, LinearDecay(), (2, 1, 1), {}, latent_dim=8)  # fmt: skip
    points = torch.Generator().manual_seed(0)
    steps = 2000
    batches = [{"image": ring(256, points)} for _ in range(steps)]
    torch.manual_seed(0)
    ema = EMA(half_life=20_000)
    trainer = pl.Trainer(max_steps=2 * steps, accelerator="cpu", logger=False, enable_checkpointing=False,
                         enable_progress_bar=False, enable_model_summary=False, callbacks=[Counter(), ema],
                         default_root_dir=tmp_path_factory.mktemp("ring"))  # fmt: skip
    trainer.fit(model, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    for name, average in model.averaged():
        average.data.copy_(ema.averages[name])
    return model.eval()


def test_covers_all_eight_modes(trained_on_the_ring: GAN) -> None:
    """Each mode has at least half of its share, and eight points in ten lie within four deviations of one."""
    points = trained_on_the_ring.sample(2000, None, RandomStream.for_samples(1, range(2000))).flatten(1)
    angles = torch.arange(8) * math.pi / 4
    centers = RADIUS * torch.stack([angles.cos(), angles.sin()], dim=1)
    distance, nearest = torch.cdist(points, centers).min(dim=1)
    close = distance < 4 * STD
    shares = torch.bincount(nearest[close], minlength=8) / len(points)
    assert shares.min() > 0.5 / 8, shares
    assert close.float().mean() > 0.8

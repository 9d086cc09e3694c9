"""Every family keeps the contract: it composes, trains, saves, is stopped and goes on bit-exactly, alone and in pairs.

So does a toy that asks more of it: a frozen network beside the trained one, samples drawn inside the training step, and
a condition that is a sequence. Families are found in the config tree.
"""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from genlab import checkpoint, run_folder
from genlab.config import ConfigTree
from genlab.experiment import Interrupted
from genlab.inference import load_run
from genlab.model.base import GenerativeModel, HasLikelihood
from test_ddp import finish
from tiny_run import SignalAt, only_run, resume, same, small, start, train

FAMILIES = ConfigTree().groups()["model"]
TOY_CONFIG = """# A model of the tests.
defaults:
  - schedule: constant
  - _self_

_target_: toy_model.Toy
optimizer:
  _target_: torch.optim.AdamW
  _partial_: true
  lr: 1e-2
shape: ${spec.shape}
vocabulary: ${spec.condition.caption.size}
seed: ${seed}
"""
SHAPES = ("data=shapes", "data.image_size=16", "data.num_train=40", "data.num_val=8", "data.limit=null")


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(*small("model=vae", "model.latent_shape=[2,4,4]"), outputs=tmp_path_factory.mktemp("autoencoder"))


@pytest.fixture(scope="module")
def toy_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's own folder of configs."""
    folder = tmp_path_factory.mktemp("configs")
    (folder / "model").mkdir()
    (folder / "model" / "toy.yaml").write_text(TOY_CONFIG)
    return folder


@pytest.fixture(scope="module")
def overrides(autoencoder: Path) -> Any:
    def of(family: str) -> tuple[str, ...]:
        needed = (f"model.autoencoder={autoencoder}",) if family == "latent_diffusion" else ()
        # Some chance of everything that chance touches.
        chance = {
            "gan": ("model/augment=diffaugment", "model.discriminator_steps=2"),
            "transformer": ("model/optimizer=muon", "model.network.dropout=0.3"),
        }
        return small(f"model={family}", *needed, *chance.get(family, ()))

    return of


@pytest.fixture(scope="module")
def never_stopped(overrides: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    @cache
    def run(family: str) -> Path:
        return train(*overrides(family), outputs=tmp_path_factory.mktemp(family))

    return run


def state(run: Path) -> dict[str, Any]:
    """All of a checkpoint that training depends on, but for the clock and what callbacks say."""
    content = dict(checkpoint.newest(run).content)
    content["progress"] = content["progress"] | {"seconds": None}
    kept = {"state_dict", "ema", "optimizer_states", "progress", "discriminator_steps_made"}
    return {key: value for key, value in content.items() if key in kept}


@pytest.mark.parametrize("stop", [0, 16, 32], ids=["first_step", "mid_epoch", "last_of_an_epoch"])
@pytest.mark.parametrize("family", FAMILIES)
def test_stopped_and_continued(family: str, stop: int, overrides: Any, never_stopped: Any, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(*overrides(family), SignalAt.override(stop), outputs=tmp_path)
    run = only_run(tmp_path)
    assert checkpoint.newest(run).progress.examples == stop + 8
    resume(run)
    assert same(state(run), state(never_stopped(family)))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_family_is(family: str, never_stopped: Any) -> None:
    run = never_stopped(family)
    model, weights = load_run(run_config(run), run)
    assert isinstance(model, GenerativeModel)
    assert weights == "ema"
    assert set(checkpoint.newest(run).content["ema"]) <= set(model.state_dict())
    label = {"label": torch.tensor([0, 1, -1])} if model.num_classes is not None else None
    images = model.sample(3, label)
    assert images.shape == (3, 1, 16, 16)
    assert torch.isfinite(images).all()
    if isinstance(model, HasLikelihood) and model.likelihood_kind != "estimate":
        nats = model.log_likelihood(images.clamp(-1, 0.99), label)
        assert nats.shape == (3,)
        assert torch.isfinite(nats).all()


def run_config(run: Path) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.create(run_folder.read_config(run))


@pytest.mark.parametrize("family", FAMILIES)
def test_two_processes(family: str, overrides: Any, never_stopped: Any, tmp_path: Path) -> None:
    """Two CPU processes train it, into one folder, through the same examples."""
    _, errors = finish(start(*overrides(family), "trainer=ddp_cpu", outputs=tmp_path))
    run = only_run(tmp_path)
    together, alone = checkpoint.newest(run), checkpoint.newest(never_stopped(family))
    assert together.progress.examples == alone.progress.examples == 104
    assert {k: v.shape for k, v in together.state.items()} == {k: v.shape for k, v in alone.state.items()}
    assert all(torch.isfinite(value).all() for value in together.state.values() if value.is_floating_point()), errors


@pytest.mark.parametrize(("objective", "rate"), [("non_saturating", 0.1), ("wgan_gp", 0.01)])
def test_a_gan_without_batch_norm_is_the_same_on_two_processes(objective: str, rate: float, tmp_path: Path) -> None:
    """Noise, augmentation and penalties are of the global batch, so only rounding tells two ranks from one. Gradient
    descent rather than Adam, which turns the rounding of a gradient near 0 into a step of full length."""
    choices = small("model=gan", "model/generator=dcgan", "model/discriminator=dcgan", "model/augment=diffaugment",
                    f"model/objective={objective}", "model.discriminator_steps=2")  # fmt: skip
    plain = []
    for name in ("model.optimizer", "model.discriminator_optimizer"):
        plain += [f"{name}._target_=torch.optim.SGD", f"{name}.lr={rate}", f"~{name}.betas", f"~{name}.fused"]
    given = (*choices, *plain, "model.generator.batch_norm=false", "model.discriminator.batch_norm=false")
    alone = checkpoint.newest(train(*given, outputs=tmp_path / "one"))
    finish(start(*given, "trainer=ddp_cpu", outputs=tmp_path / "two"))
    together = checkpoint.newest(only_run(tmp_path / "two"))
    began = checkpoint.newest(train(*given, "model.optimizer.lr=0", "model.discriminator_optimizer.lr=0",
                                    outputs=tmp_path / "zero"))  # fmt: skip
    for name, weight in alone.state.items():
        torch.testing.assert_close(together.state[name], weight, rtol=0, atol=1e-6)
    for part in ("generator.", "discriminator."):  # both were trained
        moved = [(alone.state[n] - w).abs().max() for n, w in began.state.items() if n.startswith(part)]
        assert max(m.item() for m in moved) > 1e-4


def test_the_toy(toy_tree: Path, tmp_path: Path) -> None:
    """Composes from a user's folder of configs, trains, checkpoints, and resumes bit-exactly."""
    from genlab import experiment
    from genlab.assemble import check_config
    from tiny_run import command

    def start_toy(*more: str, outputs: Path) -> None:
        given = command("model=toy", *SHAPES, *more, outputs=outputs)
        config = ConfigTree(str(toy_tree)).compose(given)
        check_config(config)
        experiment.train(config, given)

    start_toy(outputs=tmp_path / "straight")
    with pytest.raises(Interrupted):
        start_toy(SignalAt.override(48), outputs=tmp_path / "stopped")
    run, straight = only_run(tmp_path / "stopped"), only_run(tmp_path / "straight")
    config = ConfigTree(str(toy_tree)).change(run_folder.read_config(run), run_folder.read_overrides(run), [])
    experiment.train(config, run_folder.read_overrides(run), run)
    assert same(state(run), state(straight))
    last = checkpoint.newest(straight)
    frozen = {name for name in last.state if name.startswith("reference.")}
    assert frozen
    assert set(last.content["ema"]) == set(last.state) - frozen
    assert any(not torch.equal(last.state[n], last.state[n.replace("reference", "policy")]) for n in frozen)

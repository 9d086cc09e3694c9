"""What is not finite stops a run before the update: nothing that is kept has seen it."""

import functools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from genlab.callbacks import finite_guard
from genlab.callbacks.finite_guard import Answer, finite_on_device, is_finite
from genlab.errors import NumericsError
from genlab.model.objective.adversarial import NonSaturating
from genlab.model.objective.edm import EDM
from genlab.run import assemble
from tiny_run import MLP, train


def poisoned(monkeypatch: pytest.MonkeyPatch, step: int, value: float) -> list[torch.Tensor]:
    """Makes the loss of a step so large, or no number at all; gives the weights that the losses were taken of."""
    original, before = EDM.loss, []

    @functools.wraps(original)  # a slot asks for the names of arguments
    def loss(self: Any, network: nn.Module, *arguments: Any) -> torch.Tensor:
        before.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
        return original(self, network, *arguments) * (value if len(before) == step else 1.0)

    monkeypatch.setattr(EDM, "loss", loss)
    return before


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_step_the_term_and_the_batch_are_named(
    value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned(monkeypatch, 4, value)
    said = (rf"the loss is not finite \(loss={value}; batch of examples (\d+, ){{7}}\d+\) at step 4, "
            r"after 24 examples\. This step was not saved; the last good state: none")  # fmt: skip
    with pytest.raises(NumericsError, match=said) as stopped:
        train(*MLP, "callbacks.checkpoint.every_minutes=100", outputs=tmp_path)
    assert stopped.value.exit_code == 6
    assert not list(tmp_path.rglob("*.ckpt"))


def test_what_was_saved_before_is_kept_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned(monkeypatch, 4, math.nan)
    with pytest.raises(NumericsError, match=r"the last good state: examples=000000000024\.ckpt"):
        train(*MLP, "callbacks.checkpoint.every_minutes=0", outputs=tmp_path)
    for path in tmp_path.rglob("*.ckpt"):
        content = torch.load(path, weights_only=True)
        tensors = [*content["state_dict"].values(), *content["ema"].values()]
        assert all(torch.isfinite(tensor).all() for tensor in tensors)


def test_a_finite_loss_with_a_gradient_that_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """sqrt has an infinite slope at 0."""
    original = EDM.loss

    @functools.wraps(original)  # a slot asks for the names of arguments
    def loss(self: Any, network: nn.Module, *arguments: Any) -> torch.Tensor:
        value = original(self, network, *arguments)
        return value + (value - value.detach()).abs().sqrt()

    monkeypatch.setattr(EDM, "loss", loss)
    with pytest.raises(NumericsError, match=r"the gradient is not finite \(the loss is; batch .*\) at step 1"):
        train(*MLP, outputs=tmp_path)


def test_weights_are_as_the_last_step_left_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = poisoned(monkeypatch, 3, math.nan)
    models: list[Any] = []

    def build(config: Any, **options: Any) -> Any:
        models.append(assemble.build_model(config, **options))
        return models[-1]

    monkeypatch.setattr("genlab.command.train.build_model", build)
    with pytest.raises(NumericsError):
        train(*MLP, outputs=tmp_path)
    left = torch.cat([p.detach().flatten() for p in models[0].network.parameters()])
    assert torch.equal(left, before[2])
    assert not torch.equal(left, before[1])


@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_both_networks_of_a_gan_are_watched(network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = getattr(NonSaturating, f"{network}_loss")
    broken = functools.wraps(original)(lambda self, *scores: scores[0].mean() * math.nan)
    monkeypatch.setattr(NonSaturating, f"{network}_loss", broken)
    with pytest.raises(
        NumericsError, match=rf"the loss is not finite \({network}_loss=nan; .*\) at step 1, after 0 examples"
    ):
        train("model=gan", "model.generator.channels=8", "model.discriminator.channels=8", outputs=tmp_path)


def test_gradients() -> None:
    assert is_finite([])
    assert is_finite([torch.zeros(3), torch.full((2, 2), 1e38), torch.zeros(0)])
    assert not is_finite([torch.zeros(3), torch.tensor([1.0, math.nan])])
    assert not is_finite([torch.tensor([-math.inf]), torch.zeros(3)])


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, whose answers are read a step later."""
    monkeypatch.setattr(finite_guard, "answers_later", lambda device: True)


@pytest.mark.usefixtures("late")
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_an_answer_that_is_read_later_names_its_own_step(
    optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the optimizer has left that step out: the next one began with the same weights."""
    before = poisoned(monkeypatch, 4, math.nan)
    said = r"loss is not finite \(loss=nan; batch of examples .*\) at step 4, after 24 examples.* good state: none"
    with pytest.raises(NumericsError, match=said):
        train(*MLP[:-2], f"model/optimizer={optimizer}", "callbacks.checkpoint.every_minutes=100", outputs=tmp_path)
    assert len(before) == 5, "read before the next step was made"
    assert torch.equal(before[4], before[3])
    assert not torch.equal(before[3], before[2])
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.usefixtures("late")
def test_it_is_read_before_anything_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = poisoned(monkeypatch, 4, math.nan)
    with pytest.raises(NumericsError, match=r"at step 4.* the last good state: examples=000000000024\.ckpt"):
        train(*MLP, "callbacks.checkpoint.every_minutes=0", "model.optimizer.fused=false", outputs=tmp_path)
    assert len(before) == 4
    (newest, _) = sorted(tmp_path.rglob("*.ckpt"), reverse=True)
    assert all(torch.isfinite(tensor).all() for tensor in torch.load(newest, weights_only=True)["ema"].values())


@pytest.mark.usefixtures("late")
def test_what_it_breaks_in_the_next_step_does_not_hide_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned(monkeypatch, 4, math.nan)
    of_poisoned, steps = EDM.loss, []

    @functools.wraps(of_poisoned)
    def loss(self: Any, *arguments: Any) -> torch.Tensor:
        steps.append(1)
        if len(steps) == 5:
            raise ValueError("this matrix has no eigenvalues")
        return of_poisoned(self, *arguments)

    monkeypatch.setattr(EDM, "loss", loss)
    with pytest.raises(NumericsError, match="at step 4"):
        train(*MLP, "callbacks.checkpoint.every_minutes=100", "model.optimizer.fused=false", outputs=tmp_path)


@pytest.mark.matrix  # as every step before a checkpoint
@pytest.mark.usefixtures("late")
def test_the_last_step_of_a_run_is_read_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned(monkeypatch, 13, math.nan)
    with pytest.raises(NumericsError, match="at step 13"):
        train(*MLP, "callbacks.checkpoint.every_minutes=100", outputs=tmp_path)


@pytest.mark.parametrize("values", [[0.0, math.nan], [math.inf, 0.0], [1e38, -1e38], [0.0, 0.0]])
def test_answers_on_the_device_are_those_of_the_host(values: list[float]) -> None:
    slopes = [torch.zeros(3), torch.tensor(values), torch.zeros(0)]
    assert Answer(finite_on_device(slopes)).read() == is_finite(slopes)


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (("model.optimizer.lr=1e20",), "This step was not saved"),  # weights that overflow in the next step
        (("model.optimizer.lr=1e60", "callbacks.checkpoint.every_minutes=0"), "so it was not saved"),  # or at once
    ],
)
def test_a_lower_learning_rate_is_a_way_out(cause: tuple[str, ...], said: str, tmp_path: Path) -> None:
    remedy = r"Lower model\.optimizer\.lr, or set trainer\.gradient_clip_val=1\.0"
    with pytest.raises(NumericsError, match=f"{said}.*{remedy}"):
        train(*MLP, *cause, outputs=tmp_path / "high")
    run = train(*MLP, *cause[1:], "model.optimizer.lr=1e-4", "trainer.gradient_clip_val=1.0", outputs=tmp_path / "low")
    assert (run / "summary.json").exists()

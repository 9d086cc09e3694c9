"""The average against its recurrence, worked out by hand from the weights of every step."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from genlab.callbacks.ema import EMA, averaged_weights
from genlab.callbacks.evaluation import PeriodicEvaluation
from genlab.checkpoint import read
from genlab.command.train import Interrupted
from genlab.model.averages import load_averages
from genlab.model.base import Batch, GenerativeModel
from genlab.model.schedule import Constant
from tiny_run import MLP, Callback, SignalAt, only_run, resume, same, train


class Line(GenerativeModel):
    """The least that is a model."""

    def __init__(self) -> None:
        super().__init__(0, Constant())
        self.network = torch.nn.Linear(2, 2)

    def configure_model(self) -> None: ...

    def training_step(self, batch: Batch, batch_idx: int) -> None: ...

    def sample(self, num_samples: int, condition: Any = None, generator: Any = None) -> Tensor:
        return torch.empty(0)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {}


class WeightsOfSteps(Callback):
    """Keeps a copy of the weights after each step, for the recurrence."""

    kept: list[tuple[int, dict[str, torch.Tensor]]] = []  # noqa: RUF012

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._keep(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._keep(pl_module)

    def _keep(self, model: Any) -> None:
        self.kept.append((model.progress.examples, {k: p.detach().clone() for k, p in model.named_parameters()}))


RECORD = "+callbacks.record={_target_: test_ema.WeightsOfSteps}"


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(("half_life", "ramp_up"), [(50, 0.5), (1000, 0.05), (10, 10.0)])
def test_recurrence(half_life: int, ramp_up: float, accumulate: int, tmp_path: Path) -> None:
    WeightsOfSteps.kept.clear()
    run = train(*MLP, RECORD, f"callbacks.ema.half_life={half_life}", f"callbacks.ema.ramp_up={ramp_up}",
                f"trainer.accumulate_grad_batches={accumulate}", outputs=tmp_path)  # fmt: skip
    (_, average), *steps = WeightsOfSteps.kept
    average = {name: w.double() for name, w in average.items()}
    before = 0
    for number, (examples, weights) in enumerate(steps):
        if (number + 1) % accumulate and number + 1 != len(steps):  # the optimizer steps on the last batch too
            continue
        decay = 0.5 ** ((examples - before) / min(half_life, ramp_up * examples))
        average = {name: decay * a + (1 - decay) * weights[name].double() for name, a in average.items()}
        before = examples
    saved = read.newest(run).content["ema"]
    assert saved.keys() == average.keys()
    for name, value in average.items():
        torch.testing.assert_close(saved[name].double(), value, rtol=1e-5, atol=1e-7)


def test_survives_a_resume(tmp_path: Path) -> None:
    settings = (*MLP, "callbacks.ema.half_life=40")
    straight = train(*settings, outputs=tmp_path / "straight")
    with pytest.raises(Interrupted):
        train(*settings, SignalAt.override(48), outputs=tmp_path / "stopped")
    run = only_run(tmp_path / "stopped")
    resume(run)
    assert same(read.newest(run).content["ema"], read.newest(straight).content["ema"])


def test_evaluation_sees_the_average_and_training_goes_on_from_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    evaluate = PeriodicEvaluation.evaluate

    def spy(self: Any, trainer: Any, model: Any, num_samples: Any) -> Any:
        raw = {name: p.detach().clone() for name, p in model.named_parameters()}
        with averaged_weights(trainer, model) as which:
            ema = next(c for c in trainer.callbacks if isinstance(c, EMA))
            inside = all(torch.equal(p, ema.averages[name]) for name, p in model.named_parameters())
        after = all(torch.equal(p, raw[name]) for name, p in model.named_parameters())
        seen.append((which, inside, after))
        return evaluate(self, trainer, model, num_samples)

    monkeypatch.setattr(PeriodicEvaluation, "evaluate", spy)
    with_evaluation = train(*MLP, "callbacks.evaluation.times=4", "callbacks.samples.times=3", outputs=tmp_path / "a")
    assert seen == [("ema", True, True)] * 4
    monkeypatch.undo()
    without = train(*MLP, outputs=tmp_path / "b")
    assert same(read.newest(with_evaluation).state, read.newest(without).state)


def test_weights_come_back_when_the_block_fails() -> None:
    model = Line()
    ema = EMA()
    ema.averages = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    raw = {name: p.detach().clone() for name, p in model.named_parameters()}

    def fail() -> None:
        with ema.swapped_in(model):
            assert not model.network.weight.any()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert same(dict(model.state_dict()), raw)


def test_frozen_weights_are_left_alone() -> None:
    model = Line()
    model.network.bias.requires_grad_(False)
    bias = model.network.bias.clone()
    load_averages(model, {"network.weight": torch.ones(2, 2), "network.bias": torch.ones(2)})
    assert [name for name, _ in model.averaged()] == ["network.weight"]
    assert torch.equal(model.network.bias, bias)
    assert torch.equal(model.network.weight, torch.ones(2, 2))

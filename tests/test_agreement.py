"""What several processes tell each other in a step: all decisions in one message, and gradients once."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from genlab.budget import Examples, Seconds
from genlab.callbacks.checkpoint import Checkpoints
from genlab.callbacks.stop import StopOnSignal
from genlab.checkpoint import read
from genlab.model.agreement import Agreement, Proposes
from genlab.run.data_parallel import average_gradients
from ranks import on_ranks
from tiny_run import only_run, start, train


class Wants:
    """A callback with a number of its own."""

    def __init__(self, *numbers: float):
        self.numbers, self.asked = numbers, 0

    def proposal(self, trainer: Any) -> float:
        self.asked += 1
        return self.numbers[trainer.rank]


def trainer_of(rank: int, world: int, *callbacks: Any) -> Any:
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(total_batch_idx=0))
    return SimpleNamespace(rank=rank, world_size=world, callbacks=callbacks, fit_loop=loop, strategy=None)


def _tell(rank: int) -> dict[str, Any]:
    asked: list[int] = []
    all_reduce = dist.all_reduce
    dist.all_reduce = lambda *given, **named: (asked.append(1), all_reduce(*given, **named))  # type: ignore[assignment]
    first, second = Wants(0.0, 15.0), Wants(1.25, 0.0)
    trainer, agreement = trainer_of(rank, 2, first, object(), second), Agreement()
    agreed = [agreement.on(callback, trainer) for callback in (first, second, first)]
    once = len(asked)
    trainer.fit_loop.epoch_loop.total_batch_idx += 1
    first.numbers = (3.0, 2.0)
    agreed.append(agreement.on(first, trainer))
    twice = len(asked)

    network = nn.Sequential(nn.Linear(2, 3), nn.Conv2d(1, 2, 3))
    network.to(memory_format=torch.channels_last)
    other = nn.Linear(2, 2)
    for number, parameter in enumerate([*network.parameters(), *other.parameters()]):
        parameter.grad = torch.full_like(parameter, float(number + 10 * rank))
    network[0].bias.grad = None
    average_gradients(torch.optim.SGD(network.parameters()))
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    return {"agreed": agreed, "messages": [once, twice, len(asked)], "gradients": gradients, "other": other.weight.grad}


def test_ranks_agree_in_one_message_a_step(tmp_path: Path) -> None:
    for rank, told in enumerate(on_ranks(2, tmp_path, _tell)):
        assert told["agreed"] == [15.0, 1.25, 15.0, 3.0], "the largest that one of them proposes"
        assert told["messages"] == [1, 2, 3], "and gradients in one more"
        assert {name: slope.unique().tolist() for name, slope in told["gradients"].items()} == {
            "0.weight": [5.0], "1.weight": [7.0], "1.bias": [8.0]
        }  # fmt: skip
        assert told["other"].unique().tolist() == [4.0 + 10 * rank], "another optimizer's are left alone"


def test_one_process_asks_nobody() -> None:
    wants = Wants(2.0)
    assert Agreement().on(wants, trainer_of(0, 1, wants)) == 2.0


@pytest.mark.parametrize("callback", [StopOnSignal(), Checkpoints(), Seconds(3.0)])
def test_who_needs_an_agreement_proposes(callback: Any) -> None:
    assert isinstance(callback, Proposes)
    assert not isinstance(Examples(3), Proposes), "a budget of examples is the same on all"


# Without batch norm, which sees a process's own batch.
GAN = ("model=gan", "model.generator.channels=8", "model.discriminator.channels=8", "model.latent_dim=8",
       "model.generator.batch_norm=false", "model.discriminator.batch_norm=false",
       "model.discriminator_steps=2", "trainer.gradient_clip_val=1.0")  # fmt: skip


@pytest.mark.matrix  # two processes that start anew
def test_a_gan_of_two_processes_is_that_of_one(tmp_path: Path) -> None:
    """Each network's gradients are averaged when it steps; accumulated over batches too."""
    choices = (*GAN, "trainer.accumulate_grad_batches=2")
    process = start(*choices, "trainer=ddp_cpu", outputs=tmp_path / "two")
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    together, alone = read.newest(only_run(tmp_path / "two")), read.newest(train(*choices, outputs=tmp_path / "one"))
    for name, weight in alone.state.items():
        torch.testing.assert_close(together.state[name], weight, rtol=0, atol=1e-4, msg=name)

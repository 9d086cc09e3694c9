"""Floating-point operations are counted the same way for every family: as torch's own counter does over all of a run's
steps, whatever kinds there are, and as by hand."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from genlab.budget import _FORMULAS, OperationCounter
from genlab.callbacks.checkpoint import NoCheckpoints
from genlab.command.train import fit
from genlab.config.tree import PACKAGED
from genlab.model.base import Model
from genlab.run import assemble
from genlab.run.elsewhere import PutParts
from tiny_run import compose_small, families, plain, train

NEEDS_A_RUN = "autoencoder: ???"
FAMILIES = families()
# A period of each: of a turn of both networks, a lazy penalty, gradients of gradients, batches that are put together.
VARIANTS = [
    *((f"model={family}",) for family in FAMILIES),
    ("model=gan", "model/objective/penalty=r1", "model.objective.penalty.every=3", "model.discriminator_steps=2"),
    ("model=gan", "model/objective=wgan_gp"),
    ("model=gan", "trainer.accumulate_grad_batches=2", "model.discriminator_steps=2"),
    ("model=progan", "model.growth.fade=16", "model.growth.stable=8"),  # all stages
    ("model=diffusion", "trainer.accumulate_grad_batches=2"),
    ("model=diffusion", "model/objective=consistency", "model/sampler=consistency"),
    ("model=latent_diffusion", "model/objective=consistency", "model/sampler=consistency"),
    ("model=transformer", "model/optimizer=muon", "trainer.accumulate_grad_batches=2"),
]


class Steps(pl.Callback):
    """All steps under torch's counter, and what the budget had counted after each."""

    def __init__(self) -> None:
        self.counter = FlopCounterMode(display=False)
        self.counter.flop_registry = dict(_FORMULAS)  # it leaves out attention by torch's own kernel on a CPU
        self.counter.mod_tracker = _NoModules()  # its hooks do not bear gradients of gradients
        self.counted: list[float] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.counter.__enter__()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.counted.append(pl_module.progress.flops)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.counter.__exit__(None, None, None)


class _NoModules(nullcontext[Any]):
    parents = frozenset({"Global"})


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    run = train("model=vae", "model.latent_shape=[2,4,4]", "model.encoder.channels=8", "model.decoder.channels=8",
                "budget.value=8", outputs=tmp_path_factory.mktemp("autoencoder"))  # fmt: skip
    return f"model.autoencoder={run}"


def run_of(overrides: tuple[str, ...], folder: Path) -> tuple[Model, Steps]:
    config = compose_small(*overrides, "data.limit=24", outputs=folder)
    data = assemble.build_data(config)
    config.run_dir, config.run_id = str(folder), "flops"
    settings = plain(config)
    model, steps = assemble.build_model(settings), Steps()
    bare = settings | {"callbacks": {}}
    callbacks = [*assemble.build_callbacks(bare, assemble.build_evaluation(bare)), NoCheckpoints(), steps]
    callbacks.append(PutParts(settings["pretrained"]))
    fit(assemble.build_trainer(bare, model, callbacks, [], folder), model, data, None)
    return model, steps


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(part.split("=")[-1] for part in v))
def test_a_period_of_steps_counts_as_by_torch_and_ends_a_run(
    variant: tuple[str, ...], autoencoder: str, tmp_path: Path
) -> None:
    file = PACKAGED / "model" / f"{variant[0].removeprefix('model=')}.yaml"
    given = (*variant, autoencoder) if NEEDS_A_RUN in file.read_text() else variant
    batches = 7 if variant[0] in ("model=gan", "model=progan") else 4  # of 8 examples, 3 an epoch
    model, steps = run_of((*given, f"budget.value={8 * batches}"), tmp_path / "a")
    assert len(steps.counted) >= batches
    assert model.progress.flops == steps.counter.get_total_flops() > 0
    if "model/objective=consistency" in variant:  # of another budget, another share is two points
        return
    again, _ = run_of((*given, "budget=flops", f"budget.value={steps.counted[-2] + 1}"), tmp_path / "b")
    assert again.progress.flops == model.progress.flops  # the step that reaches it is the last one, of every family
    assert again.progress.examples == model.progress.examples


def test_of_a_small_network_as_by_hand() -> None:
    """A multiplication and an addition are two operations, of a bias none. Backward: weights, and inputs but the
    first."""
    network = nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1), nn.Flatten(), nn.Linear(5 * 16, 7), nn.SiLU(), nn.Linear(7, 2)
    )
    images = torch.randn(6, 3, 4, 4)
    convolution, first, second = (2 * 6 * n for n in (5 * 3 * 9 * 16, 80 * 7, 7 * 2))
    with counted() as forward:
        scores = network(images)
    with counted() as backward:
        scores.sum().backward()
    assert forward.total == convolution + first + second
    assert backward.total == convolution + 2 * first + 2 * second


def test_a_gradient_of_a_gradient_as_by_hand() -> None:
    """s = u W2 W1 x: the slope is u W2 W1, and its square's gradient is one product for each of W1 and W2 and one
    between."""
    network = nn.Sequential(nn.Linear(5, 4, bias=False), nn.Linear(4, 1, bias=False))
    x = torch.randn(3, 5, requires_grad=True)
    first, second = 2 * 3 * 5 * 4, 2 * 3 * 4
    with counted() as counter:
        (slope,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
        there = counter.total
        slope.square().sum().backward()
    assert there == 2 * (first + second)
    assert counter.total - there == 2 * first + second  # W1's own and W2's slope need two; W2 has W1's from below


@pytest.mark.parametrize("causal", [False, True])
def test_attention_costs_the_same_however_it_is_computed(causal: bool) -> None:
    """Two products of all pairs forward and four backward, by torch's kernel and by plain products."""
    backends = [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]
    seen = []
    for backend in backends:
        query, key, value = (torch.randn(2, 3, 8, 16, requires_grad=True) for _ in range(3))
        with sdpa_kernel(backend), counted() as counter:
            mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=causal)
            there = counter.total
            mixed.sum().backward()
        seen.append((there, counter.total - there))
    product = 2 * 2 * 3 * 8 * 8 * 16
    assert seen == [(2 * product, 4 * product)] * 2


@contextmanager
def counted() -> Iterator[OperationCounter]:
    with OperationCounter() as counter:
        yield counter

"""Learning from preferences with an adapter: the reference is the network with its adapter switched off."""

import copy
import math
from functools import partial
from typing import Any

import pytest
import torch
from test_preference import VOCABULARY, network
from torch import Tensor, nn

from genlab.model.activation_checkpointing import checkpoint_blocks
from genlab.model.adapter.lora import LoRA, adapted_maps
from genlab.model.network.quantized_weight import Quantization
from genlab.model.objective.preference import DPO, IPO, KTO, ORPO, SimPO
from genlab.model.preference import Preference
from genlab.model.sampler.next_token import NextToken
from genlab.model.schedule import Constant
from preferred import by_hand, fill

BATCH = by_hand(VOCABULARY)
ROWS = BATCH["tokens"].flatten(0, 1), BATCH["answer"].flatten(0, 1)
QUANTIZATIONS: tuple[Quantization | None, ...] = (None, "int8", "nf4")


def learner(objective: Any = None, adapter: LoRA | None = None, dropout: float = 0.0) -> Preference:
    """Weights are the same with an adapter and without. An adapter is fresh."""
    torch.manual_seed(0)
    made = Preference(
        partial(filled, dropout),
        objective or DPO(),
        NextToken(),
        partial(torch.optim.SGD, lr=1.0),
        Constant(),
        (11,),
        VOCABULARY,
        0,
        adapter=adapter,
    )
    made.configure_model()
    made.log = lambda *_, **__: None  # type: ignore[method-assign, assignment]
    return made


def filled(dropout: float, **sizes: Any) -> nn.Module:
    made = network(dropout, **sizes)
    fill(made, 0.0)
    return made


def lora(quantization: Quantization | None = None, dropout: float = 0.0) -> LoRA:
    return LoRA(rank=2, dropout=dropout, quantization=quantization)


@torch.no_grad()
def trained(network: nn.Module) -> None:
    """Give the updates of an adapter a size."""
    for number, (_, layer) in enumerate(adapted_maps(network)):
        for update in layer.updates.values():
            update.b.copy_(0.1 * torch.sin(torch.arange(update.b.numel()) * 1.3 + number).view_as(update.b))


@torch.no_grad()
def reference_of(model: Preference) -> Tensor:
    found = model.scored(*ROWS)[0].reference
    assert found is not None
    return found


def gradients(model: Preference) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_a_fresh_adapter_is_the_reference_to_the_last_bit(quantization: Quantization | None) -> None:
    model = learner(adapter=lora(quantization))
    for is_rounded in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=is_rounded):
            found = model.losses(BATCH)
        assert float(found["loss"].detach()) == pytest.approx(math.log(2))
        assert float(found["margin"]) == float(found["kl"]) == 0
    trained(model.network)
    assert float(model.losses(BATCH)["kl"]) > 1e-4


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("objective", [DPO(), IPO(), KTO()], ids=lambda o: type(o).__name__)
def test_a_frozen_copy_gives_the_same_losses_and_gradients(objective: Any, quantization: Quantization | None) -> None:
    model, copied = learner(objective, lora(quantization)), learner(objective)
    copied.network = copy.deepcopy(model.network)
    copied.reference = copy.deepcopy(model.network).requires_grad_(False).eval()
    for each in (model, copied):
        trained(each.network)
        each.training_step(BATCH, 0).backward()
    if quantization is None:  # the copy is the network as it was before there was an adapter
        torch.testing.assert_close(reference_of(learner(objective)), reference_of(model), rtol=0, atol=0)
    found, wanted = gradients(model), gradients(copied)
    updates = {name for name, _ in model.network.named_parameters() if ".updates." in name}
    assert found.keys() == wanted.keys() == updates
    assert max(float(value.abs().max()) for value in wanted.values()) > 1e-3
    for name, value in model.losses(BATCH).items():
        torch.testing.assert_close(value, copied.losses(BATCH)[name], rtol=0, atol=1e-6)
    for name, value in found.items():
        torch.testing.assert_close(value, wanted[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("is_rounded", [False, True])
def test_steps_leave_the_reference_as_it_was(is_rounded: bool) -> None:
    """To the last bit, with dropout of the network and of the adapter, which only the policy has; of the drift of KTO,
    which is computed first and without gradients, too."""
    rounded = partial(torch.autocast, "cpu", torch.bfloat16, enabled=is_rounded)
    model = learner(KTO(), lora(dropout=0.5), dropout=0.5)
    with rounded():
        before = reference_of(model)
    optimizer = model.configure_optimizers()
    policies, trainable = [], {name for name, p in model.named_parameters() if p.requires_grad}
    for _ in range(3):
        with rounded():
            found, _ = model.scored(*ROWS)
            loss = model.training_step(BATCH, 0)
        assert torch.equal(found.reference, before)  # type: ignore[arg-type]
        policies.append(found.policy)
        loss.backward()
        assert gradients(model).keys() == {name.removeprefix("network.") for name in trainable}
        optimizer.step()
        assert all(module.training for module in model.network.modules())
        assert {name for name, p in model.named_parameters() if p.requires_grad} == trainable
    assert not torch.equal(policies[0], policies[2])
    model.eval()
    with rounded():
        assert torch.equal(reference_of(model), before)
        assert not torch.equal(model.scored(*ROWS)[0].policy, before)


def test_blocks_that_are_computed_twice_have_the_adapter_both_times() -> None:
    """The second time is after the reference has been computed."""
    found = []
    for twice in (False, True):
        model = learner(adapter=lora(dropout=0.3), dropout=0.3)
        if twice:
            assert checkpoint_blocks(model.network) == 3
        trained(model.network)
        torch.manual_seed(5)
        model.training_step(BATCH, 0).backward()
        found.append(gradients(model))
    once, again = found
    assert all(torch.equal(value, again[name]) for name, value in once.items())
    assert float(max(value.abs().max() for value in once.values())) > 0


def test_there_is_no_copy_of_the_network() -> None:
    model, bare = learner(adapter=lora()), learner(adapter=None)
    assert model.reference is None
    assert model.copies == {}
    assert {name.partition(".")[0] for name in model.state_dict()} == {"network"}
    assert {name.partition(".")[0] for name in bare.state_dict()} == {"network", "reference"}


@pytest.mark.parametrize("objective", [ORPO(), SimPO()], ids=lambda o: type(o).__name__)
def test_objectives_without_a_reference_train_the_adapter(objective: Any) -> None:
    model = learner(objective, lora())
    assert not model.base_is_reference
    before = model.losses(BATCH)
    assert "kl" not in before
    optimizer = torch.optim.Adam([p for p in model.network.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        model.training_step(BATCH, 0).backward()
        optimizer.step()
    assert float(model.losses(BATCH)["loss"].detach()) < float(before["loss"].detach())
    assert float(model.losses(BATCH)["accuracy"]) == 1


def test_the_adapter_is_on_again_after_an_error() -> None:
    model = learner(adapter=lora())
    wanted = reference_of(model)
    trained(model.network)
    with pytest.raises(IndexError), lora().switched_off(model.network):
        model.network(torch.tensor([[VOCABULARY]]))
    assert torch.equal(reference_of(model), wanted)
    assert not torch.equal(model.scored(*ROWS)[0].policy, wanted)
    assert all(layer.is_on for _, layer in adapted_maps(model.network))


@pytest.mark.matrix  # two compilations
def test_a_compiled_network_is_switched_too() -> None:
    model = learner(adapter=lora())
    trained(model.network)
    wanted = model.losses(BATCH)
    before = reference_of(model)
    model.network.compile()
    for _ in range(2):
        for name, value in model.losses(BATCH).items():
            torch.testing.assert_close(value, wanted[name], rtol=0, atol=1e-5)
        torch.testing.assert_close(reference_of(model), before, rtol=0, atol=1e-5)

"""Muon for matrices and AdamW for the rest as one optimizer: to the last bit the two apart."""

import io
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from test_transformer import network
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

from genlab.model.network.positions import Learned
from genlab.model.network.token_transformer import TokenTransformer
from genlab.model.optimizer.groups import parameter_groups, parameters_for
from genlab.model.optimizer.muon import Muon, orthogonalized, orthogonalized_stack, together
from genlab.model.sharding import shard
from ranks import on_ranks

SETTINGS: dict[str, Any] = {"lr": 0.02, "momentum": 0.9, "betas": (0.8, 0.9), "weight_decay": 0.3}


def made(**changes: Any) -> TokenTransformer:
    torch.manual_seed(0)
    return network(**{"width": 12, **changes})(num_tokens=9, num_outputs=7, max_length=8, causal=True)


def give_gradients(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def take_steps(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range, scale: Any = lambda step: 1.0) -> None:
    for step in steps:
        for group in optimizer.param_groups:
            group["lr"] = SETTINGS["lr"] * scale(step)
        give_gradients(model, step)
        optimizer.step()


def same_weights(one: nn.Module, two: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.parametrize("tied", [True, False])
def test_groups(tied: bool) -> None:
    model = made(tied=tied, bias=True, positions=Learned, norm=nn.LayerNorm)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model)
    matrices, tables, others = ({names[id(p)] for p in group["params"]} for group in groups)
    assert sum(len(group["params"]) for group in groups) == len(names) == len(matrices | tables | others)
    parts = ("attention.qkv", "attention.out", "feed_forward.gate_and_value", "feed_forward.out")
    assert matrices == {f"blocks.{i}.{part}.weight" for i in range(2) for part in parts}
    assert tables == {"embedding.weight", "positions.table.weight", *(() if tied else ("head.weight",))}
    assert "blocks.0.attention.qkv.bias" in others
    assert "blocks.1.attention.head_norm.weight" in others
    assert {"norm.weight", "norm.bias", "blocks.0.attention_norm.weight"} <= others
    assert [group["hidden"] for group in groups] == [True, False, False]
    assert [group.get("weight_decay") for group in groups] == [None, None, 0.0]


def test_groups_of_what_is_trained() -> None:
    model = made()
    model.blocks.requires_grad_(False)
    (group, gains) = parameter_groups(model)
    assert group["params"] == [model.embedding.weight]
    assert gains["params"] == [model.norm.weight]


@pytest.mark.parametrize("tied", [True, False])
def test_steps_are_those_of_muon_and_of_adamw(tied: bool) -> None:
    """With a schedule, which reaches both."""
    together, apart = made(tied=tied, bias=True), made(tied=tied, bias=True)
    start = made(tied=tied, bias=True)

    def scale(step: int) -> float:
        return 1 / (1 + step)

    take_steps(together, Muon(parameter_groups(together), **SETTINGS), range(6), scale)
    matrices, tables, others = ([*group["params"]] for group in parameter_groups(apart))
    muon = torch.optim.Muon(matrices, 0.02, 0.3, 0.9, adjust_lr_fn="match_rms_adamw")
    decayed = [{"params": tables}, {"params": others, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(decayed, 0.02, (0.8, 0.9), weight_decay=0.3, fused=True)
    for optimizer in (muon, adamw):
        take_steps(apart, optimizer, range(6), scale)
    assert same_weights(together, apart)
    moved = [(a - b).square().mean().sqrt() for a, b in zip(together.parameters(), start.parameters(), strict=True)]
    assert min(moved) > 0.005


def test_a_matrix_takes_steps_of_one_size_in_all_directions() -> None:
    """Moonshot's scale: the root mean square of a step is 0.2 of the learning rate, as of AdamW's."""
    before, after = made(), made()
    take_steps(after, Muon(parameter_groups(after), **{**SETTINGS, "weight_decay": 0.0}), range(1))
    for (name, a), b in zip(before.named_parameters(), after.parameters(), strict=True):
        if name.endswith(("qkv.weight", "out.weight", "gate_and_value.weight")):
            sizes = torch.linalg.svdvals(b - a) / 0.02 / (0.2 * max(a.shape) ** 0.5)
            assert 0.5 < sizes.min() <= sizes.max() < 1.3, name
        else:
            torch.testing.assert_close((b - a).abs(), torch.full_like(a, 0.02), rtol=1e-3, atol=1e-6)  # Adam's first


@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (6, 6)])
def test_matrices_of_one_shape_are_orthogonalized_together(shape: tuple[int, int]) -> None:
    """As a GPU does it: what becomes of each is what becomes of it alone; here rounded less, to tell them apart."""
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    matrices[1] = 0
    stacked = orthogonalized_stack(matrices, torch.float64)
    for matrix, found in zip(matrices, stacked, strict=True):
        torch.testing.assert_close(orthogonalized_stack(matrix[None], torch.float64)[0], found, rtol=0, atol=1e-12)
        torch.testing.assert_close(orthogonalized(matrix).double(), found, rtol=0, atol=0.05)
    assert 0.5 < torch.linalg.svdvals(stacked[0]).min() <= torch.linalg.svdvals(stacked[0]).max() < 1.3
    assert orthogonalized_stack(matrices).dtype == torch.bfloat16


def test_steps_together_are_steps_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = made(), made()
    take_steps(one, Muon(parameter_groups(one), **SETTINGS), range(4))
    sizes: list[int] = []

    def on_a_gpu(parameters: list[torch.Tensor]) -> list[list[torch.Tensor]]:
        groups: dict[torch.Size, list[torch.Tensor]] = {}
        for parameter in parameters:
            groups.setdefault(parameter.shape, []).append(parameter)
        sizes.extend(map(len, groups.values()))
        return list(groups.values())

    monkeypatch.setattr("genlab.model.optimizer.muon.together", on_a_gpu)
    take_steps(two, Muon(parameter_groups(two), **SETTINGS), range(4))
    assert max(sizes) == 2, "one of each block"
    start = made()
    for (name, a), b, before in zip(one.named_parameters(), two.parameters(), start.parameters(), strict=True):
        assert (a - b).norm() < 0.01 * (a - before).norm(), name


def test_parameters_of_one_shape_on_a_gpu_go_together() -> None:
    class OnGPU(torch.Tensor):
        is_cuda = True

    def of(*shape: int, kind: Any = OnGPU) -> Any:
        return torch.zeros(shape).as_subclass(kind)

    given = [of(2, 3), of(4, 3), of(2, 3, 1, 1), of(2, 3, kind=torch.Tensor), of(2, 3, kind=torch.Tensor)]
    assert [len(alike) for alike in together(given)] == [2, 1, 1, 1]


def test_a_step_can_be_left_out() -> None:
    """By a flag on the device, as loss scalers do it: nothing changes, and the next step is as if it had not been."""
    stopped, straight = made(), made()
    one, two = (Muon(parameter_groups(model), **SETTINGS) for model in (stopped, straight))
    for optimizer in (one, two):
        optimizer.found_inf = torch.zeros(())
    take_steps(stopped, one, range(2))
    take_steps(straight, two, range(2))
    for parameter in stopped.parameters():
        parameter.grad = torch.full_like(parameter, float("nan"))
    one.found_inf = torch.ones(())
    one.step()
    assert same_weights(stopped, straight)
    one.found_inf = torch.zeros(())
    take_steps(stopped, one, range(2, 4))
    take_steps(straight, two, range(2, 4))
    assert same_weights(stopped, straight)
    plain = made()
    take_steps(plain, Muon(parameter_groups(plain), **SETTINGS), range(4))
    for a, b in zip(plain.parameters(), straight.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


class Kernels(nn.Module):
    """A convolution in a block and one before it, as a denoiser has them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(1, 4, 3)
        self.blocks = nn.ModuleList([nn.Conv2d(4, 6, 3), nn.Conv2d(6, 2, 1)])


def test_a_convolution_takes_the_steps_of_its_matrix() -> None:
    """Of output channels by input channels and places: what torch's Muon makes of that matrix; in any memory format."""
    model, apart = Kernels(), Kernels()
    model.to(memory_format=torch.channels_last)
    take_steps(model, Muon(parameter_groups(model), **SETTINGS), range(4))
    matrices = [nn.Parameter(block.weight.detach().flatten(1).clone()) for block in apart.blocks]
    muon = torch.optim.Muon(matrices, 0.02, 0.3, 0.9, adjust_lr_fn="match_rms_adamw")
    for step in range(4):
        give_gradients(apart, step)
        for matrix, block in zip(matrices, apart.blocks, strict=True):
            matrix.grad = block.weight.grad.flatten(1)
        muon.step()
    for matrix, block in zip(matrices, model.blocks, strict=True):
        assert torch.equal(matrix, block.weight.flatten(1))
    assert not torch.equal(model.stem.weight, apart.stem.weight)  # AdamW's


def test_a_network_without_blocks_has_adamw_alone() -> None:
    model, apart = nn.Linear(3, 2), nn.Linear(3, 2)
    apart.load_state_dict(model.state_dict())
    take_steps(model, Muon(parameters_for(partial(Muon, lr=1.0), model), **SETTINGS), range(3))
    groups = [{"params": [apart.weight]}, {"params": [apart.bias], "weight_decay": 0.0}]
    take_steps(apart, torch.optim.AdamW(groups, 0.02, (0.8, 0.9), weight_decay=0.3, fused=True), range(3))
    assert same_weights(model, apart)


def test_who_asks_for_groups_gets_them() -> None:
    model = Kernels()
    assert [group["hidden"] for group in parameters_for(partial(Muon), model)] == [True, False, False]
    assert list(parameters_for(partial(torch.optim.AdamW), model)) == list(model.parameters())


def test_without_a_learning_rate_nothing_moves() -> None:
    model = made()
    take_steps(model, Muon(parameter_groups(model), **SETTINGS), range(3), lambda step: 0.0)
    assert same_weights(model, made())


def test_a_state_that_is_saved_and_loaded_goes_on_the_same() -> None:
    straight, stopped = made(), made()
    optimizer = Muon(parameter_groups(straight), **SETTINGS)
    take_steps(straight, optimizer, range(6))
    first = Muon(parameter_groups(stopped), **SETTINGS)
    take_steps(stopped, first, range(3))
    file = io.BytesIO()
    torch.save([stopped.state_dict(), first.state_dict()], file)
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    again = made()
    again.load_state_dict(weights)
    second = Muon(parameter_groups(again), lr=1.0)  # settings too are those that were saved
    second.load_state_dict(state)
    take_steps(again, second, range(3, 6))
    assert same_weights(again, straight)
    assert len(second.state) == len(list(again.parameters())) == len(optimizer.state_dict()["state"])


def _shared_steps(rank: int) -> dict[str, torch.Tensor]:
    model = made()
    shard(model, init_device_mesh("cpu", (2, 1), mesh_dim_names=("data_parallel", "tensor_parallel")))
    optimizer = Muon(parameter_groups(model), **SETTINGS)
    for step in range(2):
        optimizer.zero_grad()
        model(_tokens(step)).square().mean().backward()
        optimizer.step()
    return {name: parameter.full_tensor() for name, parameter in model.named_parameters()}  # type: ignore[attr-defined]


def _tokens(step: int) -> torch.Tensor:
    return torch.randint(9, (4, 8), generator=torch.Generator().manual_seed(step))


def test_shared_out_matrices_take_the_steps_of_whole_ones(tmp_path: Path) -> None:
    """They are orthogonalised as wholes, which in bfloat16 is rounded otherwise; and not part by part."""
    shared, model = on_ranks(2, tmp_path, _shared_steps)[0], made()
    optimizer = Muon(parameter_groups(model), **SETTINGS)
    for step in range(2):
        optimizer.zero_grad()
        model(_tokens(step)).square().mean().backward()
        optimizer.step()
    for (name, whole), start in zip(model.named_parameters(), made().parameters(), strict=True):
        step_size = (whole - start).norm()
        assert (shared[name] - whole).norm() < 0.1 * step_size, name

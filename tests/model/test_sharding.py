"""Sharding over a mesh of one process: what is sharded, and that nothing changes in what is computed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from test_transformer import network as token_network
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule

from genlab.model.adapter.lora import LoRA
from genlab.model.network.dit import DiT
from genlab.model.network.token_transformer import TokenTransformer
from genlab.model.network.unet import UNet
from genlab.model.sharding import shard
from told import labels


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[DeviceMesh]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1, 1), mesh_dim_names=("data_parallel", "tensor_parallel"))
    dist.destroy_process_group()


@pytest.mark.parametrize(
    "network",
    [DiT((1, 8, 8), labels(3), width=32, depth=2, num_heads=2),
     UNet((1, 8, 8), labels(3), channels=16, channel_mult=(1, 2)),
     token_network(width=16)(num_tokens=9, num_outputs=7, max_length=8, causal=True)],
    ids=["dit", "unet", "tokens"],
)  # fmt: skip
def test_blocks_are_sharded(mesh: DeviceMesh, network: Any) -> None:
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    given: tuple[Any, ...] = torch.randn(2, 1, 8, 8), torch.rand(2), {"label": torch.tensor([0, -1])}
    if isinstance(network, TokenTransformer):
        given = (torch.randint(9, (2, 8)),)
    network.eval()
    expected = network(*given)
    shard(network, mesh)
    blocks = [block for name, block in network.named_modules() if name.split(".")[-2:-1] == ["blocks"]]
    assert len(blocks) >= 2
    assert all(isinstance(module, FSDPModule) for module in [*blocks, network])
    output = network(*given)
    torch.testing.assert_close(output, expected)
    output.square().mean().backward()


@pytest.mark.parametrize("quantization", [None, "int8", "nf4"])
def test_a_frozen_network_is_sharded_with_its_adapter(mesh: DeviceMesh, quantization: Any) -> None:
    """Also numbers and scales in place of its weights."""
    network: Any = token_network(width=16)(num_tokens=9, num_outputs=7, max_length=8, causal=True)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    LoRA(rank=2, quantization=quantization).adapt(network)
    for parameter in network.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    tokens = torch.randint(9, (2, 8))
    network(tokens).square().mean().backward()
    expected = {name: p.grad for name, p in network.named_parameters() if p.requires_grad}
    network.zero_grad()
    shard(network, mesh)
    network(tokens).square().mean().backward()
    for name, p in network.named_parameters():
        assert (p.grad is not None) == p.requires_grad == (name in expected)
        if p.grad is not None:
            torch.testing.assert_close(p.grad.full_tensor(), expected[name])

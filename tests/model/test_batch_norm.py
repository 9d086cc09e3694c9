"""Batch norm over ranks, and the networks that have it."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchvision.models import resnet18

from genlab.model.gathered import gathered
from genlab.model.network.batch_norm import BatchNorm
from genlab.model.network.projector import Projector
from genlab.model.network.resnet18 import ResNet18
from genlab.model.network.vit import ViT, ViTFeatures
from ranks import on_ranks


def images(count: int, *shape: int) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))


# --- statistics over ranks -------------------------------------------------------------------------------------------


def trained(rank: int, world: int, like: str) -> dict[str, Tensor]:
    """Gradients of a loss of all rows on one of several ranks, averaged as DDP does, and the running statistics."""
    torch.manual_seed(0)
    network: nn.Module = Projector(6, (5, 4)) if like == "vectors" else ResNet18((3, 6, 6), width=2, stages=(1, 1))
    x = 3 + 2 * images(8, *(6,) if like == "vectors" else (3, 6, 6))
    made = gathered(network(x[rank * 8 // world : (rank + 1) * 8 // world]))
    loss = (made * images(8, made.shape[1])).tanh().sum()  # not of a row alone
    loss.backward()
    found = {"loss": loss.detach()} | {name: buffer.float() for name, buffer in network.named_buffers()}
    for name, p in network.named_parameters():
        assert p.grad is not None, name
        if world > 1:
            dist.all_reduce(p.grad)
        found[name] = p.grad / world
    return found


@pytest.mark.parametrize("like", ["vectors", pytest.param("images", marks=pytest.mark.matrix)])
def test_two_ranks_have_the_statistics_and_the_gradients_of_one(like: str, tmp_path: Path) -> None:
    alone = trained(0, 1, like)
    assert max(float(slope.abs().max()) for name, slope in alone.items() if name.endswith("weight")) > 0.01
    for result in on_ranks(2, tmp_path, trained, 2, like):
        assert result.keys() == alone.keys()
        for name, value in result.items():
            torch.testing.assert_close(value, alone[name], rtol=1e-5, atol=2e-6)


def test_on_one_rank_it_is_torchs() -> None:
    mine, theirs = BatchNorm(3), nn.BatchNorm2d(3)
    x = 3 + images(4, 3, 5, 5)
    for step in range(2):
        assert torch.equal(mine(x + step), theirs(x + step))
    assert all(torch.equal(a, b) for a, b in zip(mine.buffers(), theirs.buffers(), strict=True))
    assert torch.equal(mine.eval()(x), theirs.eval()(x))
    with pytest.raises(ValueError, match=r"^batch norm takes \(N, C, ...\), not a tensor of shape \(3,\)"):
        mine.train()(x[0, :, 0, 0])


# --- networks --------------------------------------------------------------------------------------------------------


def as_torchvision_names(name: str) -> str:
    """The name of a weight of ResNet18 in torchvision's network."""
    if not name.startswith("blocks."):
        return name.replace("norm.", "bn1.").replace("conv.", "conv1.")
    _, number, rest = name.split(".", 2)
    rest = rest.replace("shortcut.", "downsample.").replace("norm", "bn")
    return f"layer{int(number) // 2 + 1}.{int(number) % 2}.{rest}"


@pytest.mark.parametrize("training", [True, False])
def test_resnet18_is_torchvisions_with_another_stem(training: bool) -> None:
    torch.manual_seed(0)
    mine, theirs = ResNet18((3, 8, 8)), resnet18()
    theirs.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    theirs.maxpool, theirs.fc = nn.Identity(), nn.Identity()
    theirs.load_state_dict({as_torchvision_names(name): tensor for name, tensor in mine.state_dict().items()})
    x = images(2, 3, 8, 8)
    with torch.no_grad():
        features = mine.train(training)(x)
        torch.testing.assert_close(features, theirs.train(training)(x))
    assert features.shape == (2, mine.num_features) == (2, 512)


def test_features_of_a_vision_transformer() -> None:
    make: Any = partial(ViTFeatures, (1, 4, 6), patch_size=2, width=8, depth=1, num_heads=2)
    token, mean = make(), make(features="mean")
    mean.load_state_dict(token.state_dict())
    vectors = ViT.forward(token, images(3, 1, 4, 6))
    assert vectors.shape == (3, 7, 8)
    assert torch.equal(token(images(3, 1, 4, 6)), vectors[:, 0])
    torch.testing.assert_close(mean(images(3, 1, 4, 6)), vectors[:, 1:].mean(dim=1))
    assert token.num_features == 8


def test_a_projector_ends_with_what_it_is_told() -> None:
    torch.manual_seed(0)
    with_norm, without = Projector(6, (5, 4)), Projector(6, (5, 4), last_norm=False)
    made = with_norm(images(9, 6))
    torch.testing.assert_close(made.mean(dim=0), torch.zeros(4), rtol=0, atol=1e-5)
    torch.testing.assert_close(made.var(dim=0, correction=0), torch.ones(4), rtol=0, atol=1e-2)
    linear, norm, relu, last = without.layers
    torch.testing.assert_close(without(images(9, 6)), last(relu(norm(linear(images(9, 6))))))
    assert linear.bias is None
    assert last.bias is not None


def test_unsuitable_networks() -> None:
    with pytest.raises(ValueError, match=r"^widths=\[\] must be one number or more"):
        Projector(6, ())
    with pytest.raises(ValueError, match=r"^width=0 and each of stages=\[2, 2, 2, 2\] must be 1 or more"):
        ResNet18((3, 8, 8), width=0)

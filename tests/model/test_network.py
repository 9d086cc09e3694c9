"""Networks: what they start as, what they are told, and what reaches their weights."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from genlab.model.network.dit import DiT
from genlab.model.network.embedding import sinusoids
from genlab.model.network.mlp import MLP
from genlab.model.network.unet import PixelAttention, UNet
from told import labels


def unet(shape: tuple[int, int, int] = (3, 16, 16), num_classes: int | None = 10, **changes) -> UNet:  # type: ignore[no-untyped-def]
    return UNet(
        shape, labels(num_classes), **{"channels": 16, "channel_mult": (1, 2), "attention_resolutions": (8,), **changes}
    )


def dit(shape: tuple[int, int, int] = (3, 16, 16), num_classes: int | None = 10) -> DiT:
    return DiT(shape, labels(num_classes), width=32, depth=2, num_heads=4)


def mlp(shape: tuple[int, int, int] = (3, 16, 16), num_classes: int | None = 10) -> MLP:
    return MLP(shape, labels(num_classes), width=32)


def randomise(network: nn.Module) -> nn.Module:
    """Away from the zeros of initialization, which hide most of a network."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return network.eval()


every = pytest.mark.parametrize("make", [unet, dit, mlp])


@every
def test_starts_at_zero(make: Callable) -> None:
    output = make()(torch.randn(2, 3, 16, 16), torch.rand(2), {"label": torch.tensor([0, -1])})
    assert output.shape == (2, 3, 16, 16)
    assert (output == 0).all()


@every
def test_no_label_is_no_condition(make: Callable) -> None:
    network = randomise(make())
    x, noise_level = torch.randn(3, 3, 16, 16), torch.rand(3)
    without = network(x, noise_level, None)
    torch.testing.assert_close(network(x, noise_level, {"label": torch.full((3,), -1)}), without)
    labelled = network(x, noise_level, {"label": torch.tensor([0, 9, -1])})
    differs = (labelled - without).abs().amax(dim=(1, 2, 3)) > 1e-4
    assert differs.tolist() == [True, True, False]
    assert not torch.allclose(network(x, noise_level + 0.1, None), without, atol=1e-4)
    unlabelled = randomise(make(num_classes=None))
    assert unlabelled(x, noise_level, None).shape == x.shape


@every
def test_gradients_reach_every_parameter(make: Callable) -> None:
    network = randomise(make())
    network(torch.randn(4, 3, 16, 16), torch.rand(4), {"label": torch.arange(10)[:4] - 1}).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        if not name.endswith("attention.qkv.bias"):  # the key's bias changes no attention, and its gradient is 0
            assert parameter.grad.abs().max() > 0, name


@every
def test_rows_are_independent(make: Callable) -> None:
    network = randomise(make())
    x, noise_level, label = torch.randn(5, 3, 16, 16), torch.rand(5), torch.arange(5)
    together = network(x, noise_level, {"label": label})
    alone = torch.cat([network(x[i : i + 1], noise_level[i : i + 1], {"label": label[i : i + 1]}) for i in range(5)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@every
def test_runs_under_autocast(make: Callable) -> None:
    network = make()
    with torch.autocast("cpu", torch.bfloat16):
        output = network(torch.randn(2, 3, 16, 16), torch.rand(2), {"label": torch.tensor([0, 1])})
    output.float().square().mean().backward()


def test_attention_stands_at_the_resolutions_asked_for() -> None:
    def resolutions(asked: tuple[int, ...]) -> set[int]:
        network, seen = unet(channel_mult=(1, 1, 1), attention_resolutions=asked), set()
        for module in network.modules():
            if isinstance(module, PixelAttention):
                module.register_forward_hook(lambda module, inputs, output: seen.add(inputs[0].shape[2]))
        network(torch.randn(1, 3, 16, 16), torch.rand(1), None)
        return seen

    assert resolutions(()) == {4}  # the middle
    assert resolutions((8,)) == {4, 8}
    assert resolutions((16, 4)) == {16, 4}


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 32, 32), (1, 28, 28), (3, 32, 16)])
def test_unet_fits_usual_images(shape: tuple[int, int, int]) -> None:
    x = torch.randn(1, *shape)
    assert unet(shape, channel_mult=(1, 2, 2))(x, torch.rand(1), None).shape == x.shape


def test_impossible_sizes_are_refused_with_a_remedy() -> None:
    with pytest.raises(ValueError, match=r"multiples of 8 .*20x20") as refused:
        unet((3, 20, 20), channel_mult=(1, 1, 1, 1))
    assert refused.value.side == 24
    with pytest.raises(ValueError, match=r"model.network.channels=16"):
        unet(channels=15)
    with pytest.raises(ValueError, match=r"patch_size"):
        dit((3, 15, 15))
    with pytest.raises(ValueError, match=r"num_heads"):
        DiT((3, 16, 16), {}, width=100, num_heads=3)


def test_dit_has_the_published_size() -> None:
    """33 million for DiT-S/2 (Peebles and Xie 2023, table 1), whose code predicts variances in 4 channels more and
    counts 256 fixed positions."""
    count = sum(p.numel() for p in DiT((4, 32, 32), labels(1000)).parameters())
    assert count + 4 * 4 * (384 + 1) + 256 * 384 == pytest.approx(32.96e6, rel=1e-3)


def test_unet_has_the_published_size() -> None:
    """35.7 million for DDPM on CIFAR-10 (Ho et al. 2020, appendix B); the blocks here modulate by scale and shift."""
    network = UNet((3, 32, 32), {})
    count = sum(p.numel() for p in network.parameters())
    assert count == pytest.approx(35.7e6, rel=0.3)


def test_sinusoids_are_the_published_ones() -> None:
    features = sinusoids(torch.tensor([0.0, 3.0]), 4)
    expected = torch.tensor([[1, 1, 0, 0], [3.0, 0.03, 3.0, 0.03]])
    expected[1, :2], expected[1, 2:] = expected[1, :2].cos(), expected[1, 2:].sin()
    torch.testing.assert_close(features, expected)


def test_mlp_takes_points() -> None:
    x: Tensor = torch.randn(7, 2, 1, 1)
    assert MLP((2, 1, 1), {})(x, torch.rand(7), None).shape == x.shape

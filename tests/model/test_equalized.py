"""Equalized learning rates, pixel norm and minibatch standard deviation, against closed forms."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.model.network.equalized import HE_GAIN, EqualizedConv2d, EqualizedLinear, MinibatchStd, PixelNorm

Layer = EqualizedLinear | EqualizedConv2d
LAYERS: dict[str, Callable[..., Layer]] = {
    "linear": lambda **given: EqualizedLinear(300, 400, **given),
    "convolution": lambda **given: EqualizedConv2d(40, 400, 3, padding=0, **given),
}


def inputs(layer: Layer) -> Tensor:
    shape = (64, 300) if isinstance(layer, EqualizedLinear) else (8, 40, 5, 5)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("lr_multiplier", [1.0, 0.01])
@pytest.mark.parametrize("gain", [1.0, HE_GAIN])
def test_outputs_have_the_variance_of_the_gain(kind: str, gain: float, lr_multiplier: float) -> None:
    torch.manual_seed(0)
    layer = LAYERS[kind](gain=gain, lr_multiplier=lr_multiplier)
    assert layer(inputs(layer)).var().item() == pytest.approx(gain**2, rel=0.05)
    assert layer.weight.std().item() == pytest.approx(1 / lr_multiplier, rel=0.02)


@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_are_those_of_a_plain_layer_times_the_scale(kind: str) -> None:
    torch.manual_seed(0)
    layer = LAYERS[kind](gain=HE_GAIN, lr_multiplier=0.5, first_bias=0.3)
    fan_in = 300 if kind == "linear" else 360
    weight = (layer.weight.detach() * (math.sqrt(2) * 0.5 / math.sqrt(fan_in))).requires_grad_()
    bias = torch.full((400,), 0.3, requires_grad=True)
    x = inputs(layer)
    expected = F.linear(x, weight, bias) if kind == "linear" else F.conv2d(x, weight, bias)
    torch.testing.assert_close(layer(x), expected)
    expected.square().sum().backward()
    layer(x).square().sum().backward()
    expected_slopes = [weight.grad * (math.sqrt(2) * 0.5 / math.sqrt(fan_in)), bias.grad * 0.5]  # type: ignore[operator]
    torch.testing.assert_close([p.grad for p in layer.parameters()], expected_slopes)


def test_a_step_of_adam_changes_wide_and_narrow_layers_by_equal_shares() -> None:
    """Relative to the deviation of the weights that act, Adam's first step is lr * lr_multiplier of any layer."""
    for width, multiplier in ((4, 1.0), (400, 1.0), (400, 0.1)):
        layer = EqualizedLinear(width, 8, lr_multiplier=multiplier)
        before = layer.scaled_weight().detach().clone()
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
        layer(torch.ones(2, width)).square().sum().backward()
        optimizer.step()
        moved = (layer.scaled_weight().detach() - before).abs() * math.sqrt(width)
        torch.testing.assert_close(moved, torch.full_like(moved, 0.01 * multiplier), rtol=1e-3, atol=1e-7)


def test_a_convolution_keeps_the_resolution_unless_told_otherwise() -> None:
    x = torch.zeros(1, 2, 4, 4)
    assert EqualizedConv2d(2, 3, 3)(x).shape == EqualizedConv2d(2, 3, 1)(x).shape == (1, 3, 4, 4)
    assert EqualizedConv2d(2, 3, 4, padding=3)(torch.zeros(1, 2, 1, 1)).shape == (1, 3, 4, 4)
    assert EqualizedConv2d(2, 3, 1, bias=False).bias is None


def test_pixel_norm_by_hand() -> None:
    x = torch.tensor([[3.0, 4.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(PixelNorm()(x), torch.tensor([[1.2, 1.6, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]))
    maps = torch.randn(2, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(PixelNorm()(maps).square().mean(dim=1), torch.ones(2, 3, 3))


def test_minibatch_deviation_by_hand() -> None:
    """Four images in groups of two: 0 with 2, and 1 with 3."""
    x = torch.tensor([0.0, 10.0, 2.0, 16.0]).view(4, 1, 1, 1).repeat(1, 2, 2, 2)
    x[:, 1] *= 2  # the other channel deviates twice as much
    y = MinibatchStd(group_size=2)(x)
    assert y.shape == (4, 3, 2, 2)
    assert torch.equal(y[:, :2], x)
    torch.testing.assert_close(y[:, 2, 0, 0], torch.tensor([1.5, 4.5, 1.5, 4.5]))
    assert torch.equal(y[:, 2], y[:, 2, :1, :1].expand(-1, 2, 2))
    of_each = MinibatchStd(group_size=2, num_maps=2)(x)
    torch.testing.assert_close(of_each[:, 2:, 0, 0], torch.tensor([[1.0, 2.0], [3.0, 6.0]]).repeat(2, 1))


@pytest.mark.parametrize(("count", "group_size", "size"), [(8, 4, 4), (6, 4, 3), (7, 4, 1), (2, 4, 2), (6, None, 6)])
def test_groups_are_of_a_divisor(count: int, group_size: int | None, size: int) -> None:
    x = torch.randn(count, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    found = MinibatchStd(group_size)(x)[:, 2, 0, 0]
    stride = count // size
    for i in range(count):
        of_group = x[i % stride :: stride]
        deviation = (of_group - of_group.mean(dim=0)).square().mean(dim=0).sqrt()
        torch.testing.assert_close(found[i], deviation.mean(), rtol=1e-4, atol=2e-4)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="lr_multiplier=0 must be above 0"):
        EqualizedLinear(2, 2, lr_multiplier=0)
    with pytest.raises(ValueError, match="group_size=0 and num_maps=1 must be at least 1"):
        MinibatchStd(0)


def test_penalties_can_differentiate_twice() -> None:
    x = torch.randn(4, 2, 4, 4, requires_grad=True)
    network = nn.Sequential(PixelNorm(), MinibatchStd(2), EqualizedConv2d(3, 1, 3))
    (slope,) = torch.autograd.grad(network(x).square().sum(), x, create_graph=True)
    slope.square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()

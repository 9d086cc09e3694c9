"""Layers of progressive GANs and StyleGANs: equalized learning rates, pixel norm, minibatch standard deviation.

Karras et al. 2018, section 4.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HE_GAIN = math.sqrt(2)  # keeps the mean square through a rectifier (He et al. 2015, eq. 10)


class _Equalized(nn.Module):
    """Weights that are stored at unit variance / ``lr_multiplier`` and scaled whenever they are used (section 4.1).

    An optimizer that divides by the size of gradients, as Adam does, then changes each weight at the same rate relative
    to its standard deviation, whatever the width of the layer.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, shape: tuple[int, ...], bias: bool, gain: float, lr_multiplier: float, first_bias: float):
        super().__init__()
        if lr_multiplier <= 0:
            raise ValueError(f"lr_multiplier={lr_multiplier} must be above 0.")
        self.lr_multiplier = lr_multiplier
        self.scale = gain * lr_multiplier / math.sqrt(math.prod(shape[1:]))  # gain / sqrt(fan-in), He's constant
        self.weight = nn.Parameter(torch.randn(shape) / lr_multiplier)
        if bias:
            self.bias = nn.Parameter(torch.full(shape[:1], first_bias / lr_multiplier))
        else:
            self.register_parameter("bias", None)

    def scaled_weight(self) -> Tensor:
        """What inputs are multiplied by: of standard deviation gain / sqrt(fan-in) at the start; like ``weight``."""
        return self.weight * self.scale

    def scaled_bias(self) -> Tensor | None:
        """What is added to outputs, (outputs,)."""
        return None if self.bias is None else self.bias * self.lr_multiplier


class EqualizedLinear(_Equalized):
    """A linear layer with an equalized learning rate. Inputs of unit mean square give outputs of variance gain^2."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        gain: float = 1.0,  # HE_GAIN before a rectifier
        lr_multiplier: float = 1.0,  # the layer learns at so many times the optimizer's rate
        first_bias: float = 0.0,  # what is added to outputs at the start
    ):
        """Raises ValueError: ``lr_multiplier`` is not above 0."""
        super().__init__((out_features, in_features), bias, gain, lr_multiplier, first_bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return F.linear(x, self.scaled_weight(), self.scaled_bias())


class EqualizedConv2d(_Equalized):
    """A convolution with an equalized learning rate. Its zero padding keeps the resolution of odd kernels."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        bias: bool = True,
        gain: float = 1.0,  # HE_GAIN before a rectifier
        lr_multiplier: float = 1.0,  # the layer learns at so many times the optimizer's rate
        first_bias: float = 0.0,  # what is added to outputs at the start
        padding: int | None = None,  # None: kernel_size // 2
    ):
        """Raises ValueError: ``lr_multiplier`` is not above 0."""
        super().__init__((out_channels, in_channels, kernel_size, kernel_size), bias, gain, lr_multiplier, first_bias)
        self.padding = kernel_size // 2 if padding is None else padding

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H', W'); H' = H + 2 padding - kernel_size + 1, and so W'."""
        return F.conv2d(x, self.scaled_weight(), self.scaled_bias(), padding=self.padding)


class PixelNorm(nn.Module):
    """Divides the features of each pixel, or of a vector, by the root of their mean square (section 4.2)."""

    def __init__(self, epsilon: float = 1e-8):
        super().__init__()
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) -> the same shape, of mean square 1 over C. The mean is taken in float32."""
        return x * torch.rsqrt(x.float().square().mean(dim=1, keepdim=True) + self.epsilon).to(x.dtype)


class MinibatchStd(nn.Module):
    """Appends feature maps with the standard deviation within a group of images, by which a discriminator sees
    collapsed ones (section 3).

    Images are grouped strided: with N images in groups of G, image i is in group i mod (N / G). Where ``group_size``
    does not divide N, groups are of the largest divisor of N below it. On several ranks groups are of a rank's own
    images; they are those that one process would form if G times the ranks divides the global batch.
    """

    def __init__(
        self,
        group_size: int | None = 4,  # None: all images of a batch; 1: the maps are constant
        num_maps: int = 1,  # each one of an equal share of the channels
        epsilon: float = 1e-8,  # added to variances
    ):
        """Raises ValueError: ``group_size`` or ``num_maps`` is below 1."""
        super().__init__()
        if (group_size is not None and group_size < 1) or num_maps < 1:
            raise ValueError(f"group_size={group_size} and num_maps={num_maps} must be at least 1.")
        self.group_size, self.num_maps, self.epsilon = group_size, num_maps, epsilon

    def groups_of(self, count: int) -> int:
        """The size of the groups of ``count`` images."""
        most = min(count, self.group_size or count)
        return next(size for size in range(most, 0, -1) if count % size == 0)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C + num_maps, H, W); ``num_maps`` divides C. Deviations are taken in float32."""
        count, channels, height, width = x.shape
        size = self.groups_of(count)
        grouped = x.float().reshape(size, count // size, self.num_maps, channels // self.num_maps, height, width)
        deviation = (grouped.var(dim=0, correction=0) + self.epsilon).sqrt()  # (N / size, num_maps, C', H, W)
        maps = deviation.mean(dim=(2, 3, 4)).to(x.dtype)  # (N / size, num_maps)
        return torch.cat([x, maps.repeat(size, 1)[:, :, None, None].expand(-1, -1, height, width)], dim=1)

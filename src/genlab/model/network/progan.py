"""The networks of progressive GANs (Karras et al. 2018, table 2), which grow from 4x4 by doubling.

All layers are made at once; of those above the stage none is used.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.model.network.embedding import Told
from genlab.model.network.equalized import HE_GAIN, EqualizedConv2d, EqualizedLinear, MinibatchStd, PixelNorm
from genlab.model.network.gan_blocks import ProjectionHead, faint_conditions
from genlab.model.network.image_size import ImageSizeError

_SMALLEST = 4  # side of the first images
_SLOPE = 0.2  # of leaky rectifiers below 0


class _Growing(nn.Module):
    """What the two networks share: the stage, which is a part of their state, so that weights are read at the stage
    that they were saved at."""

    stage: Tensor  # (level, alpha)
    levels: int
    level: int
    alpha: float

    def __init__(self, levels: int):
        super().__init__()
        self.levels = levels
        self.level, self.alpha, self.is_fading = levels - 1, 1.0, False
        self.register_buffer("stage", torch.tensor([levels - 1, 1.0]))
        self.register_load_state_dict_post_hook(_read_stage)

    @torch.no_grad()
    def grow(self, level: int, alpha: float) -> None:
        """Go to ``level`` (0: 4x4), whose layers are mixed with the lower level's by ``alpha`` in [0, 1]."""
        assert 0 <= level < self.levels
        assert 0 <= alpha <= 1
        assert level or alpha == 1
        self.level, self.alpha, self.is_fading = level, alpha, alpha < 1
        self.stage[0].fill_(level)
        self.stage[1].fill_(alpha)

    def mixed(self, lower: Tensor, upper: Tensor) -> Tensor:
        """``lower`` where alpha is 0, ``upper`` where it is 1; all of one shape."""
        return torch.lerp(lower, upper, self.stage[1].to(upper.dtype))


def _read_stage(network: nn.Module, incompatible: Any) -> None:
    assert isinstance(network, _Growing)
    if not network.stage.is_meta:
        level, alpha = network.stage.tolist()
        network.level, network.alpha, network.is_fading = int(level), alpha, alpha < 1


class _GrowingBlock(nn.Module):
    """Twice the resolution: nearest neighbors, then two convolutions, each with a rectifier and pixel norm."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.conv1 = EqualizedConv2d(before, after, 3, gain=HE_GAIN)
        self.conv2 = EqualizedConv2d(after, after, 3, gain=HE_GAIN)
        self.norm = PixelNorm()

    def forward(self, h: Tensor) -> Tensor:
        """(N, before, H, W) -> (N, after, 2H, 2W)."""
        h = self.norm(_rectified(self.conv1(_doubled(h))))
        return self.norm(_rectified(self.conv2(h)))


class _ShrinkingBlock(nn.Module):
    """Two convolutions, each with a rectifier, then half the resolution by average pooling."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.conv1 = EqualizedConv2d(before, before, 3, gain=HE_GAIN)
        self.conv2 = EqualizedConv2d(before, after, 3, gain=HE_GAIN)

    def forward(self, h: Tensor) -> Tensor:
        """(N, before, H, W) -> (N, after, H/2, W/2)."""
        return F.avg_pool2d(_rectified(self.conv2(_rectified(self.conv1(h)))), 2)


class ProGANGenerator(_Growing):
    """Blocks from 4x4 up, and for each resolution a linear map to colors. Conditions are beside the noise.

    Images are not bounded, as published.
    """

    def __init__(
        self,
        shape: Sequence[int],  # of an image: (C, H, W)
        told: Told,  # the conditions by key
        latent_dim: int,
        channels: int = 16,  # of the last feature map; each coarser one has twice as many,
        max_channels: int = 512,  # up to so many
    ):
        """Raises ValueError if an image is not a square whose side is 4 times a power of two."""
        widths = _widths(shape, channels, max_channels)
        super().__init__(len(widths))
        self.told = faint_conditions(told, latent_dim)
        self.norm, self.latent_dim = PixelNorm(), latent_dim
        # As a 4x4 convolution of a single pixel, whose fan-in has 16 times as many.
        self.stem = EqualizedLinear(latent_dim * (1 + len(told)), widths[0] * _SMALLEST**2, gain=HE_GAIN / _SMALLEST)
        self.unflatten = nn.Unflatten(1, (widths[0], _SMALLEST, _SMALLEST))
        self.conv = EqualizedConv2d(widths[0], widths[0], 3, gain=HE_GAIN)
        self.blocks = nn.ModuleList(_GrowingBlock(*pair) for pair in pairwise(widths))
        self.to_image = nn.ModuleList(EqualizedConv2d(width, shape[0], 1) for width in widths)

    def latent_maps(self) -> Tensor:
        """(outputs, latent_dim), of the normed noise."""
        return self.stem.scaled_weight()[:, : self.latent_dim]

    def forward(self, noise: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        """``noise``: (N, latent_dim); ``condition``: by key, N rows each. -> (N, C, R, R), R the stage's resolution."""
        h = self.norm(noise)
        if self.told is not None:
            h = torch.cat([h, self.told.side_by_side(condition, len(noise))], dim=1)
        h = self.unflatten(self.stem(h)).contiguous(memory_format=torch.channels_last)
        h = self.norm(_rectified(h))
        h = below = self.norm(_rectified(self.conv(h)))
        for level in range(self.level):
            below, h = h, self.blocks[level](h)
        image = self.to_image[self.level](h)
        if self.is_fading:
            image = self.mixed(_doubled(self.to_image[self.level - 1](below)), image)
        return image


class ProGANDiscriminator(_Growing):
    """The generator's mirror image: for each resolution a map from colors, blocks down to 4x4, the standard deviation
    over the minibatch, and a linear layer, with the condition's projection on its input."""

    def __init__(
        self,
        shape: Sequence[int],  # of an image: (C, H, W)
        told: Told,  # the conditions by key
        channels: int = 16,  # of the first feature map; each coarser one has twice as many,
        max_channels: int = 512,  # up to so many
        group_size: int | None = 4,  # images whose deviation is taken; null: all of a batch; 1: none is
    ):
        """Raises ValueError if an image is not a square whose side is 4 times a power of two, or of a ``group_size``
        below 1."""
        widths = _widths(shape, channels, max_channels)
        super().__init__(len(widths))
        self.from_image = nn.ModuleList(EqualizedConv2d(shape[0], width, 1, gain=HE_GAIN) for width in widths)
        self.blocks = nn.ModuleList(_ShrinkingBlock(after, before) for before, after in pairwise(widths))
        self.deviation = MinibatchStd(group_size)
        self.conv = EqualizedConv2d(widths[0] + 1, widths[0], 3, gain=HE_GAIN)
        self.hidden = EqualizedLinear(widths[0] * _SMALLEST**2, widths[0], gain=HE_GAIN)
        self.head = ProjectionHead(widths[0], told, _equalized)

    def forward(self, candidate: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        """``candidate``: (N, C, R, R), R the stage's resolution; ``condition``: by key, N rows each. -> scores (N,)."""
        candidate = candidate.contiguous(memory_format=torch.channels_last)
        h = _rectified(self.from_image[self.level](candidate))
        for level in reversed(range(self.level)):
            h = self.blocks[level](h)
            if self.is_fading and level == self.level - 1:
                h = self.mixed(_rectified(self.from_image[level](F.avg_pool2d(candidate, 2))), h)
        h = _rectified(self.conv(self.deviation(h)))
        return self.head(_rectified(self.hidden(h.flatten(1))), condition)


def _rectified(h: Tensor) -> Tensor:
    return F.leaky_relu(h, _SLOPE)


def _doubled(h: Tensor) -> Tensor:
    return F.interpolate(h, scale_factor=2)


def _equalized(layer: nn.Module) -> nn.Module:
    """A linear layer with an equalized learning rate; embeddings keep theirs, and inner products with them start at
    unit variance."""
    if isinstance(layer, nn.Linear):
        return EqualizedLinear(layer.in_features, layer.out_features)
    assert isinstance(layer, nn.Embedding)
    nn.init.normal_(layer.weight, std=layer.embedding_dim**-0.5)
    return layer


def _widths(shape: Sequence[int], channels: int, max_channels: int) -> list[int]:
    """Feature maps of each resolution of images (C, H, W), the coarsest first."""
    _, height, width = shape
    doublings = max(0, round(math.log2(max(height, width) / _SMALLEST)))
    side = _SMALLEST * 2**doublings
    if (height, width) != (side, side):
        raise ImageSizeError(
            f"this network grows from 4x4 by doubling, so images must be squares with a side of 4, 8, 16, 32, 64, 128 "
            f"and so on, got {height}x{width}.",
            side,
        )
    if channels < 1 or max_channels < channels:
        raise ValueError(f"channels={channels} must be >= 1, and max_channels={max_channels} no fewer.")
    return [min(max_channels, channels * 2**i) for i in reversed(range(doublings + 1))]

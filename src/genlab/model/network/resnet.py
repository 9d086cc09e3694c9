"""A residual feature network for small images: He et al. (2016, arXiv:1603.05027), with group norm."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResNet(nn.Module):
    """Pre-activation blocks in stages, each of which but the first halves the resolution; features of every stage.

    The norm is of groups of channels (Wu and He 2018): it does not depend on the batch and has no statistics, so it
    suits averaged weights and few examples on each of many devices. Features are of every stage, not of the last alone:
    those of a classifier's last layer come near to one point a class (Papyan et al. 2020), which
    hardly distinguish images of one class.
    """

    def __init__(
        self,
        shape: Sequence[int],  # of an image: (C, H, W), of any size
        channels: int = 32,  # of the first stage
        channel_mult: Sequence[int] = (1, 2, 4),  # of the channels, one for each stage
        num_blocks: int = 1,  # of two convolutions each, in every stage
    ):
        """Raises ValueError: channels that cannot be split into groups of 8, or no stage, no block."""
        super().__init__()
        if channels < 8 or channels % 8 or num_blocks < 1 or not channel_mult or min(channel_mult) < 1:
            raise ValueError(
                f"channels={channels} must be a multiple of 8, num_blocks={num_blocks} and each of "
                f"channel_mult={list(channel_mult)} 1 or more."
            )
        widths = [channels * mult for mult in channel_mult]
        self.num_blocks, self.num_features = num_blocks, sum(widths)
        self.stem = _conv(shape[0], channels)
        self.blocks, self.norms = nn.ModuleList(), nn.ModuleList()
        current = channels
        for stage, width in enumerate(widths):
            for block in range(num_blocks):
                self.blocks.append(Block(current, width, stride=2 if stage > 0 and block == 0 else 1))
                current = width
            self.norms.append(_norm(width))

    def forward(self, image: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> (N, num_features), none below 0: means over the places of a map."""
        x = self.stem(image)
        pooled: list[Tensor] = []
        for count, block in enumerate(self.blocks, start=1):
            x = block(x)
            if count % self.num_blocks == 0:  # the end of a stage
                norm = self.norms[len(pooled)]
                pooled.append(F.relu(norm(x)).mean(dim=(2, 3)))
        return torch.cat(pooled, dim=1)


class Block(nn.Module):
    """Twice norm, ReLU and convolution, beside a shortcut; at first the shortcut alone."""

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        self.norm1, self.conv1 = _norm(channels), _conv(channels, width, stride)
        self.norm2, self.conv2 = _norm(width), _conv(width, width)
        nn.init.zeros_(self.conv2.weight)
        is_plain = channels == width and stride == 1
        self.shortcut = None if is_plain else nn.Conv2d(channels, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> (N, width, H / stride, W / stride), rounded up."""
        h = F.relu(self.norm1(x))
        if self.shortcut is not None:
            x = self.shortcut(h)
        return x + self.conv2(F.relu(self.norm2(self.conv1(h))))


def _norm(channels: int) -> nn.Module:
    return nn.GroupNorm(channels // 8, channels)


def _conv(channels: int, width: int, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv

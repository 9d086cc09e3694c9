"""Building blocks of GANs' residual networks: blocks that resample, and how many of them an image needs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from genlab.model.condition_kind import Label, Numbers
from genlab.model.network.embedding import CaptionEmbedding, ConditionEmbedding, NumbersEmbedding, Told
from genlab.model.network.image_size import ImageSizeError

Wrap = Callable[[nn.Module], nn.Module]  # around every layer with weights, see layer_maker


def smallest_map(shape: Sequence[int], least: int = 4) -> tuple[tuple[int, int], int]:
    """((h, w), halvings): the size of an image (C, H, W) halved as often as leaves sides of at least ``least``.

    Raises:
        ValueError: the sides cannot be halved to at most twice ``least``, so the smallest map would be large.
    """
    _, height, width = shape
    halvings = 0
    while height % 2 == 0 and width % 2 == 0 and min(height, width) // 2 >= least:
        height, width, halvings = height // 2, width // 2, halvings + 1
    if halvings == 0 or min(height, width) >= 2 * least:
        raise ImageSizeError(
            f"this network needs images that can be halved down to about {least}x{least}, got {shape[1]}x{shape[2]}: "
            "a side like 16, 24, 32, 48, 64, 96 or 128.",
            64,
        )
    return (height, width), halvings


def layer_maker(initialize: Callable[[Tensor], Any], use_spectral_norm: bool = False) -> Wrap:
    """Gives a layer its first weights, zero biases and, if asked to, spectral normalization (Miyato et al. 2018)."""

    def wrap(layer: nn.Module) -> nn.Module:
        assert isinstance(layer.weight, Tensor)
        initialize(layer.weight)
        if isinstance(bias := getattr(layer, "bias", None), Tensor):
            nn.init.zeros_(bias)
        return spectral_norm(layer) if use_spectral_norm else layer

    return wrap


def faint_conditions(told: Told, width: int) -> ConditionEmbedding | None:
    """Condition embeddings that start near 0: large ones dominate the noise, and every class collapses to one image.
    None without conditions."""
    if not told:
        return None
    vectors = ConditionEmbedding(told, width)
    vectors.start_at(0.02)
    return vectors


class ConditionalBatchNorm(nn.Module):
    """Batch norm whose gain and bias are linear in a vector of each example (de Vries et al. 2017); plain without."""

    def __init__(self, channels: int, embedding_width: int, wrap: Wrap):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=embedding_width == 0)
        self.gain = wrap(nn.Linear(embedding_width, channels, bias=False)) if embedding_width else None
        self.bias = wrap(nn.Linear(embedding_width, channels, bias=False)) if embedding_width else None

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        """(N, channels, H, W), (N, embedding_width) -> (N, channels, H, W)."""
        x = self.norm(x)
        if self.gain is None or self.bias is None:
            return x
        return torch.addcmul(self.bias(embedding)[:, :, None, None], x, 1 + self.gain(embedding)[:, :, None, None])


class GeneratorBlock(nn.Module):
    """Twice the resolution: two convolutions behind (conditional) batch norms, and a shortcut (Miyato et al. 2018)."""

    def __init__(self, in_channels: int, channels: int, embedding_width: int, wrap: Wrap):
        super().__init__()
        self.norm1 = ConditionalBatchNorm(in_channels, embedding_width, wrap)
        self.conv1 = wrap(nn.Conv2d(in_channels, channels, 3, padding=1))
        self.norm2 = ConditionalBatchNorm(channels, embedding_width, wrap)
        self.conv2 = wrap(nn.Conv2d(channels, channels, 3, padding=1))
        self.shortcut = wrap(nn.Conv2d(in_channels, channels, 1))

    def embedding_weights(self) -> list[Tensor]:
        """Of all maps of the embedding, (channels, embedding_width) each."""
        norms = (self.norm1, self.norm2)
        layers = [layer for norm in norms for layer in (norm.gain, norm.bias) if layer is not None]
        return [weight for layer in layers if isinstance(weight := layer.weight, Tensor)]

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        """(N, in_channels, H, W), (N, embedding_width) -> (N, channels, 2H, 2W)."""
        h = self.conv1(F.interpolate(F.relu(self.norm1(x, embedding)), scale_factor=2))
        h = self.conv2(F.relu(self.norm2(h, embedding)))
        return h + F.interpolate(self.shortcut(x), scale_factor=2)


class DiscriminatorBlock(nn.Module):
    """Two convolutions and a shortcut, then half the resolution if asked to. The first block of all sees pixels."""

    def __init__(self, in_channels: int, channels: int, downsample: bool, wrap: Wrap, is_first: bool = False):
        super().__init__()
        self.is_first = is_first
        self.conv1 = wrap(nn.Conv2d(in_channels, channels, 3, padding=1))
        self.conv2 = wrap(nn.Conv2d(channels, channels, 3, padding=1))
        needs_shortcut = in_channels != channels or downsample
        self.shortcut = wrap(nn.Conv2d(in_channels, channels, 1)) if needs_shortcut else nn.Identity()
        self.pool = nn.AvgPool2d(2) if downsample else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, channels, H, W), or (N, channels, H/2, W/2)."""
        h = self.conv2(F.relu(self.conv1(x if self.is_first else F.relu(x))))
        if self.is_first:
            return self.pool(h) + self.shortcut(self.pool(x))
        return self.pool(h) + self.pool(self.shortcut(x))


class ProjectionHead(nn.Module):
    """Features to scores: a linear part, and the inner product with a vector of each key of the condition (Miyato and
    Koyama 2018)."""

    def __init__(self, width: int, told: Told, wrap: Wrap):
        super().__init__()
        self.linear = wrap(nn.Linear(width, 1))
        self.told = nn.ModuleDict()
        for key, kind in told.items():
            if isinstance(kind, Label):
                self.told[key] = wrap(nn.Embedding(kind.size + 1, width))
            elif isinstance(kind, Numbers):
                numbers = NumbersEmbedding(kind.size, width)
                numbers.hidden, numbers.out = wrap(numbers.hidden), wrap(numbers.out)  # type: ignore[assignment]
                self.told[key] = numbers
            else:
                caption = CaptionEmbedding(kind.size, kind.length, width)
                caption.out = wrap(caption.out)  # type: ignore[assignment]
                self.told[key] = caption

    def forward(self, features: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        """(N, width) -> (N,)."""
        scores = self.linear(features)[:, 0]
        for key, embed in self.told.items():
            value = None if condition is None else condition.get(key)
            if isinstance(embed, CaptionEmbedding | NumbersEmbedding):
                vector = embed(value)
            else:
                label = features.new_full((len(features),), -1, dtype=torch.long) if value is None else value
                vector = embed(label + 1)
            scores = scores + (vector * features).sum(dim=1)
        return scores

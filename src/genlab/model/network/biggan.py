"""The networks of BigGAN (Brock et al. 2019, appendix B), at sizes that suit small images too."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.model.network.embedding import Told
from genlab.model.network.gan_blocks import (
    DiscriminatorBlock,
    GeneratorBlock,
    ProjectionHead,
    Wrap,
    faint_conditions,
    layer_maker,
    smallest_map,
)


class BigGANGenerator(nn.Module):
    """Residual blocks from about 4x4 up. The noise is cut into chunks, one for the stem and one for each block, where
    it joins the shared vector of the condition in the gains and biases of the batch norms."""

    def __init__(
        self,
        shape: Sequence[int],  # of an image: (C, H, W)
        told: Told,  # the conditions by key
        latent_dim: int,  # is rounded down to a multiple of the chunks
        channels: int = 64,  # times channel_mult
        channel_mult: Sequence[int] = (4, 4, 4, 4),  # from the coarsest feature map to the finest
        attention_resolutions: Sequence[int] = (16,),  # heights of feature maps that get attention, if they occur
        shared_width: int = 128,  # of a condition's vector
    ):
        """Raises ValueError if the sides cannot be halved down to about 4, or ``channel_mult`` is too short."""
        super().__init__()
        (height, width), doublings = smallest_map(shape)
        wrap = layer_maker(nn.init.orthogonal_, use_spectral_norm=True)
        widths = [channels * mult for mult in _last(channel_mult, doublings + 1)]
        self.latent_dim, self.chunk = latent_dim, latent_dim // (doublings + 1)
        if self.chunk == 0:
            raise ValueError(
                f"model.latent_dim={latent_dim} must be at least {doublings + 1}, a number for each block."
            )
        self.told = faint_conditions(told, shared_width)
        embedding_width = self.chunk + shared_width * len(told)
        self.stem = wrap(nn.Linear(self.chunk, widths[0] * height * width))
        self.unflatten = nn.Unflatten(1, (widths[0], height, width))
        self.blocks, self.attentions = nn.ModuleList(), nn.ModuleList()
        for before, after in pairwise(widths):
            height *= 2
            self.blocks.append(GeneratorBlock(before, after, embedding_width, wrap))
            self.attentions.append(_attention(after, height, attention_resolutions, wrap))
        self.out_norm = nn.BatchNorm2d(widths[-1])
        self.out = wrap(nn.Conv2d(widths[-1], shape[0], 3, padding=1))

    def latent_maps(self) -> Tensor:
        """(outputs, latent_dim): each map has its own part of the noise."""
        maps = [self.stem.weight]
        for block in self.blocks:
            maps.append(torch.cat([weight[:, -self.chunk :] for weight in block.embedding_weights()]))  # type: ignore[operator]
        whole = torch.block_diag(*maps)
        return F.pad(whole, (0, self.latent_dim - whole.shape[1]))  # a rest that is not read

    def forward(self, noise: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        """``noise``: (N, latent_dim); ``condition``: by key, N rows each. -> (N, C, H, W) in [-1, 1]."""
        first, *chunks = noise.split(self.chunk, dim=1)[: len(self.blocks) + 1]
        shared = self.told.side_by_side(condition, len(noise)) if self.told is not None else noise[:, :0]
        h = self.unflatten(self.stem(first)).contiguous(memory_format=torch.channels_last)
        for block, attention, chunk in zip(self.blocks, self.attentions, chunks, strict=True):
            h = attention(block(h, torch.cat([shared, chunk], dim=1)))
        return torch.tanh(self.out(F.relu(self.out_norm(h))))


class BigGANDiscriminator(nn.Module):
    """Residual blocks down to 8x8, two more there, then a sum over pixels. Attention where it is asked for."""

    def __init__(
        self,
        shape: Sequence[int],  # of an image: (C, H, W)
        told: Told,  # the conditions by key
        channels: int = 64,  # times channel_mult
        channel_mult: Sequence[int] = (4, 4, 4, 4),  # from the finest feature map to the coarsest
        attention_resolutions: Sequence[int] = (16,),  # heights of feature maps that get attention, if they occur
        spectral_norm: bool = True,
    ):
        """Raises ValueError if the sides cannot be halved down to about 8, or ``channel_mult`` is too short."""
        super().__init__()
        (height, _), halvings = smallest_map(shape, least=8)
        wrap = layer_maker(nn.init.orthogonal_, spectral_norm)
        widths = [channels * mult for mult in _last(channel_mult, halvings + 2)]
        height *= 2**halvings
        self.blocks, self.attentions = nn.ModuleList(), nn.ModuleList()
        for i, (before, after) in enumerate(zip([shape[0], *widths], widths, strict=False)):
            height //= 2 if i < halvings else 1
            self.blocks.append(DiscriminatorBlock(before, after, i < halvings, wrap, is_first=i == 0))
            self.attentions.append(_attention(after, height, attention_resolutions if i < halvings else (), wrap))
        self.head = ProjectionHead(widths[-1], told, wrap)

    def forward(self, candidate: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        """``candidate``: (N, C, H, W); ``condition``: by key, N rows each. -> scores (N,)."""
        h = candidate.contiguous(memory_format=torch.channels_last)
        for block, attention in zip(self.blocks, self.attentions, strict=True):
            h = attention(block(h))
        features = F.relu(h).sum(dim=(2, 3))  # (N, width)
        return self.head(features, condition)


class MapAttention(nn.Module):
    """Self-attention over a feature map, keys and values at half its resolution (Zhang et al. 2019, section 3)."""

    def __init__(self, channels: int, wrap: Wrap):
        super().__init__()
        narrow, half = max(1, channels // 8), max(1, channels // 2)
        self.query = wrap(nn.Conv2d(channels, narrow, 1, bias=False))
        self.key = wrap(nn.Conv2d(channels, narrow, 1, bias=False))
        self.value = wrap(nn.Conv2d(channels, half, 1, bias=False))
        self.out = wrap(nn.Conv2d(half, channels, 1, bias=False))
        self.weight = nn.Parameter(torch.zeros(()))  # the map passes unchanged at first

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> like ``x``."""
        query = self.query(x).flatten(2).mT  # (N, H * W, narrow)
        key, value = (F.max_pool2d(layer(x), 2).flatten(2) for layer in (self.key, self.value))  # (N, c, H * W / 4)
        mixed = torch.softmax(query @ key, dim=2) @ value.mT  # (N, H * W, half)
        return x + self.weight * self.out(mixed.mT.unflatten(2, x.shape[2:]))


def _attention(channels: int, height: int, resolutions: Sequence[int], wrap: Wrap) -> nn.Module:
    return MapAttention(channels, wrap) if height in resolutions else nn.Identity()


def _last(mult: Sequence[int], count: int) -> Sequence[int]:
    """The ``count`` entries of ``channel_mult`` that an image of this size needs. Raises ValueError if it has fewer."""
    if len(mult) < count:
        raise ValueError(f"channel_mult has {len(mult)} entries; images of this size need {count}.")
    return mult[len(mult) - count :]

"""DCGAN (Radford et al. 2016): strided convolutions, batch norm, and no more."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from genlab.model.network.embedding import Told
from genlab.model.network.gan_blocks import ProjectionHead, faint_conditions, layer_maker, smallest_map

_WIDEST = 8  # times the channels at full resolution, as published
_initialize = partial(nn.init.normal_, std=0.02)  # section 3


class DCGANGenerator(nn.Module):
    """A linear layer, then transposed convolutions that double the resolution. Conditions are beside the noise."""

    def __init__(
        self,
        shape: Sequence[int],  # of an image: (C, H, W)
        told: Told,  # the conditions by key
        latent_dim: int,
        channels: int = 64,  # of the last feature map; each coarser one has twice as many, up to 8 times
        batch_norm: bool = True,
    ):
        """Raises ValueError if the sides cannot be halved down to about 4."""
        super().__init__()
        (height, width), doublings = smallest_map(shape)
        widths = [channels * min(_WIDEST, 2**i) for i in reversed(range(doublings))]
        wrap = layer_maker(_initialize)
        self.told = faint_conditions(told, latent_dim)
        self.latent_dim, inputs = latent_dim, latent_dim * (1 + len(told))
        self.stem = wrap(nn.Linear(inputs, widths[0] * height * width))
        self.unflatten = nn.Unflatten(1, (widths[0], height, width))
        self.blocks = nn.ModuleList()
        for before, after in zip(widths, [*widths[1:], shape[0]], strict=True):
            norm = nn.BatchNorm2d(before) if batch_norm else nn.Identity()
            up = wrap(nn.ConvTranspose2d(before, after, 4, stride=2, padding=1))
            self.blocks.append(nn.Sequential(norm, nn.ReLU(), up))

    def latent_maps(self) -> Tensor:
        """(outputs, latent_dim)."""
        weight = self.stem.weight
        assert isinstance(weight, Tensor)
        return weight[:, : self.latent_dim]

    def forward(self, noise: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        """``noise``: (N, latent_dim); ``condition``: by key, N rows each. -> (N, C, H, W) in [-1, 1]."""
        if self.told is not None:
            noise = torch.cat([noise, self.told.side_by_side(condition, len(noise))], dim=1)
        h = self.unflatten(self.stem(noise)).contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            h = block(h)
        return torch.tanh(h)


class DCGANDiscriminator(nn.Module):
    """Strided convolutions down to about 4x4, and a linear layer, with the condition's projection on its input."""

    def __init__(
        self,
        shape: Sequence[int],  # of an image: (C, H, W)
        told: Told,  # the conditions by key
        channels: int = 64,  # of the first feature map; each coarser one has twice as many, up to 8 times
        batch_norm: bool = True,  # not together with a gradient penalty, which is of each image by itself
        spectral_norm: bool = False,
    ):
        """Raises ValueError if the sides cannot be halved down to about 4."""
        super().__init__()
        (height, width), halvings = smallest_map(shape)
        widths = [channels * min(_WIDEST, 2**i) for i in range(halvings)]
        wrap = layer_maker(_initialize, spectral_norm)
        self.blocks = nn.ModuleList()
        for i, (before, after) in enumerate(zip([shape[0], *widths], widths, strict=False)):
            norm = nn.BatchNorm2d(after) if batch_norm and i > 0 else nn.Identity()
            down = wrap(nn.Conv2d(before, after, 4, stride=2, padding=1))
            self.blocks.append(nn.Sequential(down, norm, nn.LeakyReLU(0.2)))
        self.head = ProjectionHead(widths[-1] * height * width, told, wrap)

    def forward(self, candidate: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        """``candidate``: (N, C, H, W); ``condition``: by key, N rows each. -> scores (N,)."""
        h = candidate.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            h = block(h)
        return self.head(h.flatten(1), condition)

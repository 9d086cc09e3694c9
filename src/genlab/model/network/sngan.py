"""The residual networks of SNGAN (Miyato et al. 2018, table 4), with labels as in Miyato and Koyama (2018)."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.model.network.embedding import Told
from genlab.model.network.gan_blocks import (
    DiscriminatorBlock,
    GeneratorBlock,
    ProjectionHead,
    faint_conditions,
    layer_maker,
    smallest_map,
)


class SNGANGenerator(nn.Module):
    """Residual blocks from 4x4 up, all of one width. A condition sets the gains and biases of the batch norms."""

    def __init__(
        self,
        shape: Sequence[int],  # of an image: (C, H, W)
        told: Told,  # the conditions by key
        latent_dim: int,
        channels: int = 256,
    ):
        """Raises ValueError if the sides cannot be halved down to about 4."""
        super().__init__()
        (height, width), doublings = smallest_map(shape)
        embedding_width = channels * len(told)
        self.told = faint_conditions(told, channels)
        wrap = layer_maker(nn.init.xavier_uniform_)
        self.stem = wrap(nn.Linear(latent_dim, channels * height * width))
        self.unflatten = nn.Unflatten(1, (channels, height, width))
        self.blocks = nn.ModuleList(GeneratorBlock(channels, channels, embedding_width, wrap) for _ in range(doublings))
        self.out_norm = nn.BatchNorm2d(channels)
        self.out = wrap(nn.Conv2d(channels, shape[0], 3, padding=1))

    def latent_maps(self) -> Tensor:
        """(outputs, latent_dim)."""
        weight = self.stem.weight
        assert isinstance(weight, Tensor)
        return weight

    def forward(self, noise: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        """``noise``: (N, latent_dim); ``condition``: by key, N rows each. -> (N, C, H, W) in [-1, 1]."""
        embedding = self.told.side_by_side(condition, len(noise)) if self.told is not None else None
        h = self.unflatten(self.stem(noise)).contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            h = block(h, embedding)
        return torch.tanh(self.out(F.relu(self.out_norm(h))))


class SNGANDiscriminator(nn.Module):
    """Residual blocks down to 8x8, two more there, then a sum over pixels."""

    def __init__(
        self,
        shape: Sequence[int],  # of an image: (C, H, W)
        told: Told,  # the conditions by key
        channels: int = 128,
        spectral_norm: bool = True,
    ):
        """Raises ValueError if the sides cannot be halved down to about 8."""
        super().__init__()
        _, halvings = smallest_map(shape, least=8)
        wrap = layer_maker(nn.init.xavier_uniform_, spectral_norm)
        self.blocks = nn.ModuleList()
        for i in range(halvings + 2):
            before = shape[0] if i == 0 else channels
            self.blocks.append(DiscriminatorBlock(before, channels, i < halvings, wrap, is_first=i == 0))
        self.head = ProjectionHead(channels, told, wrap)

    def forward(self, candidate: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        """``candidate``: (N, C, H, W); ``condition``: by key, N rows each. -> scores (N,)."""
        h = candidate.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            h = block(h)
        features = F.relu(h).sum(dim=(2, 3))  # (N, channels)
        return self.head(features, condition)

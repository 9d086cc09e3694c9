"""A perceptron as a denoiser: for data of few dimensions, such as points in a plane stored as (2, 1, 1)."""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.model.network.embedding import ConditionEmbedding, NoiseLevelEmbedding, Told


class MLP(nn.Module):
    """Residual blocks over the flattened example, scaled and shifted by the embedding (FiLM, Perez et al. 2018)."""

    def __init__(
        self,
        shape: Sequence[int],  # of an example: (C, H, W)
        told: Told,  # the conditions by key
        width: int = 128,
        depth: int = 3,  # blocks
        num_frequencies: int = 5,  # sinusoids of every coordinate as further inputs: 1, 2, 4 ... radians a unit
        dropout: float = 0.0,  # of what each block adds
    ):
        """Sinusoids of the input let a perceptron resolve detail much finer than the data (Tancik et al. 2020), which
        is what a denoiser needs at low noise."""
        super().__init__()
        self.noise_level = NoiseLevelEmbedding(width, width)
        self.told = ConditionEmbedding(told, width) if told else None
        self.num_frequencies = num_frequencies
        self.stem = nn.Linear(math.prod(shape) * (1 + 2 * num_frequencies), width)
        self.blocks = nn.ModuleList(Block(width, dropout) for _ in range(depth))
        self.out = nn.Linear(width, math.prod(shape))
        nn.init.zeros_(self.out.weight)  # an untrained network predicts the mean, 0
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, noise_level: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        """``x``: (N, C, H, W); ``noise_level``: (N,); ``condition``: by key, N rows each. -> (N, C, H, W)."""
        embedding = self.noise_level(noise_level)  # (N, width)
        if self.told is not None:
            embedding = embedding + self.told(condition)
        embedding = F.silu(embedding)
        points = x.flatten(1)  # (N, C * H * W)
        angles = [2.0**k * points for k in range(self.num_frequencies)]
        features = torch.cat([points, *(f(a) for a in angles for f in (torch.sin, torch.cos))], dim=1)
        h = self.stem(features.to(self.stem.weight.dtype))  # (N, width)
        for block in self.blocks:
            h = block(h, embedding)
        return self.out(F.silu(h)).unflatten(1, x.shape[1:])


class Block(nn.Module):
    """What the embedding says of a hidden layer, added to the input."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.modulation = nn.Linear(width, 2 * width)
        self.hidden = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(N, width), (N, width) -> (N, width)."""
        scale, shift = self.modulation(embedding).chunk(2, dim=1)
        h = torch.addcmul(shift, self.hidden(F.silu(x)), 1 + scale)
        return x + self.dropout(self.out(F.silu(h)))

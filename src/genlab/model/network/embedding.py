"""What a denoiser is told beside the image, as vectors: how noisy it is, and what it should show."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NoiseLevelEmbedding(nn.Module):
    """Sinusoids of the noise level, then a two-layer perceptron (Ho et al. 2020, appendix B).

    The published features belong to time steps 0 to 1000, so the level, which is of the order of 1, is scaled by 1000:
    for DDPM's ``noise_level`` = t / T they are the published ones.
    """

    def __init__(self, num_features: int, width: int):
        super().__init__()
        self.num_features = num_features
        self.hidden = nn.Linear(num_features, width)
        self.out = nn.Linear(width, width)

    def forward(self, noise_level: Tensor) -> Tensor:
        """(N,) -> (N, width)."""
        features = sinusoids(1000 * noise_level.float(), self.num_features)
        return self.out(F.silu(self.hidden(features.to(self.hidden.weight.dtype))))


class LabelEmbedding(nn.Module):
    """One vector for each class. Row 0 is the one for "no label", class i has row i + 1."""

    def __init__(self, num_classes: int, width: int):
        super().__init__()
        self.rows = nn.Embedding(num_classes + 1, width)

    def forward(self, condition: Mapping[str, Tensor] | None) -> Tensor:
        """``condition["label"]``: (N,), -1 for "no label"; without a condition nobody has one. -> (N or 1, width)."""
        if condition is None:
            return self.rows.weight[:1]  # broadcasts over the batch
        return self.rows(condition["label"] + 1)


def sinusoids(position: Tensor, num_features: int) -> Tensor:
    """Cosines, then sines, of frequencies from 1 to 1/10000 in geometric steps. (N,) -> (N, num_features)."""
    half = num_features // 2
    exponents = torch.arange(half, device=position.device, dtype=position.dtype) / half
    angles = position[:, None] * torch.exp(-math.log(10000) * exponents)  # (N, half)
    return torch.cat([angles.cos(), angles.sin()], dim=1)

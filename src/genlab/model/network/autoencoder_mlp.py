"""Perceptrons between images and latents, for small images and for tests of the mathematics."""

import math
from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from genlab.model.network.embedding import NO_LABEL, ConditionEmbedding, Told
from genlab.model.network.mlp import Block

Activation = nn.ReLU | nn.SiLU | nn.GELU | nn.Tanh


class MLPEncoder(nn.Module):
    """Flattened images to the parameters of their latents."""

    def __init__(
        self,
        shape: Sequence[int],  # of an image: (C, H, W)
        latent_shape: Sequence[int],  # (Z, h, w); a vector is (Z, 1, 1)
        told: Told,  # the conditions by key
        out_channels: int,  # for each place of the latent
        width: int = 256,
        depth: int = 2,  # blocks
        dropout: float = 0.0,
        activation: Activation | None = None,  # of the first and the last layer; None: SiLU
        nonnegative: bool = False,  # pixels reach the first layer in [0, 1] rather than in [-1, 1]
    ):
        super().__init__()
        self.nonnegative = nonnegative
        self.perceptron = Perceptron(shape, (out_channels, *latent_shape[1:]), told, width, depth, dropout, activation)

    def forward(self, image: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        """``image``: (N, C, H, W) in [-1, 1]; ``condition``: by key, N rows each. -> (N, out_channels, h, w)."""
        if self.nonnegative:
            image = (image + 1) / 2
        return self.perceptron(image, condition)


class MLPDecoder(nn.Module):
    """Latents to images, or to the parameters of their distribution."""

    def __init__(
        self,
        shape: Sequence[int],  # of an image: (C, H, W)
        latent_shape: Sequence[int],  # (Z, h, w); a vector is (Z, 1, 1)
        told: Told,  # the conditions by key
        out_channels: int,  # for each pixel
        width: int = 256,
        depth: int = 2,  # blocks
        dropout: float = 0.0,
        activation: Activation | None = None,  # of the first and the last layer; None: SiLU
    ):
        super().__init__()
        self.perceptron = Perceptron(latent_shape, (out_channels, *shape[1:]), told, width, depth, dropout, activation)

    def latent_maps(self) -> Tensor:
        """(width, Z h w)."""
        return self.perceptron.stem.weight

    def forward(self, latent: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        """``latent``: (N, Z, h, w); ``condition``: by key, N rows each. -> (N, out_channels, H, W)."""
        return self.perceptron(latent, condition)


class Perceptron(nn.Module):
    """Residual blocks from one shape to another, conditioned."""

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        told: Told,
        width: int,
        depth: int,
        dropout: float,
        activation: Activation | None,
    ):
        super().__init__()
        self.out_shape = tuple(out_shape)
        self.activation = activation or nn.SiLU()
        self.told = ConditionEmbedding(told or NO_LABEL, width)
        self.stem = nn.Linear(math.prod(in_shape), width)
        self.blocks = nn.ModuleList(Block(width, dropout) for _ in range(depth))
        self.out = nn.Linear(width, math.prod(out_shape))

    def forward(self, x: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        """(N, *in_shape) -> (N, *out_shape)."""
        embedding = F.silu(self.told(condition))  # (N or 1, width)
        h = self.stem(x.flatten(1).to(self.stem.weight.dtype))  # (N, width)
        for block in self.blocks:
            h = block(h, embedding)
        return self.out(self.activation(h)).unflatten(1, self.out_shape)

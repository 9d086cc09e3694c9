"""From nats over continuous data to bits per dimension of 8-bit images, the unit in which likelihoods are compared."""

import math

import torch
from torch import Tensor

from genlab.model.base import Condition, HasLikelihood
from genlab.seeding import RandomStream


def bits_per_dim(model: HasLikelihood, pixels: Tensor, condition: Condition | None, generator: RandomStream) -> Tensor:
    """Bits for each dimension of each image of ``pixels`` (N, C, H, W) uint8. -> (N,).

    Pixels are dequantised with uniform noise, so in expectation this bounds the discrete likelihood from above (Theis
    et al. 2016, section 3.1).
    """
    nats = model.log_likelihood(dequantise(pixels, generator), condition)
    return nats_to_bits_per_dim(nats, pixels[0].numel())


def dequantise(pixels: Tensor, generator: RandomStream) -> Tensor:
    """uint8 (N, C, H, W) plus uniform noise, from [0, 256) to [-1, 1) float32."""
    return (pixels.to(torch.float32) + generator.rand(*pixels.shape[1:])) / 128 - 1


def nats_to_bits_per_dim(nats: Tensor, dimensions: int) -> Tensor:
    """``nats``: log-density (N,) on [-1, 1], where 256 levels lie 1/128 apart: 7 bits more per dimension. -> (N,)."""
    return 7 - nats / (dimensions * math.log(2))


def bits_to_nats(bits: float, dimensions: int, levels: int) -> float:
    """Bits per dimension of 256 levels -> nats an image of fewer, equally wide ``levels``, whose likelihood the density
    is spread over evenly: a model of 2 levels pays 7 bits for each dimension to name one of the 128 in its bin."""
    return (bits - math.log2(256 / levels)) * dimensions * math.log(2)


def as_density(log_prob: Tensor, levels: int | None, dimensions: int) -> Tensor:
    """Nats of a discrete distribution over ``levels`` grey levels as those of a density on [-1, 1) that is constant on
    each of their bins; of a density already (levels None), as they are. (N,) -> (N,)."""
    return log_prob if levels is None else log_prob + dimensions * math.log(levels / 2)


def quantised(x: Tensor) -> Tensor:
    """Images on [-1, 1], dequantised or not, at the 256 values that batches hold: pixel p at p / 127.5 - 1."""
    return ((x + 1) * 128).floor().clamp(0, 255) / 127.5 - 1

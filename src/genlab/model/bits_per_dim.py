"""Converts nats over continuous data to bits per dimension of 8-bit images."""

import math

import torch
from torch import Tensor

from genlab.model.base import Condition, HasLikelihood
from genlab.seeding import RandomStream

_STRETCH = 256 / 255  # from cells 1/128 wide, which tile [-1, 1], to levels that lie 1/127.5 apart, from -1 to 1


def bits_per_dim(model: HasLikelihood, pixels: Tensor, condition: Condition | None, generator: RandomStream) -> Tensor:
    """Bits for each dimension of each image of ``pixels`` (N, C, H, W) uint8. -> (N,).

    Pixels are dequantized with uniform noise, so the bits of a density bound those of the discrete likelihood from
    above, in expectation (Theis et al. 2016, section 3.1). A density that is constant on each level's cell is that
    likelihood itself.
    """
    nats = model.log_likelihood(dequantize(pixels, generator), condition)
    return nats_to_bits_per_dim(nats, pixels[0].numel())


def dequantize(pixels: Tensor, generator: RandomStream) -> Tensor:
    """uint8 (N, C, H, W) plus uniform noise, from [0, 256) to [-1, 1) float32."""
    return (pixels.to(torch.float32) + generator.rand(*pixels.shape[1:])) / 128 - 1


def nats_to_bits_per_dim(nats: Tensor, dimensions: int) -> Tensor:
    """``nats``: log-density (N,) on [-1, 1], where 256 levels lie 1/128 apart: 7 bits more per dimension. -> (N,)."""
    return 7 - nats / (dimensions * math.log(2))


def bits_to_nats(bits: float, dimensions: int, levels: int) -> float:
    """Bits per dimension of 256 levels -> nats an image of fewer, equally wide ``levels``, whose likelihood the density
    is spread over evenly: a model of 2 levels pays 7 bits for each dimension to name one of the 128 in its bin."""
    return (bits - math.log2(256 / levels)) * dimensions * math.log(2)


def on_batch_scale(x: Tensor, levels: int | None) -> Tensor:
    """Dequantized images, whose level p fills [p, p + 1) / 128 - 1, as a model of batches takes them, which hold level
    p at p / 127.5 - 1. (N, C, H, W) -> the same shape.

    For a distribution over gray levels these are the levels themselves; for a density (``levels`` None) the cells are
    stretched, so that the middle of each lies where training had its level.
    """
    return x * _STRETCH if levels is None else quantized(x)


def as_density(log_prob: Tensor, levels: int | None, dimensions: int) -> Tensor:
    """Nats of :func:`on_batch_scale` as those of a density over dequantized images on [-1, 1). (N,) -> (N,).

    That of a discrete distribution over ``levels`` gray levels is constant on each of their bins; a density (``levels``
    None) is higher by the stretch of each of the ``dimensions``.
    """
    return log_prob + dimensions * math.log(_STRETCH if levels is None else levels / 2)


def quantized(x: Tensor) -> Tensor:
    """Images on [-1, 1], dequantized or not, at the 256 values that batches hold: pixel p at p / 127.5 - 1."""
    return ((x + 1) * 128).floor().clamp(0, 255) / 127.5 - 1

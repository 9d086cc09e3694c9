"""Mean and covariance of a stream of vectors, in parts that merge exactly (Chan et al. 1979)."""

from typing import NamedTuple

import torch
from torch import Tensor


class Moments(NamedTuple):
    """Moments of P parts of a set of D-dimensional vectors, float64."""

    total: Tensor  # (P,)
    mean: Tensor  # (P, D)
    scatter: Tensor  # (P, D, D): sum of (x - mean)(x - mean)^T


def moments_of(x: Tensor) -> Moments:
    """The moments of the rows of ``x`` (N, D), N >= 1, as one part."""
    x = x.double()
    mean = x.mean(dim=0)
    centered = x - mean
    return Moments(x.new_tensor([len(x)]), mean[None], (centered.T @ centered)[None])


def no_moments(x: Tensor) -> Moments:
    """No parts, of vectors like the rows of ``x`` (N, D)."""
    x = x.double()
    dims = x.shape[1]
    return Moments(x.new_empty(0), x.new_empty(0, dims), x.new_empty(0, dims, dims))


def concatenate(*moments: Moments) -> Moments:
    """All their parts, side by side."""
    return Moments(*(torch.cat(tensors) for tensors in zip(*moments, strict=True)))


def merge(moments: Moments) -> Moments:
    """P parts to one: the pairwise update of Chan et al. (1979, eq. 2.1), for all the parts at once."""
    total = moments.total.sum(dim=0, keepdim=True)
    mean = (moments.total @ moments.mean / total)[None]
    offset = (moments.mean - mean) * moments.total.sqrt()[:, None]  # (P, D)
    return Moments(total, mean, moments.scatter.sum(dim=0, keepdim=True) + offset.T @ offset)

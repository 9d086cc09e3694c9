"""Broadcasts one number per example to tensors of any shape."""

from torch import Tensor


def beside(values: Tensor, x: Tensor) -> Tensor:
    """``values`` (N,), shaped (N, 1, ...) so that they multiply ``x`` (N, ...) example by example."""
    return values.view(-1, *[1] * (x.ndim - 1))

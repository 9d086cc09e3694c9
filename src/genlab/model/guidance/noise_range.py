"""The noise levels at which samples are guided (Kynkäänniemi et al. 2024)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]  # D(x; sigma): (N, ...), (N,) -> (N, ...)


class NoiseRange:
    """Guided where ``low`` <= sigma <= ``high``, else not."""

    def __init__(self, low: float, high: float):
        """Raises ValueError if no noise level lies between the ends."""
        if not 0 <= low <= high:
            raise ValueError(f"model.guidance.low={low} and high={high}: use noise levels with 0 <= low <= high.")
        self.low, self.high = low, high

    def within(self, guided: Denoiser, plain: Denoiser) -> Denoiser:
        """``guided`` inside of the range, ``plain`` outside of it, row by row. What no row needs is not called."""
        if (self.low, self.high) == (0, math.inf):
            return guided

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            inside = (self.low <= sigma) & (sigma <= self.high)
            if inside.all():
                return guided(x, sigma)
            if not inside.any():
                return plain(x, sigma)
            return torch.where(inside.view(-1, *[1] * (x.ndim - 1)), guided(x, sigma), plain(x, sigma))

        return denoise

"""Finite scalar quantization."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class FSQ(nn.Module):
    """Finite scalar quantization (Mentzer et al. 2024, section 3): each of the Z numbers is squashed and rounded to one
    of its few levels, and the product of the levels is the codebook. There is no learned codebook and no dead code."""

    def __init__(
        self,
        latent_shape: Sequence[int],  # (Z, h, w)
        levels: Sequence[int] = (8, 5, 5, 5),  # of each of the Z numbers; each at least 2
    ):
        """Raises ValueError: not Z levels, or fewer than 2 of one."""
        super().__init__()
        if len(levels) != latent_shape[0] or min(levels) < 2:
            raise ValueError(
                f"model.quantizer.levels={list(levels)} must be {latent_shape[0]} whole numbers >= 2, one for each of "
                "the first entry of model.latent_shape."
            )
        self.num_codes = math.prod(levels)
        self.levels: Tensor
        self.strides: Tensor
        steps = [math.prod(levels[:i]) for i in range(len(levels))]
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        self.register_buffer("strides", torch.tensor(steps), persistent=False)

    def encode(self, z: Tensor) -> Tensor:
        """(N, Z, h, w) -> (N, h, w) int64, in [0, product of the levels)."""
        digits = self._rounded(z).movedim(1, -1) + self.levels // 2  # (N, h, w, Z), from 0
        return (digits.long() * self.strides).sum(dim=-1)

    def decode(self, codes: Tensor) -> Tensor:
        """(N, h, w) int64 -> (N, Z, h, w), each number in [-1, 1]."""
        digits = codes[..., None] // self.strides % self.levels
        return self._scaled((digits - self.levels // 2).movedim(-1, 1).float())

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, Z, h, w) -> the quantized numbers in [-1, 1], whose gradient goes straight through the rounding; a loss
        of 0; and the codes (N, h, w)."""
        bounded = self._bounded(z)
        rounded = bounded + (bounded.round() - bounded).detach()
        return self._scaled(rounded), z.new_zeros(()), self.encode(z)

    def update(self, z: Tensor, codes: Tensor) -> None:
        """Nothing to update."""

    def _bounded(self, z: Tensor) -> Tensor:
        """Into an interval around 0 (around -1/2 for an even count) that rounds to as many integers as there are levels
        (the paper's appendix A.1)."""
        levels = self.levels[:, None, None]
        half = (levels - 1) * (1 + 1e-3) / 2
        offset = torch.where(levels % 2 == 0, 0.5, 0.0)
        return (z.float() + (offset / half).atanh()).tanh() * half - offset

    def _rounded(self, z: Tensor) -> Tensor:
        return self._bounded(z).round()

    def _scaled(self, rounded: Tensor) -> Tensor:
        """Integers around 0 into [-1, 1]."""
        return rounded / (self.levels // 2)[:, None, None]

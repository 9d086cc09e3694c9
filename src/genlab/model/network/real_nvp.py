"""RealNVP with perceptrons (Dinh et al. 2017): a normalizing flow for data of few dimensions."""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.model.network.embedding import ConditionEmbedding, Told


class RealNVP(nn.Module):
    """Affine couplings over the flattened example; the coordinates that are kept alternate (section 3.4)."""

    def __init__(
        self,
        shape: Sequence[int],  # of an example: (C, H, W), of at least two numbers
        told: Told,  # the conditions by key
        width: int = 256,  # of the hidden layers
        depth: int = 12,  # couplings
        num_frequencies: int = 0,  # sinusoids of every coordinate as further inputs: 1, 2, 4 ... radians a unit
        max_log_scale: float = 2.0,  # of one coupling, either way: what keeps the inverse exact
    ):
        """For data of two numbers, sinusoids let a coupling bend the plane in fine detail (Tancik et al. 2020).

        Raises:
            ValueError: one number cannot be split in two.
        """
        super().__init__()
        num = math.prod(shape)
        if num < 2:
            raise ValueError("model/network=real_nvp needs data of at least two numbers. Use other data.")
        self.blocks = nn.ModuleList(
            Coupling(num, i % 2, told, width, num_frequencies, max_log_scale) for i in range(depth)
        )

    def forward(self, x: Tensor, condition: Mapping[str, Tensor] | None) -> tuple[Tensor, Tensor]:
        """Data to noise. ``x``: (N, C, H, W); ``condition``: by key, N rows each. -> noise like ``x``, and the
        logarithm of the Jacobian's determinant, (N,)."""
        z, log_det = x.flatten(1), x.new_zeros(len(x))
        for block in self.blocks:
            z, change = block(z, condition)
            log_det = log_det + change
        return z.view_as(x), log_det

    def inverse(self, z: Tensor, condition: Mapping[str, Tensor] | None, guidance: float = 1.0) -> Tensor:
        """Noise to data. ``z``: (N, C, H, W). -> like ``z``.

        ``guidance`` extrapolates every shift and log-scale from those of nothing told; 1 is the exact inverse of
        :meth:`forward`.
        """
        x = z.flatten(1)
        for block in reversed(self.blocks):
            x = block.inverse(x, condition, guidance)  # type: ignore[operator]
        return x.view_as(z)


class Coupling(nn.Module):
    """Every second coordinate is shifted and scaled by functions of the others (eq. 7 and 8)."""

    def __init__(self, num: int, parity: int, told: Told, width: int, num_frequencies: int, max_log_scale: float):
        super().__init__()
        kept = torch.arange(parity, num, 2)
        self.kept: Tensor
        self.moved: Tensor
        self.register_buffer("kept", kept, persistent=False)
        self.register_buffer("moved", torch.arange(1 - parity, num, 2), persistent=False)
        self.num_frequencies, self.max_log_scale = num_frequencies, max_log_scale
        self.told = ConditionEmbedding(told, width) if told else None
        self.stem = nn.Linear(len(kept) * (1 + 2 * num_frequencies), width)
        self.hidden = nn.Linear(width, width)
        self.out = nn.Linear(width, 2 * (num - len(kept)))
        nn.init.zeros_(self.out.weight)  # an untrained coupling is the identity
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, condition: Mapping[str, Tensor] | None) -> tuple[Tensor, Tensor]:
        """(N, D) -> (N, D), and the log-determinant (N,)."""
        shift, log_scale = self._affine(x[:, self.kept], condition)
        moved = (x[:, self.moved] - shift) * torch.exp(-log_scale)
        return x.index_copy(1, self.moved, moved), -log_scale.sum(dim=1)

    def inverse(self, z: Tensor, condition: Mapping[str, Tensor] | None, guidance: float) -> Tensor:
        """(N, D) -> (N, D)."""
        affine = self._affine(z[:, self.kept], condition)
        if guidance != 1 and condition is not None:
            free = self._affine(z[:, self.kept], None)
            affine = tuple(torch.lerp(u, c, guidance) for u, c in zip(free, affine, strict=True))
        shift, log_scale = affine
        return z.index_copy(1, self.moved, z[:, self.moved] * torch.exp(log_scale) + shift)

    def _affine(self, kept: Tensor, condition: Mapping[str, Tensor] | None) -> tuple[Tensor, ...]:
        angles = [2.0**k * kept for k in range(self.num_frequencies)]
        features = torch.cat([kept, *(f(a) for a in angles for f in (torch.sin, torch.cos))], dim=1)
        h = self.stem(features.to(self.stem.weight.dtype))
        if self.told is not None:
            h = h + self.told(condition)
        shift, raw = self.out(F.silu(self.hidden(F.silu(h)))).to(kept.dtype).chunk(2, dim=1)
        return shift, self.max_log_scale * torch.tanh(raw / self.max_log_scale)

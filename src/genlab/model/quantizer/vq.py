"""Vector quantization with a codebook of moving averages."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


class VQ(nn.Module):
    """Vector quantization with a codebook of moving averages (van den Oord et al. 2017, appendix A.1).

    A code that hardly any vector is assigned to is dead; it is moved onto a vector of the batch, chosen at random. So
    are, at the first update, all codes that are not in use. With several processes the statistics are those of all
    their batches together, and the codebook stays the same on each.
    """

    def __init__(
        self,
        latent_shape: Sequence[int],  # (Z, h, w); codes are Z numbers
        num_codes: int = 128,
        decay: float = 0.99,  # of the averages, at each update
        dead_below: float = 0.05,  # of a fair share of the vectors; 0: codes are never moved
    ):
        """Raises ValueError: no codes, or shares outside [0, 1)."""
        super().__init__()
        if num_codes < 1 or not (0 <= decay < 1 and 0 <= dead_below < 1):
            raise ValueError(
                f"num_codes={num_codes} must be >= 1, decay={decay} and dead_below={dead_below} in [0, 1)."
            )
        self.num_codes, self.decay, self.dead_below = num_codes, decay, dead_below
        self.codebook: Tensor
        self.counts: Tensor
        self.sums: Tensor
        self.register_buffer("codebook", torch.randn(num_codes, latent_shape[0]))  # (K, Z)
        self.register_buffer("counts", torch.zeros(num_codes))  # averages of the vectors assigned to each code
        self.register_buffer("sums", torch.zeros(num_codes, latent_shape[0]))  # and of their sums

    def encode(self, z: Tensor) -> Tensor:
        """The nearest code of each vector. (N, Z, h, w) -> (N, h, w) int64."""
        vectors = z.float().movedim(1, -1)  # (N, h, w, Z)
        squares = self.codebook.square().sum(dim=1)
        return (squares - 2 * vectors @ self.codebook.T).argmin(dim=-1)

    def decode(self, codes: Tensor) -> Tensor:
        """(N, h, w) int64 -> (N, Z, h, w)."""
        return F.embedding(codes, self.codebook).movedim(-1, 1)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, Z, h, w) -> the quantized vectors, whose gradient goes straight to ``z``; the commitment loss, the
        mean square distance of ``z`` to them (eq. 3, last term); and the codes (N, h, w)."""
        codes = self.encode(z)
        quantized = self.decode(codes)
        return z + (quantized - z).detach(), F.mse_loss(z, quantized.detach()), codes

    @torch.no_grad()
    def update(self, z: Tensor, codes: Tensor) -> None:
        """Move the codebook towards the vectors (N, Z, h, w) that it was given as ``codes`` (N, h, w)."""
        vectors = z.float().movedim(1, -1).flatten(0, -2)  # (M, Z)
        assigned = F.one_hot(codes.flatten(), self.num_codes).to(vectors.dtype)  # (M, K)
        statistics = torch.cat([assigned.sum(dim=0)[:, None], assigned.T @ vectors], dim=1)  # (K, 1 + Z)
        if dist.is_initialized():
            dist.all_reduce(statistics)
        self.counts.lerp_(statistics[:, 0], 1 - self.decay)
        self.sums.lerp_(statistics[:, 1:], 1 - self.decay)
        known = self.counts > 1e-12
        self.codebook.copy_(torch.where(known[:, None], self.sums / self.counts[:, None], self.codebook))
        self._revive(vectors)

    def _revive(self, vectors: Tensor) -> None:
        fair = self.counts.sum() / self.num_codes
        dead = self.counts < self.dead_below * fair
        chosen = vectors[torch.randint(len(vectors), (self.num_codes,), device=vectors.device)]  # (K, Z)
        if dist.is_initialized():
            dist.broadcast(chosen, src=0)  # each rank has other vectors, and noise of its own
        self.codebook.copy_(torch.where(dead[:, None], chosen, self.codebook))
        self.counts.copy_(torch.where(dead, fair, self.counts))  # time to find its vectors
        self.sums.copy_(torch.where(dead[:, None], chosen * fair, self.sums))

"""Position embeddings of transformers: learned vectors, or rotary."""

import torch
from torch import Tensor, nn


class Learned(nn.Module):
    """A learned vector for each position, added to the token's (GPT-2)."""

    def __init__(self, max_length: int, width: int, head_width: int):
        super().__init__()
        self.table = nn.Embedding(max_length, width)

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        """``x``: (N, T, width), ``positions``: (T,) or (N, T) -> like ``x``."""
        return x + self.table(positions)

    def turns(self, positions: Tensor) -> None:
        """Queries and keys stay as they are."""


class Rotary(nn.Module):
    """Pairs of channels of queries and keys, turned by an angle that grows with the position (Su et al. 2021, eq. 34).

    Channel i is paired with i + d / 2, as in Llama.
    """

    def __init__(self, max_length: int, width: int, head_width: int, base: float = 10_000.0):
        super().__init__()
        if head_width % 2:
            raise ValueError(f"rotary positions need an even width of heads, got {head_width}.")
        frequencies = base ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
        angles = torch.arange(max_length, dtype=torch.float64)[:, None] * frequencies  # (max_length, d / 2)
        cos, sin = angles.cos().float(), angles.sin().float()
        self.register_buffer("cos", torch.cat([cos, cos], dim=1), persistent=False)  # (max_length, d)
        self.register_buffer("sin", torch.cat([-sin, sin], dim=1), persistent=False)
        self.cos: Tensor
        self.sin: Tensor

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        return x

    def turns(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines for ``positions`` (T,) or (N, T): each (1 or N, 1, T, d), for all heads."""
        cos, sin = self.cos[positions], self.sin[positions]
        return (cos.unsqueeze(-3), sin.unsqueeze(-3)) if positions.dim() == 2 else (cos[None, None], sin[None, None])


def positions_within(segment: Tensor) -> Tensor:
    """(N, T) numbers of the sequences that rows hold one after the other -> (N, T), each token's place in its own."""
    places = torch.arange(segment.shape[1], device=segment.device)
    begins = torch.ones_like(segment, dtype=torch.bool)
    begins[:, 1:] = segment[:, 1:] != segment[:, :-1]
    return places - torch.where(begins, places, 0).cummax(dim=1).values


def within_segments(segment: Tensor, causal: bool) -> Tensor:
    """(N, T) -> (N, 1, T, T) bool: which tokens of its own sequence a token sees; causal: up to itself."""
    same = segment[:, :, None] == segment[:, None, :]
    return (same.tril() if causal else same)[:, None]


def turn(x: Tensor, turns: tuple[Tensor, Tensor] | None) -> Tensor:
    """Queries or keys (N, heads, T, d), turned by the angles of :meth:`Rotary.turns`."""
    if turns is None:
        return x
    cos, sin = (t.to(x.dtype) for t in turns)
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)

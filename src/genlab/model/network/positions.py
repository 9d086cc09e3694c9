"""Position embeddings of transformers: learned vectors, or rotary."""

import math
from typing import Protocol

import torch
from torch import Tensor, nn


class Learned(nn.Module):
    """A learned vector for each position, added to the token's (GPT-2)."""

    def __init__(
        self,
        max_length: int,
        width: int,
        head_width: int,
        length: int | None = None,  # positions that there are vectors for; None: those that are used
    ):
        """Raises ValueError: more positions are used than there are."""
        super().__init__()
        check_length(max_length, length)
        self.table = nn.Embedding(max_length if length is None else length, width)

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        """``x``: (N, T, width), ``positions``: (T,) or (N, T) -> like ``x``."""
        return x + self.table(positions)

    def turns(self, positions: Tensor) -> None:
        """Queries and keys stay as they are."""


class RotaryScaling(Protocol):
    """Slower turns, for contexts longer than those of a first training."""

    def scale(self, frequencies: Tensor) -> Tensor:
        """Radians a position, (d / 2,) float64 -> likewise."""
        ...


class LinearScaling:
    """All turns ``factor`` times as slow: position interpolation (Chen et al. 2023, arXiv:2306.15595)."""

    def __init__(self, factor: float):
        """Raises ValueError: ``factor`` is not above 0."""
        if factor <= 0:
            raise ValueError(f"factor={factor} must be above 0.")
        self.factor = factor

    def scale(self, frequencies: Tensor) -> Tensor:
        return frequencies / self.factor


class Llama3Scaling:
    """Turns that take longer than the first training's context are ``factor`` times as slow, those that come round
    often are left alone, and between the two it goes over smoothly (Llama 3.1; Grattafiori et al. 2024)."""

    def __init__(
        self,
        factor: float,
        low_freq_factor: float,  # wavelengths above original / this are slowed
        high_freq_factor: float,  # wavelengths below original / this are not
        original_max_position_embeddings: int,  # the context of the first training
    ):
        """Raises ValueError: an argument is outside its range."""
        if factor <= 0 or not 0 < low_freq_factor < high_freq_factor or original_max_position_embeddings < 1:
            raise ValueError(
                f"factor={factor} must be above 0, low_freq_factor={low_freq_factor} above 0 and below "
                f"high_freq_factor={high_freq_factor}, and original_max_position_embeddings 1 or more."
            )
        self.factor, self.low, self.high = factor, low_freq_factor, high_freq_factor
        self.original = original_max_position_embeddings

    def scale(self, frequencies: Tensor) -> Tensor:
        turns = self.original * frequencies / (2 * math.pi)  # in the first training's context
        share = ((turns - self.low) / (self.high - self.low)).clamp(0, 1)
        return torch.lerp(frequencies / self.factor, frequencies, share)


class Rotary(nn.Module):
    """Pairs of channels of queries and keys, turned by an angle that grows with the position (Su et al. 2021, eq. 34).

    Channel i is paired with i + d / 2, as in Llama.
    """

    def __init__(
        self,
        max_length: int,
        width: int,
        head_width: int,
        base: float = 10_000.0,
        scaling: RotaryScaling | None = None,
        length: int | None = None,  # the longest context that the network was made for; None: any
    ):
        """Raises ValueError: heads of an odd width, or a context longer than ``length``."""
        super().__init__()
        if head_width % 2:
            raise ValueError(f"rotary positions need an even width of heads, got {head_width}.")
        check_length(max_length, length)
        frequencies = base ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
        if scaling is not None:
            frequencies = scaling.scale(frequencies)
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


def check_length(max_length: int, length: int | None) -> None:
    """Raises ValueError: a context of ``max_length`` tokens is longer than ``length``."""
    if length is not None and max_length > length:
        raise ValueError(
            f"the network reads at most {length} tokens at once, and {max_length} are asked for. "
            f"Use data.context={length}"
        )


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

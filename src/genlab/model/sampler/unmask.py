"""Iterative unmasking: fills in hidden tokens, several at a time."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from genlab.seeding import RandomStream


class Unmask:
    """Iterative decoding (Chang et al. 2022, section 3.2): each step predicts all hidden tokens and keeps some.

    After the share r of the steps, at most cos(pi r / 2) of the tokens are still hidden: one at least is kept in each,
    and when all are there, the steps that are left have nothing to do. Kept are those with the highest
    confidence, plus Gumbel noise of ``choice_temperature`` (1 - r); or, with None, any, as in masked diffusion (Sahoo
    et al. 2024), which needs more steps for good images but is closer to the model's distribution.
    """

    def __init__(
        self,
        num_steps: int = 16,
        temperature: float = 1.0,  # of the tokens' distribution
        choice_temperature: float | None = 4.5,  # None: tokens are kept at random
    ):
        """Raises ValueError: an argument is outside its range."""
        if num_steps < 1 or temperature <= 0 or (choice_temperature is not None and choice_temperature < 0):
            raise ValueError(
                f"num_steps={num_steps} must be 1 or more, temperature={temperature} above 0, "
                f"choice_temperature={choice_temperature} 0 or more, or null."
            )
        self.num_steps, self.temperature, self.choice_temperature = num_steps, temperature, choice_temperature

    def __call__(
        self, predict: Callable[[Tensor, Tensor], Tensor], hidden: Tensor, tokens: Tensor, generator: RandomStream
    ) -> Tensor:
        """Fill in ``tokens`` (N, L) where ``hidden`` (N, L) is true. ``predict``: both -> logits (N, L, V)."""
        total = hidden.sum(dim=1)
        for step in range(1, self.num_steps + 1):
            if not hidden.any():
                break
            share = step / self.num_steps
            left = (
                (total * math.cos(math.pi / 2 * share)).floor().long().clamp(max=(hidden.sum(dim=1) - 1).clamp(min=0))
            )
            left = left if step < self.num_steps else torch.zeros_like(left)
            probabilities = (predict(tokens, hidden).float() / self.temperature).softmax(dim=-1)
            cumulative = probabilities.cumsum(dim=-1)
            uniform = generator.rand(hidden.shape[1], 1) * cumulative[..., -1:]
            drawn = torch.searchsorted(cumulative, uniform, right=True).clamp(max=cumulative.shape[-1] - 1)
            tokens = torch.where(hidden, drawn[..., 0], tokens)
            noise = -(-generator.rand(hidden.shape[1]).clamp(min=1e-20).log()).log()
            if self.choice_temperature is None:
                sureness = noise
            else:
                chosen = probabilities.gather(-1, drawn)[..., 0].clamp(min=1e-20).log()
                sureness = chosen + self.choice_temperature * (1 - share) * noise
            sureness = sureness.masked_fill(~hidden, torch.inf)
            rank = sureness.argsort(dim=1).argsort(dim=1)  # 0: the least sure
            hidden = hidden & (rank < left[:, None])
        return tokens

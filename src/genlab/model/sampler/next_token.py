"""Sampling of the next token from logits."""

import torch
from torch import Tensor


class NextToken:
    """Draws a token from the softmax of logits, after these changes, in this order, as in Hugging Face transformers.

    Logits of tokens that occurred before are divided (or, negative, multiplied) by ``repetition_penalty`` (Keskar et
    al. 2019, section 4.1); all by ``temperature``; kept are the ``top_k`` most likely, the fewest that have ``top_p``
    of the probability (Holtzman et al. 2020), and those with at least ``min_p`` of the most likely one's (Nguyen et al.
    2024).
    """

    def __init__(
        self,
        temperature: float = 1.0,  # 0: the most likely token, always
        top_k: int | None = None,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
    ):
        """Raises ValueError: an argument is outside its range."""
        if temperature < 0 or repetition_penalty <= 0:
            raise ValueError(
                f"temperature={temperature} must be 0 or more, repetition_penalty={repetition_penalty} above 0."
            )
        if (top_k is not None and top_k < 1) or not 0 < top_p <= 1 or not 0 <= min_p <= 1:
            raise ValueError(f"top_k={top_k} must be 1 or more, top_p={top_p} in (0, 1], min_p={min_p} in [0, 1].")
        self.temperature, self.top_k, self.top_p, self.min_p = temperature, top_k, top_p, min_p
        self.repetition_penalty = repetition_penalty

    @property
    def changes(self) -> str | None:
        """The first setting, as it is typed, by which tokens are not drawn from a softmax of the logits; None: they
        are."""
        neutral = {"top_k": None, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}
        changed = [name for name, value in neutral.items() if getattr(self, name) != value]
        changed = ["temperature", *changed] if self.temperature == 0 else changed
        return f"model.sampler.{changed[0]}={getattr(self, changed[0])}" if changed else None

    def __call__(self, logits: Tensor, before: Tensor, uniform: Tensor) -> Tensor:
        """``logits``: (N, V); ``before``: (N, T) tokens so far, -1 for none; ``uniform``: (N,) on [0, 1) -> (N,)."""
        logits = self.penalized(logits.float(), before)
        if self.temperature == 0:
            return logits.argmax(dim=-1)
        if self.temperature != 1:
            logits = logits / self.temperature
        cumulative = self.kept(logits).softmax(dim=-1).cumsum(dim=-1, dtype=torch.float64)
        drawn = torch.searchsorted(cumulative, uniform.double()[:, None] * cumulative[:, -1:], right=True)
        return drawn.clamp(max=logits.shape[-1] - 1)[:, 0]

    def penalized(self, logits: Tensor, before: Tensor) -> Tensor:
        if self.repetition_penalty == 1:
            return logits
        occurred = torch.zeros(len(logits), logits.shape[1] + 1, dtype=torch.bool, device=logits.device)
        occurred = occurred.scatter(1, before.where((before >= 0) & (before < logits.shape[1]), logits.shape[1]), True)
        changed = torch.where(logits > 0, logits / self.repetition_penalty, logits * self.repetition_penalty)
        return torch.where(occurred[:, :-1], changed, logits)

    def kept(self, logits: Tensor) -> Tensor:
        """Logits of tokens that cannot be drawn become -inf."""
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            lowest = logits.topk(self.top_k, dim=-1).values[:, -1:]
            logits = logits.masked_fill(logits < lowest, -torch.inf)
        if self.top_p < 1:
            ordered, order = logits.sort(dim=-1, descending=True)
            likelier = ordered.softmax(dim=-1).cumsum(dim=-1) - ordered.softmax(dim=-1)  # than this one, together
            logits = logits.masked_fill((likelier >= self.top_p).scatter(1, order, likelier >= self.top_p), -torch.inf)
        if self.min_p > 0:
            probabilities = logits.softmax(dim=-1)
            unlikely = probabilities < self.min_p * probabilities.amax(dim=-1, keepdim=True)
            logits = logits.masked_fill(unlikely, -torch.inf)
        return logits

"""A model of text that needs no training: each token by the one before it, as a table says."""

from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from genlab.model.base import Condition, GenerativeModel
from genlab.model.schedule import Constant
from genlab.seeding import RandomStream


def table(vocab_size: int) -> Tensor:
    """(V, V) log-probabilities of the second token given the first."""
    return torch.randn(vocab_size, vocab_size, generator=torch.Generator().manual_seed(0)).log_softmax(dim=1)


def bigrams_by_hand(tokens: np.ndarray, vocab_size: int) -> float:
    """What a text costs, but for its first token: nats."""
    known = table(vocab_size).double()
    return -sum(known[int(a), int(b)].item() for a, b in pairwise(tokens))


class Bigrams(GenerativeModel):
    kinds = frozenset({"tokens"})
    likelihood_kind: Literal["estimate"] = "estimate"

    def __init__(self, vocab_size: int):
        super().__init__(seed=0, schedule=Constant())
        self.table = table(vocab_size)
        self.asked: list[Tensor | None] = []  # prompts

    def configure_model(self) -> None: ...

    def training_step(self, batch: object, batch_idx: int) -> None: ...

    def losses(self, batch: object) -> dict[str, Tensor]:
        return {}

    def sample(
        self, num_samples: int, condition: Condition | None = None, generator: RandomStream | None = None
    ) -> Tensor:
        """12 tokens."""
        assert generator is not None
        self.asked.append(None if condition is None else condition["prompt"])
        uniform = generator.rand(12)
        token = torch.zeros(num_samples, dtype=torch.long) if condition is None else condition["prompt"][:, -1]
        tokens = []
        for i in range(12):
            token = (self.table.exp()[token].cumsum(1) < uniform[:, i : i + 1]).sum(1).clamp(max=len(self.table) - 1)
            tokens.append(token)
        return torch.stack(tokens, dim=1)

    def continuation_length(self, prompt_length: int) -> int:
        return 12

    def token_log_probs(self, sequences: Tensor) -> Tensor:
        return self.table[sequences[:, :-1], sequences[:, 1:]]

    def log_likelihood(self, x: Tensor, condition: Condition | None = None) -> Tensor:
        return self.token_log_probs(x).sum(dim=1)

"""Pseudo-perplexity of held-out text under a model that sees both sides of a token."""

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from genlab.data.base import DataModule, Split
from genlab.data.conversation_data import ConversationData
from genlab.errors import ConfigError
from genlab.machine.rank import rank, world
from genlab.metrics.base import Direction
from genlab.metrics.data_of import text_of
from genlab.model.base import HasPseudoLikelihood, Model


class PseudoPerplexity(Metric):
    """exp of the mean nats of a token given all others of its window (Salazar et al. 2020, arXiv:1910.14659, section
    2.3), over windows of held-out text of as many tokens as the model sees at once.

    It is no perplexity: a token is easier to tell from both sides than from those before it, and the conditional
    probabilities are not those of one distribution of texts. Numbers of equal tokenizer, context and windows compare.
    """

    directions: ClassVar[Mapping[str, Direction | None]] = {"pseudo_perplexity": "lower"}
    full_state_update = False

    def __init__(self, num_windows: int | None = 50):  # spread evenly over the text; None: all, the last one shorter
        """Raises ValueError: not one window."""
        super().__init__()
        if num_windows is not None and num_windows < 1:
            raise ValueError(f"num_windows={num_windows} must be 1 or more, or null for all.")
        self.num_windows = num_windows
        for name in ("nats", "tokens"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.nats: Tensor
        self.tokens: Tensor

    def update(self, nats: Tensor) -> None:
        """Add the nats of tokens, of any shape."""
        self.nats += nats.to(self.nats.device).double().sum()
        self.tokens += nats.numel()

    def compute(self) -> dict[str, Tensor]:
        return {"pseudo_perplexity": (self.nats / self.tokens).exp()}

    def settings(self) -> dict[str, int | float | str]:
        return {"num_windows": "all" if self.num_windows is None else self.num_windows}

    @torch.no_grad()
    def measure(self, model: Model, data: DataModule, split: Split, batch_size: int, seed: int = 0) -> None:
        """Take in this rank's share of a split. The model is in eval mode. Raises ConfigError as :meth:`check` does."""
        self.check(model, data)
        assert isinstance(model, HasPseudoLikelihood)
        text = text_of(data, "pseudo_perplexity")
        for window in windows(text.tokens(split), text.context, self.num_windows, batch_size):
            self.update(-model.pseudo_log_probs(window.to(model.device)))  # type: ignore[attr-defined]

    def check(self, model: Model, data: DataModule) -> None:
        """Raises ConfigError: the data are not running text; the model knows no token from both sides."""
        if isinstance(text_of(data, "pseudo_perplexity"), ConversationData):
            raise ConfigError("metrics=pseudo_perplexity: conversations are not cut into windows. Use metrics=[]")
        if not isinstance(model, HasPseudoLikelihood):
            raise ConfigError(
                f"metrics=pseudo_perplexity: a {type(model).__name__} does not predict a token from both sides, as "
                "model=masked_language does. Use metrics=[perplexity]"
            )

    def subject(self, model: Model, split: Split) -> str:
        return split


def windows(tokens: np.ndarray, context: int, count: int | None, batch_size: int) -> Iterator[Tensor]:
    """This rank's windows of ``tokens`` (L,), in batches of one length (N, T): without a ``count`` every token is in
    one of them; else these are ``count`` of the whole windows, if there are more."""
    full = len(tokens) // context
    starts = np.arange(full) * context
    if count is not None and count < full:
        starts = starts[np.linspace(0, full - 1, count).round().astype(np.int64)]
    mine = starts[rank() :: world()]
    for first in range(0, len(mine), batch_size):
        rows = mine[first : first + batch_size, None] + np.arange(context)
        yield torch.from_numpy(tokens[rows].astype(np.int64))
    rest = tokens[full * context :]
    if (count is None or count > full) and len(rest) and len(starts) % world() == rank():
        yield torch.from_numpy(rest[None].astype(np.int64))

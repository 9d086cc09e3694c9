"""Perplexity and bits per byte of held-out text."""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric

from genlab.data.base import DataModule, Split
from genlab.data.conversation_data import ConversationData
from genlab.data.text import TextDataModule
from genlab.data.tokenizer.base import HasUnknown
from genlab.errors import ConfigError
from genlab.metrics.base import Direction
from genlab.metrics.data_of import text_of
from genlab.model.base import HasLikelihood, HasTokenLikelihood, Model
from genlab.model.likelihood_settings import likelihood_settings


class Perplexity(Metric):
    """exp(nats / tokens), and bits / bytes of the text that the tokens stand for, over a whole split.

    The text is cut into windows of the model's context. All tokens but the first are predicted once, each from those
    before it in its window: at least ``context - stride`` of them, but for the first window. With a stride of the whole
    context, the default, every token counts as in training; a smaller one is slower and gives lower values. Sums are
    in float64 over all ranks, so nothing depends on batches or devices.

    Of conversations, each on its own, the predictions that count in training are measured: those of answers.

    A begin token before each document, where the tokenizer has one, is given and not predicted, so it costs nothing and
    is no byte; a model that has no likelihood of single tokens predicts it.

    Where the tokenizer has a token for unknown characters, each of these also costs the bits that identify it, and
    counts with its own bytes, so the numbers are those of a lossless code for the text.
    """

    directions: ClassVar[Mapping[str, Direction | None]] = {"perplexity": "lower", "bits_per_byte": "lower"}
    full_state_update = False

    def __init__(self, stride: int | None = None):  # tokens from one window to the next; None: the context
        """Raises ConfigError if there is no such stride."""
        super().__init__()
        if stride is not None and stride < 1:
            raise ConfigError(f"metrics.perplexity.stride must be a whole number >= 1, got {stride}.")
        self.stride = stride
        self._facts: dict[str, int | float | str] = {}
        for name in ("nats", "tokens", "bytes"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.nats: Tensor
        self.tokens: Tensor
        self.bytes: Tensor

    def update(self, nats: Tensor, tokens: int, num_bytes: float) -> None:
        """Add text: minus its log-likelihood, its length in tokens and in bytes."""
        self.nats += nats.to(self.nats.device).double().sum()
        self.tokens += tokens
        self.bytes += num_bytes

    def compute(self) -> dict[str, Tensor]:
        bits = self.nats / np.log(2)
        return {"perplexity": (self.nats / self.tokens).exp(), "bits_per_byte": bits / self.bytes}

    def settings(self) -> dict[str, int | float | str]:
        """With what the model's likelihood depends on, as of the latest ``measure``."""
        return {"stride": "context" if self.stride is None else self.stride, **self._facts}

    @torch.no_grad()
    def measure(self, model: Model, data: DataModule, split: Split, batch_size: int, seed: int = 0) -> None:
        """Take in this rank's share of a split. The model is in eval mode. Raises ConfigError as :meth:`check` does."""
        self.check(model, data)
        text = text_of(data, "perplexity")
        self._facts = likelihood_settings(model)
        stride = self._stride(text)
        lengths, extra = self._cost_of_unknown(text, split)
        if isinstance(text, ConversationData):
            self._measure_counted(model, text, split, batch_size, lengths, extra)
            return
        begin = text.tokenizer.begin if isinstance(model, HasTokenLikelihood) else None
        by_token = stride < text.context or begin is not None
        for window, new in batches(text.tokens(split), text.context, stride, batch_size):
            x, counted = window.to(model.device), window[:, -new:]
            predicted = torch.ones_like(counted, dtype=torch.bool) if begin is None else counted != begin
            if by_token:
                log_prob = (model.token_log_probs(x)[:, -new:] * predicted.to(x.device)).sum(dim=1)  # type: ignore[operator]
            else:
                log_prob = model.log_likelihood(x)  # type: ignore[operator]
            nats = -log_prob.double() + extra[counted].sum(dim=1).to(log_prob.device)
            added = text.tokenizer.added_spaces(counted.numpy(), window[:, -new - 1 : -1].numpy())
            self.update(nats, int(predicted.sum()), float(lengths[counted].sum()) - added)

    def _measure_counted(
        self, model: Model, data: ConversationData, split: Split, batch_size: int, lengths: Tensor, extra: Tensor
    ) -> None:
        """Conversations one by one, and of each the predictions that count in training."""
        assert isinstance(model, HasTokenLikelihood), "families that are trained on what counts give it"
        self._facts = {**self._facts, "counted": data.counted}
        for tokens, counted in counted_batches(*data.fitting(split), batch_size):
            log_prob = model.token_log_probs(tokens.to(model.device))  # type: ignore[operator]
            chosen = tokens[:, 1:][counted]
            nats = extra[chosen].sum() - log_prob.cpu().double()[counted].sum()
            added = data.tokenizer.added_spaces(chosen.numpy(), tokens[:, :-1][counted].numpy())
            self.update(nats, len(chosen), float(lengths[chosen].sum()) - added)

    def _cost_of_unknown(self, data: TextDataModule, split: Split) -> tuple[Tensor, Tensor]:
        """(V,) float64: bytes that each token stands for in this split, and nats to identify its text.
        Only an unknown token can stand for several texts; their number is recorded."""
        lengths = torch.from_numpy(data.tokenizer.byte_lengths()).double()
        extra = torch.zeros_like(lengths)
        tokenizer = data.tokenizer
        if isinstance(tokenizer, HasUnknown) and (found := data.unknown_characters(split)):
            count = sum(found.values())
            taken = sum(len(character.encode()) * times for character, times in found.items())
            lengths[tokenizer.unknown] = taken / count
            extra = torch.from_numpy(tokenizer.extra_bits()) * np.log(2)
            self._facts = {**self._facts, "unknown_tokens": count}
        return lengths, extra

    def check(self, model: Model, data: DataModule) -> None:
        """Raises ConfigError: the data are not text; the model has no likelihood, or none of single tokens, which a
        stride needs."""
        text = text_of(data, "perplexity")
        if not isinstance(model, HasLikelihood):
            raise ConfigError(f"metrics=perplexity: {type(model).__name__} has no likelihood.")
        stride = self._stride(text)
        if isinstance(text, ConversationData) and stride < text.context:
            raise ConfigError(f"metrics.perplexity.stride={stride}: conversations are not cut into windows. Use null.")
        if stride < text.context and not isinstance(model, HasTokenLikelihood):
            raise ConfigError(
                f"metrics.perplexity.stride={stride}: {type(model).__name__} gives no likelihood of single tokens. "
                "Use null."
            )

    def subject(self, model: Model, split: Split) -> str:
        return f"{model.likelihood_kind}_{split}"  # type: ignore[attr-defined]

    def _stride(self, data: TextDataModule) -> int:
        return data.context if self.stride is None else min(self.stride, data.context)


def counted_batches(
    sequences: Sequence[np.ndarray], counted: Sequence[np.ndarray], batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """This rank's sequences (L,), those of similar length together: (N, T + 1) tokens, and (N, T) bool, which
    predictions count; short ones are filled up with what does not count."""
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    order = sorted(range(len(sequences)), key=lambda i: -len(sequences[i]))[rank::world]
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        shape = (len(rows), len(sequences[rows[0]]))
        tokens, chosen = np.zeros(shape, np.int64), np.zeros(shape, bool)
        for i, row in enumerate(rows):
            tokens[i, : len(sequences[row])], chosen[i, : len(sequences[row])] = sequences[row], counted[row]
        yield torch.from_numpy(tokens), torch.from_numpy(chosen[:, 1:].copy())


def batches(tokens: np.ndarray, context: int, stride: int, batch_size: int) -> Iterator[tuple[Tensor, int]]:
    """This rank's windows of ``tokens`` (L,), in batches of one length (N, T + 1), and how many of the last tokens of
    each count: together, over all ranks, every token but the first, once."""
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    last = len(tokens) - 1
    ends = [context, *range(context + stride, last, stride), last] if last > context else [last]
    pairs = zip([0, *ends], ends, strict=False)
    overlapping = stride < context
    windows = [(max(0, end - context) if overlapping else before, end, end - before) for before, end in pairs]
    mine = windows[rank::world]
    kinds = sorted({(end - start, new) for start, end, new in mine}, reverse=True)
    for length, new in kinds:
        starts = [start for start, end, n in mine if (end - start, n) == (length, new)]
        for i in range(0, len(starts), batch_size):
            rows = np.array(starts[i : i + batch_size])[:, None] + np.arange(length + 1)
            yield torch.from_numpy(tokens[rows].astype(np.int64)), new

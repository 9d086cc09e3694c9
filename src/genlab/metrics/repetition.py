"""Repetition within texts: the share of n-grams that occurred before (Welleck et al. 2020, section 3)."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from genlab.errors import ConfigError
from genlab.metrics.base import Direction, MetricBatch
from genlab.metrics.words import WORDS, ngrams, repeated, word_ids


class Repetition(Metric):
    """``repetition``: 1 - different n-grams of words / all, within each sample, and the mean over samples (seq-rep-n,
    arXiv:1908.04319); ``repetition_reference``: that of the text itself, of as many tokens.

    0 is a text without a repeated n-gram; one word repeated forever approaches 1. Human text is near 0 for n = 4,
    tables and code are higher, hence the reference: values below it are not better. Texts of fewer than n words are
    left out; NaN if that leaves none.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"text"})
    directions: ClassVar[Mapping[str, Direction | None]] = {"repetition": "lower", "repetition_reference": None}
    is_differentiable = False
    full_state_update = False

    def __init__(self, n: int = 4):  # words of an n-gram
        """Raises ConfigError if n is out of its range."""
        super().__init__()
        if n < 1:
            raise ConfigError(f"metrics.repetition.n must be a whole number >= 1, got {n}.")
        self.n = n
        for side in ("real", "fake"):
            self.add_state(f"{side}_total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state(f"{side}_count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.real_total: Tensor
        self.real_count: Tensor
        self.fake_total: Tensor
        self.fake_count: Tensor

    def update(self, batch: MetricBatch, real: bool) -> None:
        """Takes ``text``."""
        counts = [repeated(ngrams(word_ids(text), self.n)) for text in batch["text"]]
        shares = [again / total for total, again in counts if total]
        if real:
            self.real_total += sum(shares)
            self.real_count += len(shares)
        else:
            self.fake_total += sum(shares)
            self.fake_count += len(shares)

    def compute(self) -> dict[str, Tensor]:
        """Both in [0, 1)."""
        return {
            "repetition": self.fake_total / self.fake_count,
            "repetition_reference": self.real_total / self.real_count,
        }

    def settings(self) -> dict[str, int | float | str]:
        return {"n": self.n, "of": WORDS}

"""Diversity of a set of texts: the share of n-grams of words that are not repetitions (Li et al. 2016, section 5.3)."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from genlab.errors import ConfigError
from genlab.metrics.base import Direction, MetricBatch
from genlab.metrics.words import WORDS, ngrams, word_ids

_MOST = 4


class Distinct(Metric):
    """``distinct_n``: different n-grams of words over all samples together, divided by all n-grams (arXiv:1510.03055).

    The share falls with the number of words, in real text too. So there is also ``distinct_n_ratio``, the quotient by
    the share of the reference, both on the same number of words: the first words of each side, as many as the shorter
    side has. 1 is best; below 1 samples repeat themselves or each other more than the text does; random words give
    more than 1.

    n-grams do not run from one sample into the next. NaN where there are none.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"text"})
    directions: ClassVar[Mapping[str, Direction | None]] = {
        **{f"distinct_{n}": None for n in range(1, _MOST + 1)},
        **{f"distinct_{n}_ratio": "one" for n in range(1, _MOST + 1)},
    }
    is_differentiable = False
    full_state_update = False

    real_words: list[Tensor]
    real_index: list[Tensor]
    fake_words: list[Tensor]
    fake_index: list[Tensor]

    def __init__(self, n: int = 3):  # longest n-grams, in words
        """Raises ConfigError if n is out of its range."""
        super().__init__()
        if not 1 <= n <= _MOST:
            raise ConfigError(f"metrics.distinct.n must be a whole number from 1 to {_MOST}, got {n}.")
        self.n = n
        for state in ("real_words", "real_index", "fake_words", "fake_index"):
            self.add_state(state, [], dist_reduce_fx="cat")

    def update(self, batch: MetricBatch, real: bool) -> None:
        """Takes ``text`` and ``index``."""
        ids = [word_ids(text) for text in batch["text"]]
        index = batch["index"].repeat_interleave(torch.tensor([len(row) for row in ids], device=batch["index"].device))
        words = torch.from_numpy(np.concatenate(ids).view(np.int64)).to(index.device)
        (self.real_words if real else self.fake_words).append(words)
        (self.real_index if real else self.fake_index).append(index)  # of each word, the text that it is in

    def compute(self) -> dict[str, Tensor]:
        """``distinct_1`` to ``distinct_n``, in (0, 1], and their ratios."""
        fake, real = _texts(self.fake_words, self.fake_index), _texts(self.real_words, self.real_index)
        least = min(sum(map(len, fake)), sum(map(len, real)))
        found = {}
        for n in range(1, self.n + 1):
            found[f"distinct_{n}"] = torch.tensor(share_distinct(fake, n), dtype=torch.float64)
            ratio = share_distinct(_first(fake, least), n) / share_distinct(_first(real, least), n)
            found[f"distinct_{n}_ratio"] = torch.tensor(ratio, dtype=torch.float64)
        return found

    def settings(self) -> dict[str, int | float | str]:
        return {"n": self.n, "of": WORDS}


def share_distinct(texts: list[np.ndarray], n: int) -> float:
    """Of texts as ids of words, (W,) each: different n-grams divided by all."""
    grams = np.concatenate([np.zeros(0, np.uint64), *(ngrams(text, n) for text in texts)])
    return len(np.unique(grams)) / len(grams) if len(grams) else float("nan")


def _first(texts: list[np.ndarray], count: int) -> list[np.ndarray]:
    """The texts up to word number ``count``."""
    ends = np.cumsum([len(text) for text in texts])
    return [text[: max(0, count - (end - len(text)))] for text, end in zip(texts, ends, strict=True)]


def _texts(words: list[Tensor] | Tensor, index: list[Tensor] | Tensor) -> list[np.ndarray]:
    """Ids of words and of their texts -> (W,) uint64 of each text that has words, by its place in the set."""
    place = dim_zero_cat(index)
    order = torch.argsort(place, stable=True)
    ids = dim_zero_cat(words)[order].cpu().numpy().view(np.uint64)
    return np.split(ids, np.flatnonzero(np.diff(place[order].cpu().numpy())) + 1)

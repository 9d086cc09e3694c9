"""Pseudo-perplexity against a loop over all tokens, and what it does not depend on."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genlab.errors import ConfigError
from genlab.metrics import pseudo_perplexity
from genlab.metrics.pseudo_perplexity import PseudoPerplexity, windows
from given_text import GivenText

TOKENS = np.random.default_rng(0).integers(0, 7, 103)


class Neighbors(nn.Module):
    """Log-probabilities of a token by those on both sides of it, in its own window alone."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.randn(8, 8, 7, generator=torch.Generator().manual_seed(1)).log_softmax(dim=2)

    def pseudo_log_probs(self, tokens: Tensor) -> Tensor:
        edge = torch.full_like(tokens[:, :1], 7)
        left, right = torch.cat([edge, tokens[:, :-1]], dim=1), torch.cat([tokens[:, 1:], edge], dim=1)
        return self.table[left, right].gather(2, tokens[:, :, None])[:, :, 0]


def by_loop(spans: list[range]) -> float:
    """One token after the other of these windows."""
    table, nats, count = Neighbors().table, 0.0, 0
    for span in spans:
        for place in span:
            left = TOKENS[place - 1] if place > span.start else 7
            right = TOKENS[place + 1] if place + 1 < span.stop else 7
            nats, count = nats - float(table[left, right, TOKENS[place]]), count + 1
    return math.exp(nats / count)


def measured(num_windows: int | None, batch_size: int = 4, context: int = 10) -> PseudoPerplexity:
    metric = PseudoPerplexity(num_windows)
    metric.measure(Neighbors(), GivenText(TOKENS, context, 7), "val", batch_size)  # type: ignore[arg-type]
    return metric


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_of_the_whole_text_every_token_counts_once(batch_size: int) -> None:
    spans = [range(start, min(start + 10, 103)) for start in range(0, 103, 10)]
    found = measured(None, batch_size)
    assert found.compute()["pseudo_perplexity"].item() == pytest.approx(by_loop(spans), rel=1e-6)
    assert found.tokens == 103
    assert measured(11, batch_size).compute() == found.compute(), "more windows than there are: all"


def test_some_windows_are_spread_over_the_text() -> None:
    spans = [range(start, start + 10) for start in (0, 30, 60, 90)]
    assert measured(4).compute()["pseudo_perplexity"].item() == pytest.approx(by_loop(spans), rel=1e-6)
    assert measured(10).tokens == 100, "all whole ones"
    assert measured(1).tokens == 10
    assert PseudoPerplexity(4).settings() != PseudoPerplexity(None).settings()


@contextmanager
def on_rank(number: int, of: int) -> Iterator[None]:
    with (
        mock.patch.object(pseudo_perplexity, "rank", return_value=number),
        mock.patch.object(pseudo_perplexity, "world", return_value=of),
    ):
        yield


@pytest.mark.parametrize("count", [None, 10, 5])
def test_ranks_share_the_windows(count: int | None) -> None:
    def found(number: int, of: int) -> list[tuple[int, ...]]:
        with on_rank(number, of):
            return [tuple(row) for batch in windows(TOKENS, 10, count, 2) for row in batch.tolist()]

    assert sorted(found(0, 3) + found(1, 3) + found(2, 3)) == sorted(found(0, 1))


def test_what_does_not_fit_is_refused() -> None:
    metric, data = PseudoPerplexity(), GivenText(TOKENS, 10, 7)
    with pytest.raises(ConfigError, match=r"a Linear does not predict a token from both sides.*metrics=\[perplexity\]"):
        metric.check(nn.Linear(1, 1), data)  # type: ignore[arg-type]
    images: Any = mock.Mock(spec=["spec"])
    images.spec.modality = "image"
    with pytest.raises(ConfigError, match="metrics=pseudo_perplexity is for text; the data are image"):
        metric.check(Neighbors(), images)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_windows=0 must be 1 or more, or null for all"):
        PseudoPerplexity(0)

"""Perplexity: every token but the first counts once, on any batch size, stride and number of ranks."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bigrams import Bigrams, bigrams_by_hand
from genlab.data.digits import Digits
from genlab.errors import ConfigError
from genlab.evaluation.evaluation import Evaluation
from genlab.metrics import perplexity
from genlab.metrics.perplexity import Perplexity, batches
from genlab.model.sampler.next_token import NextToken
from genlab.model.schedule import Constant
from genlab.model.transformer import Transformer
from given_text import GivenText

VOCABULARY = 98  # characters of one to four bytes


@pytest.fixture
def text() -> GivenText:
    return GivenText(np.random.default_rng(0).integers(0, VOCABULARY, 203), context=16, vocab_size=VOCABULARY)


def measured(text: GivenText, batch_size: int = 8, stride: int | None = None, model: Any = None) -> Perplexity:
    metric = Perplexity(stride)
    metric.measure(model or Bigrams(VOCABULARY), text, "val", batch_size)
    return metric


# --- windows ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", [1, 2, 5, 8])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_token_but_the_first_counts_once(context: int, world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """For all lengths and strides, of which a window shows enough before each token."""
    for length in range(2, 42):
        for stride in range(1, context + 1):
            counted = []
            for rank in range(world):
                there = SimpleNamespace(is_initialized=lambda: True, get_rank=lambda rank=rank: rank,
                                        get_world_size=lambda: world)  # fmt: skip
                monkeypatch.setattr(perplexity, "dist", there)
                for window, new in batches(np.arange(length), context, stride, batch_size=3):
                    assert 1 <= len(window) <= 3
                    assert window.dtype == torch.int64
                    assert 1 <= new < window.shape[1] <= context + 1
                    assert (window.diff(dim=1) == 1).all(), "tokens side by side"
                    for row in window:
                        seen = row.shape[0] - new  # before the first that counts
                        assert row[0] == 0 or stride == context or seen > context - stride
                    counted += window[:, -new:].flatten().tolist()
            assert sorted(counted) == list(range(1, length)), (length, stride)


def test_a_stride_of_the_context_is_how_training_cuts() -> None:
    windows = [(window.tolist(), new) for window, new in batches(np.arange(11), 4, 4, batch_size=9)]
    assert windows == [([[0, 1, 2, 3, 4], [4, 5, 6, 7, 8]], 4), ([[8, 9, 10]], 2)]


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [None, 1, 5])
def test_a_model_of_pairs_by_hand(text: GivenText, stride: int | None) -> None:
    """exp of the mean cost of a token; bits by the bytes that all tokens but the first stand for."""
    nats = bigrams_by_hand(text.given, VOCABULARY)
    found = measured(text, stride=stride).compute()
    assert found["perplexity"].item() == pytest.approx(math.exp(nats / 202), rel=1e-6)
    size = len(text.tokenizer.decode(text.given[1:].tolist()).encode())
    assert size > 202, "some have several bytes"
    assert found["bits_per_byte"].item() == pytest.approx(nats / math.log(2) / size, rel=1e-6)


@pytest.mark.parametrize("stride", [None, 5])
def test_batches_do_not_show(text: GivenText, stride: int | None) -> None:
    alone = measured(text, 1, stride)
    for batch_size in (7, 64):
        together = measured(text, batch_size, stride)
        assert together.nats.item() == pytest.approx(alone.nats.item(), rel=1e-12)
        assert (together.tokens, together.bytes) == (alone.tokens, alone.bytes) == (202, alone.bytes)


class Near(Bigrams):
    """Surer, the more of the text it sees: each token costs 1 / (tokens before it in its window)."""

    def token_log_probs(self, sequences: Tensor) -> Tensor:
        return (-1 / torch.arange(1, sequences.shape[1])).expand(len(sequences), -1)


def test_a_smaller_stride_shows_more_before_each_token(text: GivenText) -> None:
    costs = [measured(text, stride=stride, model=Near(VOCABULARY)).nats.item() for stride in (None, 8, 2, 1)]
    each = [1 / (1 + i) for i in range(16)]
    assert costs[0] == pytest.approx(12 * sum(each) + sum(each[:10]))  # 202 tokens: 12 windows of 16, and of 10
    assert costs[-1] == pytest.approx(sum(each) + (202 - 16) / 16)
    assert costs == sorted(costs, reverse=True)


def test_a_stride_beyond_the_context_is_the_context(text: GivenText) -> None:
    assert measured(text, stride=1000).nats == measured(text).nats


class Uniform(Bigrams):
    """Knows nothing."""

    def __init__(self, vocab_size: int):
        super().__init__(vocab_size)
        self.table = torch.zeros(vocab_size, vocab_size).log_softmax(dim=1)


@pytest.mark.parametrize("stride", [None, 5])
def test_who_knows_nothing_is_as_perplexed_as_there_are_tokens(text: GivenText, stride: int | None) -> None:
    found = measured(text, stride=stride, model=Uniform(VOCABULARY)).compute()
    assert found["perplexity"].item() == pytest.approx(VOCABULARY, rel=1e-6)
    of_bytes = GivenText(np.arange(60), context=16, vocab_size=95)  # characters of one byte
    assert measured(of_bytes, model=Uniform(95)).compute()["bits_per_byte"].item() == pytest.approx(math.log2(95))


# --- against transformers ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gpt2() -> tuple[Any, Transformer]:
    """A random GPT-2 of theirs, and our model with its weights."""
    pytest.importorskip("transformers")
    import hugging_face

    theirs, network = hugging_face.same_weights("gpt2")
    ours = Transformer(
        lambda **_: network, NextToken(), torch.optim.SGD, Constant(), shape=(hugging_face.LENGTH - 1,),
        vocab_size=hugging_face.VOCABULARY, start_token=0, told={},
    )  # fmt: skip
    ours.configure_model()
    return theirs, ours.eval()


def nats_of_theirs(theirs: Any, tokens: np.ndarray, context: int, stride: int, side: str) -> float:
    """All windows in one batch, the short one padded, and only the tokens that are new in each labelled."""
    last = len(tokens) - 1
    ends = [context, *range(context + stride, last, stride), last]
    total = 0.0
    ids = torch.zeros(len(ends), context + 1, dtype=torch.long)
    labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
    for row, (before, end) in enumerate(zip([0, *ends], ends, strict=False)):
        start = before if stride == context else max(0, end - context)
        window = torch.from_numpy(tokens[start : end + 1].astype(np.int64))
        place = slice(0, len(window)) if side == "right" else slice(context + 1 - len(window), None)
        ids[row, place], mask[row, place] = window, 1
        stop = place.stop or context + 1
        labels[row, stop - (end - before) : stop] = window[-(end - before) :]
    with torch.no_grad():
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        logits = theirs(input_ids=ids, attention_mask=mask, position_ids=positions).logits
    for row in range(len(ends)):
        total += float(torch.nn.functional.cross_entropy(logits[row, :-1], labels[row, 1:], reduction="sum"))
    return total


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("stride", [None, 1, 7])
def test_transformers_find_the_same(gpt2: tuple[Any, Transformer], stride: int | None, side: str) -> None:
    """On a random GPT-2, on whichever side they pad and whatever our batches are."""
    theirs, ours = gpt2
    text = GivenText(np.random.default_rng(2).integers(0, 97, 150), context=23, vocab_size=97)
    expected = nats_of_theirs(theirs, text.given, 23, stride or 23, side)
    size = len(text.tokenizer.decode(text.given[1:].tolist()).encode())
    for batch_size in (1, 4, 300):
        found = measured(text, batch_size, stride, ours).compute()
        assert found["perplexity"].item() == pytest.approx(math.exp(expected / 149), rel=1e-5)
        assert found["bits_per_byte"].item() == pytest.approx(expected / math.log(2) / size, rel=1e-5)


# --- the protocol, and what is refused --------------------------------------------------------------------------------


def test_numbers_say_what_they_are_of(text: GivenText) -> None:
    def run(text: GivenText, **options: Any) -> Any:
        evaluation = Evaluation(None, {"perplexity": Perplexity()}, **options)
        return evaluation.run(Bigrams(VOCABULARY), text, weights="ema")

    first = run(text)
    assert first.values == {
        f"{name}_estimate_val": value.item() for name, value in measured(text, 64).compute().items()
    }
    assert first.protocol["metrics"] == {"perplexity": {"stride": "context"}}
    assert run(text, num_samples=500, batch_size=3).protocol_id == first.protocol_id
    others = [
        run(text, reference="train"),
        run(GivenText(text.given, 8, VOCABULARY)),
        run(GivenText(text.given[1:], 16, VOCABULARY)),
        run(GivenText(text.given % 97, 16, 97)),
    ]
    assert len({result.protocol_id for result in (first, *others)}) == 5


def test_what_cannot_be_measured_is_refused(text: GivenText) -> None:
    with pytest.raises(ConfigError, match=r"metrics\.perplexity\.stride must be a whole number >= 1, got 0"):
        Perplexity(0)
    with pytest.raises(ConfigError, match="metrics=perplexity is for text; the data are image"):
        Perplexity().measure(Bigrams(VOCABULARY), Digits(), "val", 8)
    with pytest.raises(ConfigError, match="metrics=perplexity: Module has no likelihood"):
        Perplexity().measure(torch.nn.Module(), text, "val", 8)  # type: ignore[arg-type]
    whole = SimpleNamespace(likelihood_kind="bound", log_likelihood=lambda x: x, device="cpu")
    with pytest.raises(ConfigError, match=r"stride=5: SimpleNamespace gives no likelihood of single tokens. Use null"):
        measured(text, stride=5, model=whole)

"""Metrics of texts, against their definitions and by hand."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from genlab.errors import ConfigError, DataError
from genlab.metrics.bleu import BLEU
from genlab.metrics.chrf import ChrF
from genlab.metrics.distinct import Distinct
from genlab.metrics.repetition import Repetition
from genlab.metrics.text_states import packed, unpacked
from genlab.metrics.words import ngrams, word_ids, words

FOX = "the quick brown fox jumps over the lazy dog"
TEXTS = ["the cat sat on the mat", "", "a naïve 𝄞 façade, isn't it?", "la la la la la la", "\ufffd 5 €", " \n"]


def measured(metric: Any, samples: list[str], reference: list[str], batch: int = 2) -> dict[str, float]:
    """In batches, in another order than their own."""
    metric.reset()
    for real, texts in ((True, reference), (False, samples)):
        order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0))
        for rows in order.split(batch):
            metric.update({"text": [texts[row] for row in rows.tolist()], "index": rows}, real=real)
    return {name: float(value) for name, value in metric.compute().items()}


# --- words ------------------------------------------------------------------------------------------------------------


def test_words_and_marks() -> None:
    assert words("isn't it x_1 = 3.5?!!\n¿naïve ===-- ") == [
        "isn", "'", "t", "it", "x_1", "=", "3", ".", "5", "?", "!!", "¿", "naïve", "===", "--"]  # fmt: skip


def test_ngrams_tell_order_and_length_apart() -> None:
    """As many hashes as there are different tuples, of 3,000 words of 50 kinds."""
    rng = np.random.default_rng(0)
    text = [f"w{i}" for i in rng.integers(0, 50, 3000)]
    ids = word_ids(" ".join(text))
    seen: set[int] = set()
    for n in (1, 2, 3, 4):
        found = set(ngrams(ids, n).tolist())
        assert len(found) == len({tuple(text[i : i + n]) for i in range(len(text) - n + 1)})
        assert not seen & found
        seen |= found
    assert len(ngrams(ids[:2], 3)) == 0


# --- distinct and repetition ------------------------------------------------------------------------------------------


def test_distinct_by_hand() -> None:
    """13 words, 9 kinds; 10 pairs, of which "la la" comes 5 times and "la ," never across a border."""
    values = measured(Distinct(2), ["the cat sat", "la la la la la la", "the cat sat on"], [FOX, FOX])
    assert values["distinct_1"] == pytest.approx(5 / 13)
    assert values["distinct_2"] == pytest.approx((2 + 1 + 1) / (2 + 5 + 3))
    # the reference up to its 13th word: a fox, and "the quick brown fox" again
    assert values["distinct_1_ratio"] == pytest.approx((5 / 13) / (8 / 13))
    assert values["distinct_2_ratio"] == pytest.approx((4 / 10) / (8 / 11))


def test_the_ratio_takes_as_many_words_of_both_sides() -> None:
    """The longer side is cut, in the order of the set, whichever it is; a share alone would fall with the length."""
    rng = np.random.default_rng(1)
    many = [" ".join(f"w{i}" for i in rng.zipf(1.5, 60) % 500) for _ in range(40)]
    few, cut = many[:10], measured(Distinct(3), many[:10], many[:10])
    for samples, reference in ((many, few), (few, many)):
        values = measured(Distinct(3), samples, reference)
        assert [values[f"distinct_{n}_ratio"] for n in (1, 2, 3)] == [1.0, 1.0, 1.0]
    assert measured(Distinct(3), many, few)["distinct_1"] < 0.8 * cut["distinct_1"]


def test_repetition_by_hand() -> None:
    """Of each sample alone, then the mean: 3 pairs of which none is repeated; 5, of which 4 are; one word has none."""
    values = measured(Repetition(2), ["a b c d", "la la la la la la", "x"], [FOX, FOX])
    assert values == {"repetition": pytest.approx((0 + 4 / 5) / 2), "repetition_reference": 0.0}
    assert measured(Repetition(1), [FOX], ["a"])["repetition"] == pytest.approx(1 / 9)


def test_nothing_to_count_is_no_number() -> None:
    assert math.isnan(measured(Repetition(4), ["a b c", ""], [FOX, FOX])["repetition"])
    values = measured(Distinct(2), ["", " "], [FOX, FOX])
    assert math.isnan(values["distinct_1"])
    assert math.isnan(values["distinct_2_ratio"])


# --- BLEU and chrF ----------------------------------------------------------------------------------------------------


def test_bleu_by_hand() -> None:
    """Precisions 5/6, 3/5, 1/4 and, of 3 with none right, 1/6, as sacrebleu smooths; no penalty for length."""
    values = measured(BLEU(), ["the cat sat on a mat"], ["the cat is on a mat"])
    expected = 100 * (5 / 6 * 3 / 5 * 1 / 4 * 1 / 6) ** (1 / 4)
    assert values["bleu"] == pytest.approx(expected, rel=1e-9)
    short = measured(BLEU(), [FOX.removesuffix(" dog")], [FOX])["bleu"]
    assert short == pytest.approx(100 * math.exp(1 - 9 / 8), rel=1e-9)


def test_chrf_by_hand() -> None:
    """Of one character and one pair each right of 2 and 1 ...: F2 of the mean precision and recall."""
    values = measured(ChrF(), ["ab"], ["abc"])
    precision, recall = (1 + 1) / 2, (2 / 3 + 1 / 2) / 2  # orders 1 and 2, those that both have
    assert values["chrf"] == pytest.approx(100 * 5 * precision * recall / (4 * precision + recall), rel=1e-6)


@pytest.mark.parametrize("metric", [BLEU(), ChrF(2)])
def test_pairs_are_by_place(metric: Any) -> None:
    texts = [FOX, FOX.upper(), FOX[::-1], "one two three four five six"]
    name = next(iter(metric.directions))
    assert measured(metric, texts, texts, 3)[name] == pytest.approx(100)
    assert measured(metric, texts[::-1], texts, 3)[name] < 20


def test_a_sample_without_a_reference_is_left_out() -> None:
    assert measured(BLEU(), [FOX, "one two three four"], [FOX])["bleu"] == pytest.approx(100)
    metric = BLEU()
    metric.update({"text": ["a"], "index": torch.tensor([0])}, real=True)
    metric.update({"text": ["a"], "index": torch.tensor([1])}, real=False)
    with pytest.raises(DataError, match="no sample has a reference"):
        metric.compute()


def test_signatures_are_sacrebleus() -> None:
    assert "tok:intl" in BLEU("intl").settings()["signature"]
    assert "nw:2" in ChrF(2).settings()["signature"]
    assert all("nrefs:1" in metric.settings()["signature"] for metric in (BLEU(), ChrF()))


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"metrics\.bleu\.tokenize=foo: sacrebleu refuses it"):
        BLEU("foo")
    with pytest.raises(ConfigError, match=r"metrics\.chrf\.word_order must be a whole number >= 0, got -1"):
        ChrF(-1)
    with pytest.raises(ConfigError, match=r"metrics\.distinct\.n must be a whole number from 1 to 4, got 5"):
        Distinct(5)
    with pytest.raises(ConfigError, match=r"metrics\.repetition\.n must be a whole number >= 1, got 0"):
        Repetition(0)


def test_texts_travel_as_tensors() -> None:
    parts = [packed(TEXTS[:2], torch.device("cpu")), packed(TEXTS[2:], torch.device("cpu"))]
    index = [torch.tensor([5, 0]), torch.tensor([3, 1, 4, 2])]
    back = unpacked([c for c, _ in parts], [n for _, n in parts], index)
    assert list(back.items()) == list(enumerate([TEXTS[1], TEXTS[3], TEXTS[5], TEXTS[2], TEXTS[4], TEXTS[0]]))
    empty, lengths = packed([""], torch.device("cpu"))
    assert (empty.shape, lengths.tolist()) == ((0,), [0])

"""Captions as tokens: words of any script, any tokenizer, what is left out and said, and one of several drawn."""

import logging
from typing import Any

import numpy as np
import pytest

from genlab.data.captions import Captions, Coder, encoded, padded, tell
from genlab.data.tokenizer.bytes import Bytes
from genlab.data.tokenizer.characters import Characters
from genlab.data.tokenizer.words import Words, words_of
from genlab.errors import ConfigError, DataError


@pytest.mark.parametrize(("text", "words"), [
    ("A cat, asleep on Bob's T-shirt!", "a cat asleep on bob's t-shirt"),
    ("  “keycap: #” (100%) -- 'so'", "keycap # 100 % so"),
    ("हिन्दी भाषा, l’eau naïve", "हिन्दी भाषा l'eau naïve"),
    ("e\u0301te\u0301 \u2603\ufe0f a_b", "\xe9t\xe9 \u2603 a b"),
    ("...", ""),
])  # fmt: skip
def test_words_of_any_script(text: str, words: str) -> None:
    assert list(words_of(text)) == words.split()
    assert list(words_of(words)) == words.split()  # what is shown can be typed


def test_the_most_frequent_words_are_tokens_and_survive_their_state() -> None:
    tokenizer = Words(vocab_size=3)
    before = tokenizer.fingerprint()
    tokenizer.train(["b a c", "c b", "C! d"])
    assert tokenizer.words == ("c", "b", "a")  # those that are as frequent in order
    assert tokenizer.encode("A, b").tolist() == [2, 1]
    assert tokenizer.decode([0, 2]) == "c a"
    with pytest.raises(
        DataError, match=r"unknown word 'cc'\. Did you mean 'c'\? The vocabulary has 3 words: c, b, a\."
    ):
        tokenizer.encode("a cc")
    with pytest.raises(DataError, match="token id 3 is outside"):
        tokenizer.decode([3])
    other = Words()
    other.load_state(tokenizer.state())
    assert (other.words, other.fingerprint()) == (tokenizer.words, tokenizer.fingerprint())
    assert before != tokenizer.fingerprint()
    with pytest.raises(ConfigError, match="vocab_size must be a whole number >= 1"):
        Words(vocab_size=0)


@pytest.mark.parametrize(
    "state", ["", "[]", '{"words": ["a", "a"]}', '{"words": ["A"]}', '{"words": ["a b"]}', '{"words": [1]}']
)
def test_other_states_are_refused(state: str) -> None:
    with pytest.raises(DataError, match="not the state of a tokenizer of words"):
        Words().load_state(state)


def learned(tokenizer: Any, *texts: str) -> Any:
    tokenizer.train(texts)
    return tokenizer


def test_numbers_of_captions_begin_at_1_and_come_back() -> None:
    for tokenizer in (learned(Words(), "ab c"), learned(Characters(), "ab c"), Bytes()):
        coder = Coder(tokenizer, 6)
        numbers = coder.read(" ab   c ")
        assert numbers == (tokenizer.encode("ab c") + 1).tolist()
        assert coder.texts(np.array([numbers + [0] * (6 - len(numbers)), [0] * 6])) == ["ab c", ""]
    with pytest.raises(ValueError, match="it has 7 tokens, and captions of these data have at most 6"):
        coder.read("abcdefg")
    assert coder.read("abcdefg", cut=True) == coder.read("abcdef")
    with pytest.raises(ValueError, match="it has no words, only punctuation"):
        Coder(learned(Words(), "a"), 6).read("?!")
    assert Coder(learned(Words(), "a"), 6).read(" ") == []  # an empty caption, as it is typed
    with pytest.raises(ValueError, match=r"has no 'x'"):
        Coder(learned(Characters(), "ab"), 6).read("x")


def test_what_tokens_lack_is_counted_and_said(caplog: pytest.LogCaptureFixture) -> None:
    texts = [("a b c d", "a x"), ("y x",)]
    tokens, loss = encoded(learned(Words(), "a b c d"), texts, 3, "the training images")
    assert (loss.longest, loss.cut, loss.unknown, loss.emptied) == (4, 1, {"x": 2, "y": 1}, 1)
    captions = padded(tokens, texts, 3)
    assert captions.tokens.tolist() == [[1, 2, 3], [1, 0, 0], [0, 0, 0]]
    with caplog.at_level(logging.WARNING):
        tell(loss, 3, 3, "the training images")
    assert [record.message for record in caplog.records] == [
        "1 of the 3 captions of the training images are longer than 3 tokens, and cut. The longest has 4: set "
        "data.caption_length=4 to keep all.",
        "3 words in captions of the training images are not in the vocabulary and left out (2 different: x, y).",
        "1 of the 3 captions of the training images have no word that is known: they are empty.",
    ]
    with pytest.raises(
        DataError, match=r"no 'x' .*have \('a x'\)\. Train with data/tokenizer=bytes, or data\.tokenizer"
    ):
        encoded(learned(Characters(), "a b c d"), texts, 3, "the held-out images")
    unknown = learned(Characters(unknown=True), "a b c d")
    assert encoded(unknown, texts, 9, "")[1].cut == 0  # the remedy


def test_one_of_several_captions_is_drawn_by_seed_epoch_and_row() -> None:
    counts = np.random.default_rng(0).integers(1, 4, 500)
    starts = np.concatenate([[0], np.cumsum(counts)])
    tokens = np.arange(starts[-1], dtype=np.int32)[:, None]
    captions = Captions(tokens, starts, tuple(tuple("x" * n) for n in counts))
    rows = np.arange(500)
    drawn = captions.drawn(rows, 1, 0)[:, 0]
    assert ((starts[:-1] <= drawn) & (drawn < starts[1:])).all()
    assert (captions.drawn(rows[7:9], 1, 0)[:, 0] == drawn[7:9]).all()
    among = counts == 3
    shares = np.bincount((drawn - starts[:-1])[among], minlength=3) / among.sum()
    assert abs(shares - 1 / 3).max() < 0.12  # 4 standard deviations
    assert (captions.drawn(rows, 2, 0)[:, 0] != drawn)[among].mean() > 0.5
    assert (captions.drawn(rows, 1, 1)[:, 0] != drawn)[among].mean() > 0.5
    part = captions.of(np.array([3, 1]))
    assert part.texts == (captions.texts[3], captions.texts[1])
    assert part.tokens[:, 0].tolist() == [*range(starts[3], starts[4]), *range(starts[1], starts[2])]
    assert part.first[:, 0].tolist() == [starts[3], starts[1]]

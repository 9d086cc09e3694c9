"""Words as tokens, for captions."""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from genlab.data.tokenizer.base import CaptionTokenizer, outside
from genlab.errors import ConfigError, DataError, did_you_mean

_ASCII = re.compile(r"[a-z0-9]+(?:['\-][a-z0-9]+)*|[#*&%@+$=<>^|~]")
_INSIDE = "'-‐·"  # between two letters they belong to the word: t-shirt, l'eau
_KEPT = "#*&%@"  # punctuation that says something: keycap #
_JOINERS = "\u200c\u200d"  # between letters of Indic scripts and Persian
_SHOWN = 10  # words in a message; "..." stands for more


class UnknownWordError(DataError):
    """A text has a word that is not in the vocabulary."""


class Words(CaptionTokenizer):
    """The most frequent words of the training captions, the most frequent one first, in lower case. Punctuation is
    dropped, so spelling and spaces are lost: it is for captions, not for text.

    A word is a run of letters, digits and their marks; one apostrophe or hyphen between two of them belongs to it.
    Symbols such as # and % are words of one character. Languages without spaces between words, such as Chinese or
    Thai, need another tokenizer.
    """

    def __init__(self, vocab_size: int = 4096):  # words at most; the others are left out of captions, and counted
        """Raises ConfigError if a value is out of its range."""
        if vocab_size < 1:
            raise ConfigError(f"data.tokenizer.vocab_size must be a whole number >= 1, got {vocab_size}.")
        self._wanted = vocab_size
        self._words: tuple[str, ...] | None = None
        self._numbers: dict[str, int] = {}

    @property
    def words(self) -> tuple[str, ...]:
        """Word i is token i."""
        assert self._words is not None, "not trained yet"
        return self._words

    @property
    def vocab_size(self) -> int:
        return len(self.words)

    def train(self, documents: Iterable[str]) -> None:
        found = Counter(word for document in documents for word in words_of(document))
        self._put(tuple(sorted(found, key=lambda word: (-found[word], word))[: self._wanted]))

    def encode(self, text: str) -> np.ndarray:
        """Raises UnknownWordError, with a similar word if there is one."""
        tokens, unknown = self.known(text)
        if unknown:
            shown = ", ".join(self.words[:_SHOWN]) + ", ..." * (len(self.words) > _SHOWN)
            guess = did_you_mean(unknown[0], self.words)
            raise UnknownWordError(
                f"unknown word '{unknown[0]}'.{guess} The vocabulary has {len(self.words):,} words: {shown}."
            )
        return tokens

    def known(self, text: str) -> tuple[np.ndarray, list[str]]:
        """The tokens of the words that have one, (L,) int64, and the words that have none."""
        found = [(word, self._numbers.get(word)) for word in words_of(text)]
        tokens = np.array([number for _, number in found if number is not None], dtype=np.int64)
        return tokens, [word for word, number in found if number is None]

    def decode(self, tokens: Sequence[int]) -> str:
        """Raises DataError for a token outside of the vocabulary."""
        for token in tokens:
            if not 0 <= token < len(self.words):
                raise outside(token, len(self.words))
        return " ".join(self.words[token] for token in tokens)

    def state(self) -> str:
        return json.dumps({"vocab_size": self._wanted} if self._words is None else {"words": self._words})

    def load_state(self, state: str) -> None:
        try:
            match json.loads(state):
                case {"words": [*words]} if all(isinstance(w, str) and list(words_of(w)) == [w] for w in words):
                    if len({*words}) == len(words):
                        return self._put(tuple(words))
        except ValueError:
            pass
        raise DataError("this is not the state of a tokenizer of words.")

    def _put(self, words: tuple[str, ...]) -> None:
        self._words, self._numbers = words, {word: number for number, word in enumerate(words)}


def words_of(text: str) -> Iterator[str]:
    """The words of a text in lower case, in order; also those that have no token."""
    text = unicodedata.normalize("NFC", text).lower().replace("’", "'")
    return iter(_ASCII.findall(text)) if text.isascii() else _scanned(text)


def _scanned(text: str) -> Iterator[str]:
    """The same for any script, in which marks belong to the letter before them."""
    word = ""
    for i, character in enumerate(text):
        within = bool(word) and i + 1 < len(text) and text[i + 1].isalnum()
        if character.isalnum() or (word and (_is_mark(character) or (character in _INSIDE and within))):
            word += character
            continue
        if word:
            yield word
            word = ""
        if character in _KEPT or unicodedata.category(character).startswith("S"):
            yield character
    if word:
        yield word


def _is_mark(character: str) -> bool:
    return character in _JOINERS or unicodedata.category(character).startswith("M")

"""From text to whole numbers and back: the contract of tokenizers, and text while it is being generated."""

import codecs
import hashlib
from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from genlab.errors import DataError


class Tokenizer(Protocol):
    """Text to tokens 0 ... vocab_size - 1. Each stands for certain bytes of UTF-8, whatever stands beside it."""

    @property
    def vocab_size(self) -> int:
        """Known once it has been trained."""

    @property
    def end(self) -> int | None:
        """The token that ends a document; None: documents are simply joined. Known once it has been trained."""

    def train(self, documents: Iterable[str]) -> None:
        """Learn the vocabulary from the documents of the training split."""

    def encode(self, text: str) -> np.ndarray:
        """(L,) int64, never the end token. Raises DataError, with its place, for a character without a token."""

    def bytes_of(self, token: int) -> bytes:
        """What a token stands for; nothing for the end token. Raises DataError for one outside of the vocabulary."""

    def state(self) -> str:
        """JSON text: all that it has learned; before that, all that will decide what it learns."""

    def load_state(self, state: str) -> None:
        """Undoes :meth:`state`. Raises DataError if it cannot be what this class has learned."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The text. Bytes that are not UTF-8, such as half a character, become U+FFFD."""
        return b"".join(self.bytes_of(int(token)) for token in tokens).decode("utf-8", "replace")

    def byte_lengths(self) -> np.ndarray:
        """(V,) int64: the bytes that each token stands for, for bits per byte."""
        return np.array([len(self.bytes_of(token)) for token in range(self.vocab_size)], dtype=np.int64)

    def fingerprint(self) -> str:
        """16 hex digits of class and state: where they are equal, the same text has the same tokens."""
        return hashlib.blake2b(f"{type(self).__name__} {self.state()}".encode(), digest_size=8).hexdigest()


class UnknownCharacterError(DataError):
    """A text has a character without a token. ``position``: its number in the text."""

    def __init__(self, what: str, text: str, position: int):
        super().__init__(f"{what}, which is {place_of(text, position)}: the training text has none.")
        self.what, self.position = what, position


@runtime_checkable
class HasUnknown(Protocol):
    """A tokenizer that may have a token for characters without one of their own."""

    @property
    def unknown(self) -> int | None:
        """That token; None: such characters are refused."""

    def extra_bits(self) -> np.ndarray:
        """(V,) float64: bits that tell which text a token stands for; 0 where it stands for one."""


def unknown_of(tokenizer: Tokenizer) -> int | None:
    """The token of characters without one; None: there is none."""
    return tokenizer.unknown if isinstance(tokenizer, HasUnknown) else None


class StreamDecoder:
    """The text of tokens as they come. A character is given out when its last byte is there."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """What can be read now that could not before; maybe nothing."""
        return self._decoder.decode(self._tokenizer.bytes_of(token))

    def finish(self) -> str:
        """What is left: nothing, or U+FFFD for a character that stays incomplete."""
        return self._decoder.decode(b"", final=True)


def utf8(text: str) -> bytes:
    """Raises DataError for half a surrogate pair, which a string of Python may hold and no text does."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"the text is not Unicode: {text[error.start]!r} {place_of(text, error.start)}.") from error


def place_of(text: str, position: int) -> str:
    """For messages: where in a document."""
    return f"at character {position} (line {text.count(chr(10), 0, position) + 1})"


def outside(token: int, vocab_size: int) -> DataError:
    """To be raised for a token that there is not."""
    return DataError(f"token id {token} is outside the vocabulary ({vocab_size}).")

"""The tokenizer protocol, and a streaming decoder."""

import codecs
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from genlab.errors import DataError


class CaptionTokenizer(Protocol):
    """Text to tokens 0 ... vocab_size - 1 and back, as captions need it: spelling and spaces need not survive."""

    @property
    def vocab_size(self) -> int:
        """The number of tokens, known once it is trained."""

    def train(self, documents: Iterable[str]) -> None:
        """Learn the vocabulary from the documents of the training split."""

    def encode(self, text: str) -> np.ndarray:
        """(L,) int64, never the end token. Raises DataError for a character, or a word, without a token."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The text."""
        ...

    def state(self) -> str:
        """The learned state as JSON; before training, the settings that determine it."""

    def load_state(self, state: str) -> None:
        """Restore a :meth:`state`. Raises DataError if it is not a state of this class."""

    def fingerprint(self) -> str:
        """16 hex digits, a hash of class and state: if equal, the same text has the same tokens."""
        return hashlib.blake2b(f"{type(self).__name__} {self.state()}".encode(), digest_size=8).hexdigest()


END = "<|endoftext|>"  # how templates write the end token of tokenizers that are learned here


class Special(NamedTuple):
    """A special token: one that no text is encoded as, such as the mark before an answer."""

    token: int
    takes_space_before: bool = False  # white space beside it is part of it
    takes_space_after: bool = False


class Tokenizer(CaptionTokenizer, Protocol):
    """A tokenizer without loss: each token stands for certain bytes of UTF-8, independent of its neighbors; but for a
    space that some add where a text begins."""

    @property
    def begin(self) -> int | None:
        """The token before a document and before a prompt, which is given and never predicted; None: there is none."""
        return None

    @property
    def end(self) -> int | None:
        """The token that ends a document; None: documents are simply joined. Known once it has been trained."""

    def special(self) -> Mapping[str, Special]:
        """The special tokens by how a template writes them, the end token included. Known once it is trained."""
        return {} if self.end is None else {END: Special(self.end)}

    def reserve(self, tokens: Sequence[str]) -> None:
        """Have these special tokens beside the end token. Called before training; a tokenizer that is not trained here
        keeps those that it has, and one that cannot have any ignores it."""

    def encode_within(self, text: str, after_special: bool) -> np.ndarray:
        """(L,) int64: the tokens of a text where it does not begin a document, but follows a special token, or other
        text. Raises as :meth:`encode` does."""
        return self.encode(text)

    def prompt(self, text: str) -> np.ndarray:
        """(L,) int64: the tokens of a text that is to be continued, after the begin token, if there is one. Raises as
        :meth:`encode` does."""
        return np.array([*([] if self.begin is None else [self.begin]), *self.encode(text)], dtype=np.int64)

    def bytes_of(self, token: int) -> bytes:
        """The bytes of a token; none for special ones. Raises DataError for one outside of the vocabulary."""

    def bytes_after(self, token: int, before: int | None) -> bytes:
        """Those of a token that follows the token ``before`` (None: that begins a text), without an added space."""
        return self.bytes_of(token)

    def decode(self, tokens: Sequence[int], before: int | None = None) -> str:
        """The text of tokens that follow the token ``before``; None: that begin a text. Bytes that are not UTF-8, such
        as half a character, become U+FFFD."""
        found = [int(token) for token in tokens]
        both = zip(found, [before, *found], strict=False)
        return b"".join(self.bytes_after(token, previous) for token, previous in both).decode("utf-8", "replace")

    def byte_lengths(self) -> np.ndarray:
        """(V,) int64: the bytes that each token stands for, for bits per byte."""
        return np.array([len(self.bytes_of(token)) for token in range(self.vocab_size)], dtype=np.int64)

    def added_spaces(self, tokens: np.ndarray, before: np.ndarray) -> int:
        """How many of ``tokens`` (...) have a space that the tokenizer added, by those that they follow (...)."""
        return 0


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
        """The unknown token; None: such characters are refused."""

    def extra_bits(self) -> np.ndarray:
        """(V,) float64: bits to choose the text that a token stands for; 0 if it stands for one text."""


def unknown_of(tokenizer: Tokenizer) -> int | None:
    """The unknown token of a tokenizer; None: there is none."""
    return tokenizer.unknown if isinstance(tokenizer, HasUnknown) else None


class StreamDecoder:
    """Decodes tokens one by one. A character is returned when its last byte is there."""

    def __init__(self, tokenizer: Tokenizer, before: int | None = None):
        """``before``: the token that the first one follows; None: it begins a text."""
        self._tokenizer, self._before = tokenizer, before
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The text that this token completes; maybe none."""
        found = self._tokenizer.bytes_after(token, self._before)
        self._before = token
        return self._decoder.decode(found)

    def finish(self) -> str:
        """The rest: nothing, or U+FFFD for an incomplete character."""
        return self._decoder.decode(b"", final=True)


def utf8(text: str) -> bytes:
    """Encode as UTF-8. Raises DataError for half a surrogate pair, which is not valid text."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"the text is not Unicode: {text[error.start]!r} {place_of(text, error.start)}.") from error


def place_of(text: str, position: int) -> str:
    """The position in a document, for messages."""
    return f"at character {position} (line {text.count(chr(10), 0, position) + 1})"


def outside(token: int, vocab_size: int) -> DataError:
    """The error for a token outside of the vocabulary."""
    return DataError(f"token id {token} is outside the vocabulary ({vocab_size}).")

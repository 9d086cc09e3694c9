"""Characters as tokens."""

import json
from collections.abc import Iterable

import numpy as np

from genlab.data.tokenizer.base import Tokenizer, UnknownCharacterError, outside
from genlab.errors import DataError


class Characters(Tokenizer):
    """The characters of the training split, sorted by code point, as in char-rnn and nanoGPT.

    An end token follows them if the training split has more than one document: one text has no ends to learn.
    """

    def __init__(self) -> None:
        self._characters: str | None = None
        self._has_end = False

    def train(self, documents: Iterable[str]) -> None:
        found, count = set[str](), 0
        for document in documents:
            found.update(document)
            count += 1
        self._characters, self._has_end = "".join(sorted(found)), count > 1

    @property
    def characters(self) -> str:
        """Character i is token i."""
        assert self._characters is not None, "not trained yet"
        return self._characters

    @property
    def vocab_size(self) -> int:
        return len(self.characters) + self._has_end

    @property
    def end(self) -> int | None:
        return len(self.characters) if self._has_end else None

    def encode(self, text: str) -> np.ndarray:
        known, codes = _code_points(self.characters), _code_points(text)
        tokens = np.searchsorted(known, codes)
        unknown = np.flatnonzero(np.append(known, 0)[tokens] != codes) if len(known) else np.arange(len(codes))
        if len(unknown):
            first = int(unknown[0])
            what = f"the vocabulary of {self.vocab_size} has no {text[first]!r} (U+{ord(text[first]):04X})"
            raise UnknownCharacterError(what, text, first)
        return tokens

    def bytes_of(self, token: int) -> bytes:
        if not 0 <= token < self.vocab_size:
            raise outside(token, self.vocab_size)
        return self.characters[token].encode() if token != self.end else b""

    def state(self) -> str:
        return json.dumps({"characters": self._characters, "end": self._has_end})

    def load_state(self, state: str) -> None:
        try:
            match json.loads(state):
                case {"characters": str(characters), "end": bool(end)} if sorted(set(characters)) == list(characters):
                    self._characters, self._has_end = characters, end
                    return
        except ValueError:
            pass
        raise DataError("this is not the state of a tokenizer of characters.")


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")

"""Characters as tokens."""

import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from genlab.data.tokenizer.base import END, Special, Tokenizer, UnknownCharacterError, outside
from genlab.errors import DataError

_ALL_CHARACTERS = 0x110000 - 0x800  # of Unicode, surrogates left out


class Characters(Tokenizer):
    """The characters of the training split, sorted by code point, as in char-rnn and nanoGPT.

    An end token follows them if the training split has more than one document, and then other special tokens.

    With ``unknown`` the last token stands for every other character. It is decoded as U+FFFD. In likelihoods,
    :meth:`extra_bits` adds the bits to choose the character among all others.
    """

    def __init__(self, unknown: bool = False):
        """``unknown``: add a token for characters that are not in the training split; else these are refused."""
        self._characters: str | None = None
        self._has_end = False
        self._knows_unknown = unknown
        self._reserved: tuple[str, ...] = ()  # special tokens, after the end token

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
        return len(self.characters) + self._has_end + len(self._reserved) + self._knows_unknown

    def special(self) -> Mapping[str, Special]:
        found = {} if self.end is None else {END: Special(self.end)}
        first = len(self.characters) + self._has_end
        return found | {text: Special(first + i) for i, text in enumerate(self._reserved)}

    def reserve(self, tokens: Sequence[str]) -> None:
        self._reserved = tuple(tokens)

    @property
    def unknown(self) -> int | None:
        """The token of all characters that have none of their own; None: they are refused."""
        return self.vocab_size - 1 if self._knows_unknown else None

    def extra_bits(self) -> np.ndarray:
        """(V,) float64: bits to choose the text where a token stands for several. For the unknown token,
        those of a uniform choice among the Unicode characters without a token, about 20."""
        bits = np.zeros(self.vocab_size)
        if self._knows_unknown:
            bits[-1] = np.log2(_ALL_CHARACTERS - len(self.characters))
        return bits

    @property
    def end(self) -> int | None:
        return len(self.characters) if self._has_end else None

    def encode(self, text: str) -> np.ndarray:
        known, codes = _code_points(self.characters), _code_points(text)
        tokens = np.searchsorted(known, codes)
        unknown = np.flatnonzero(np.append(known, 0)[tokens] != codes) if len(known) else np.arange(len(codes))
        if len(unknown) and self._knows_unknown:
            tokens[unknown] = self.vocab_size - 1
        elif len(unknown):
            first = int(unknown[0])
            what = f"the vocabulary of {self.vocab_size} has no {text[first]!r} (U+{ord(text[first]):04X})"
            raise UnknownCharacterError(what, text, first)
        return tokens

    def bytes_of(self, token: int) -> bytes:
        if not 0 <= token < self.vocab_size:
            raise outside(token, self.vocab_size)
        if token == self.unknown:
            return "\ufffd".encode()
        return self.characters[token].encode() if token < len(self.characters) else b""

    def state(self) -> str:
        more: dict[str, object] = {"unknown": True} if self._knows_unknown else {}
        more |= {"special": self._reserved} if self._reserved else {}
        return json.dumps({"characters": self._characters, "end": self._has_end, **more})

    def load_state(self, state: str) -> None:
        try:
            content = json.loads(state)
            is_ours = isinstance(content, dict) and content.get("unknown", False) is self._knows_unknown
            match content:
                case {"characters": str(characters), "end": bool(end)} if is_ours and _is_sorted(characters):
                    reserved = content.get("special", [])
                    if isinstance(reserved, list) and all(isinstance(text, str) for text in reserved):
                        self._characters, self._has_end, self._reserved = characters, end, tuple(reserved)
                        return
        except ValueError:
            pass
        raise DataError("this is not the state of a tokenizer of characters.")


def _is_sorted(characters: str) -> bool:
    return sorted(set(characters)) == list(characters)


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")

"""Bytes as tokens."""

import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from genlab.data.tokenizer.base import END, Special, Tokenizer, outside, utf8
from genlab.errors import DataError


class Bytes(Tokenizer):
    """The 256 bytes of UTF-8, then the end token and other special ones: for any text, without training."""

    end = 256

    def __init__(self) -> None:
        self._reserved: tuple[str, ...] = ()  # special tokens, from 257 on

    @property
    def vocab_size(self) -> int:
        return 257 + len(self._reserved)

    def special(self) -> Mapping[str, Special]:
        return {END: Special(self.end)} | {text: Special(257 + i) for i, text in enumerate(self._reserved)}

    def reserve(self, tokens: Sequence[str]) -> None:
        self._reserved = tuple(tokens)

    def train(self, documents: Iterable[str]) -> None:
        """Nothing to do."""

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(utf8(text), dtype=np.uint8).astype(np.int64)

    def bytes_of(self, token: int) -> bytes:
        if not 0 <= token < self.vocab_size:
            raise outside(token, self.vocab_size)
        return bytes([token]) if token < self.end else b""

    def state(self) -> str:
        return json.dumps({"special": self._reserved} if self._reserved else {})

    def load_state(self, state: str) -> None:
        try:
            match json.loads(state):
                case {"special": [*tokens], **rest} if not rest and all(isinstance(text, str) for text in tokens):
                    self._reserved = tuple(tokens)
                    return
                case {**rest} if not rest:
                    self._reserved = ()
                    return
        except ValueError:
            pass
        raise DataError("this is not the state of a tokenizer of bytes.")

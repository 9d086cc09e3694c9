"""Bytes as tokens."""

from collections.abc import Iterable

import numpy as np

from genlab.data.tokenizer.base import Tokenizer, outside, utf8
from genlab.errors import DataError


class Bytes(Tokenizer):
    """The 256 bytes of UTF-8, then the end token: for any text, without training."""

    vocab_size = 257
    end = 256

    def train(self, documents: Iterable[str]) -> None:
        """Nothing to do."""

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(utf8(text), dtype=np.uint8).astype(np.int64)

    def bytes_of(self, token: int) -> bytes:
        if not 0 <= token < self.vocab_size:
            raise outside(token, self.vocab_size)
        return bytes([token]) if token != self.end else b""

    def state(self) -> str:
        return "{}"

    def load_state(self, state: str) -> None:
        if state != "{}":
            raise DataError("this is not the state of a tokenizer of bytes.")

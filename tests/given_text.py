"""Text whose tokens are given, for the tests of what reads text."""

import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from genlab.data.base import Split
from genlab.data.text import TextDataModule
from genlab.data.tokenizer.characters import Characters


def characters(count: int) -> Characters:
    """``count`` characters, of one to four bytes, as tokens."""
    points = [*range(0x20, 0x7F), 0xE9, 0x20AC, 0x1D11E]  # the last three are of two, three and four bytes
    tokenizer = Characters()
    tokenizer.load_state(json.dumps({"characters": "".join(map(chr, points[-count:])), "end": False}))
    return tokenizer


class GivenText(TextDataModule):
    def __init__(self, tokens: Any, context: int, vocab_size: int):
        super().__init__(characters(vocab_size), context)
        self.given = np.asarray(tokens, dtype=np.uint16)

    def documents(self, split: Split) -> Iterable[str]:
        return [self.tokenizer.decode(self.given.tolist())]

    @property
    def tokenizer(self) -> Characters:  # type: ignore[override]
        return self._tokenizer  # type: ignore[return-value]

    def tokens(self, split: Split) -> np.ndarray:
        return self.given

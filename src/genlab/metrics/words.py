"""Words and word n-grams of a text, independent of the model's tokenizer."""

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

WORDS = "words and marks"  # what is counted, for a metric's settings

_WORD = re.compile(r"\w+|([^\w\s])\1*")


def words(text: str) -> list[str]:
    """Runs of letters, digits and underscores, and of one other character that is not a space, such as a ruled line."""
    return [match[0] for match in _WORD.finditer(text)]


def word_ids(text: str) -> np.ndarray:
    """(W,) uint64: a hash of each word, the same everywhere. A million words share one once in 40 million times."""
    return np.array([_hash(word) for word in words(text)], dtype=np.uint64)


def ngrams(ids: np.ndarray, n: int) -> np.ndarray:
    """(W,) uint64 ids of words -> (max(W - n + 1, 0),) of the runs of ``n`` words, which depend on their order."""
    count = max(len(ids) - n + 1, 0)
    found = np.zeros(count, dtype=np.uint64)
    for place in range(n):
        found = _scattered(found) + ids[place : place + count]
    return found


def repeated(grams: Sequence[int] | np.ndarray) -> tuple[int, int]:
    """How many n-grams there are, and how many of them are not the first of their kind."""
    return len(grams), len(grams) - len(np.unique(grams))


@lru_cache(maxsize=1 << 16)
def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")


def _scattered(x: np.ndarray) -> np.ndarray:
    """A bijection of 64-bit integers (the output function of SplitMix64), so that sums of them do not meet."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))

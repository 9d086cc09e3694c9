"""Text features from hashed counts of character n-grams, without a network or a download."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any, Literal

import torch
from torch import Tensor

from genlab.errors import ConfigError


class HashedNgrams:
    """How often each run of up to ``longest`` characters is in a text, put into ``size`` buckets by a hash with a sign
    (Weinberger et al. 2009, arXiv:0902.2206), and scaled to length 1.

    They distinguish languages, alphabets, markup, spelling and topics. They ignore meaning and almost all
    order: text with shuffled words has nearly the same features. The hash is MurmurHash3, the same on every
    machine.
    """

    modality: Literal["text"] = "text"
    gives = frozenset({"features"})

    def __init__(self, longest: int = 4, size: int = 1024):
        """Raises ConfigError if an argument is out of its range."""
        if longest < 1 or size < 1:
            raise ConfigError(f"metrics.extractor: longest={longest} and size={size} must be whole numbers >= 1.")
        self.name = f"ngrams{size}"
        self.preprocessing = f"counts of 1 to {longest} characters, hashed with a sign, L2 norm"
        self.longest, self.size = longest, size

    @cached_property
    def count(self) -> Any:
        """Texts to their features: scikit-learn's, which is slow to import, so only when there is a text."""
        from sklearn.feature_extraction.text import HashingVectorizer

        return HashingVectorizer(
            analyzer="char",
            ngram_range=(1, self.longest),
            n_features=self.size,
            lowercase=False,
            norm="l2",
            alternate_sign=True,
        )

    def fingerprint(self) -> str:
        described = f"{self.name} {self.preprocessing} scikit-learn {version('scikit-learn').split('.')[0]}"
        return hashlib.sha256(described.encode()).hexdigest()[:16]

    def extract(self, examples: Sequence[str], wanted: frozenset[str]) -> dict[str, Tensor]:
        """N texts -> ``features`` (N, size), float32, on the CPU; of an empty text all 0."""
        return {"features": torch.from_numpy(self.count.transform(examples).toarray()).float()}

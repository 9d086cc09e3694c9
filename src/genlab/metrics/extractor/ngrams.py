"""Text features from hashed counts of character n-grams, without a network or a download."""

import hashlib
from collections.abc import Sequence
from typing import Literal

import torch
from sklearn import __version__ as sklearn_version
from sklearn.feature_extraction.text import HashingVectorizer
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
        self.count = HashingVectorizer(
            analyzer="char", ngram_range=(1, longest), n_features=size, lowercase=False, norm="l2", alternate_sign=True
        )

    def fingerprint(self) -> str:
        described = f"{self.name} {self.preprocessing} scikit-learn {sklearn_version.split('.')[0]}"
        return hashlib.sha256(described.encode()).hexdigest()[:16]

    def extract(self, examples: Sequence[str], wanted: frozenset[str]) -> dict[str, Tensor]:
        """N texts -> ``features`` (N, size), float32, on the CPU; of an empty text all 0."""
        return {"features": torch.from_numpy(self.count.transform(examples).toarray()).float()}

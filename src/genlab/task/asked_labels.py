"""The labels of an evaluation's samples, such that all prefixes have the right class mix."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from genlab.data.class_counts import class_counts


@dataclass(frozen=True)
class AskedLabels:
    """Label i is a function of i and of the classes' shares p alone: the class with the largest deficit
    p_k (i + 1) - count_k among the labels so far, the lowest of equals. So in every prefix each class is within two of
    its share, and where all shares are equal the classes come in turn.

    A distance to the data (e.g. FID) penalizes another mix of classes: a perfect model must be sampled with
    the reference's mix.
    """

    counts: tuple[int, ...]  # proportional to the shares; 0: never used. At least one is above 0

    @classmethod
    def like(
        cls,
        labels: np.ndarray | None,  # (N,) of the reference, -1: none
        classes: int,
        empty: Sequence[int] = (),  # classes without training examples
        balanced: bool = False,  # all other classes equally often, whatever the reference has
    ) -> "AskedLabels":
        """The mix of a reference; without labels, all existing classes equally often."""
        there = np.ones(classes, dtype=np.int64)
        there[list(empty)] = 0
        counts = there * (0 if labels is None or balanced else class_counts(labels, classes))
        return cls(tuple((counts if counts.any() else there).tolist()))

    @property
    def in_turn(self) -> bool:
        """Whether label i is i mod classes."""
        return len(set(self.counts)) == 1

    def of(self, indices: Sequence[int]) -> Tensor:
        """The labels of the samples ``indices``, int64 (N,)."""
        shares = np.array(self.counts, dtype=np.int64)
        shares //= np.gcd.reduce(shares)
        places = np.asarray(indices, dtype=np.int64) % shares.sum()  # the period of the labels
        length = 1 + int(places.max(initial=-1))
        return torch.from_numpy(_first(tuple(shares.tolist()), length)[places])

    def described(self) -> str:
        """For a protocol: the kind of mix, and a hash of it."""
        kind = "balanced" if len({*self.counts} - {0}) == 1 else "of the reference"
        return f"{kind} {hashlib.sha256(repr(self.counts).encode()).hexdigest()[:8]}"


@lru_cache(maxsize=8)
def _first(shares: tuple[int, ...], length: int) -> np.ndarray:
    """The first labels, (length,). Whole numbers throughout, so that equal deficits are equal."""
    gains, total = np.array(shares, dtype=np.int64), sum(shares)
    deficits, labels = np.zeros_like(gains), np.empty(length, dtype=np.int64)
    for i in range(length):
        deficits += gains
        labels[i] = k = deficits.argmax()
        deficits[k] -= total
    return labels

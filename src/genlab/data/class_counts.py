"""Counts the examples of each class, and describes classes with none or few."""

from collections.abc import Sequence

import numpy as np

_TINY = 0.1  # of an even share: a class with less is hardly learned or measured
_NAMED = 5  # classes named in a sentence


def class_counts(labels: np.ndarray, classes: int) -> np.ndarray:
    """Labels (N,), -1: none -> the number of examples of each class, (classes,)."""
    return np.bincount(labels[labels >= 0], minlength=classes)


def remark(counts: np.ndarray, names: Sequence[str]) -> str | None:
    """A sentence on classes without a training image, which are never sampled, and on those with few; None: there
    are no such classes. ``counts``: (classes,)."""
    even = counts.sum() / max(1, np.count_nonzero(counts))
    empty, tiny = np.flatnonzero(counts == 0), np.flatnonzero((counts > 0) & (counts < _TINY * even))
    parts = []
    if len(empty):
        they = "it" if len(empty) == 1 else "they"
        parts.append(
            f"no training image has the label {_listed([names[k] for k in empty.tolist()])}: {they} will not be sampled"
        )
    if len(tiny):
        few = _listed([f"{names[k]} ({counts[k]:,})" for k in tiny.tolist()])
        parts.append(f"of {counts.sum():,} training images, few are of the class{'es' * (len(tiny) > 1)} {few}")
    return "; ".join(parts) + "." if parts else None


def _listed(words: Sequence[str]) -> str:
    more = f" and {len(words) - _NAMED} more" if len(words) > _NAMED else ""
    return ", ".join(words[:_NAMED]) + more

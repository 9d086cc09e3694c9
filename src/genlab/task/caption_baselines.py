"""Captions made without a model, to compare scores with."""

from collections.abc import Sequence

import numpy as np

from genlab.progress import progress
from genlab.seeding import derive_seed

_AT_ONCE = 64  # pictures


def nearest_captions(known: np.ndarray, captions: Sequence[Sequence[str]], images: np.ndarray) -> list[str]:
    """For each of ``images`` (N, C, H, W) the first caption of the nearest of ``known`` (M, C, H, W), by the squared
    distance of pixels."""
    table = known.reshape(len(known), -1).astype(np.float32) / np.iinfo(known.dtype).max
    squares = (table * table).sum(axis=1)
    found: list[str] = []
    with progress(f"looking for the nearest of {len(known):,} pictures", len(images)) as advance:
        for start in range(0, len(images), _AT_ONCE):
            some = images[start : start + _AT_ONCE].astype(np.float32) / np.iinfo(known.dtype).max
            distances = squares - 2 * some.reshape(len(some), -1) @ table.T  # (n, M), but for the pictures' own squares
            found += [captions[row][0] for row in distances.argmin(axis=1)]
            advance(len(some))
    return found


def of_other_pictures(captions: Sequence[Sequence[str]], seed: int) -> list[str]:
    """For each picture a caption of another one: all in random order, moved on by one place."""
    order = np.random.default_rng(derive_seed(seed, 0)).permutation(len(captions))
    found = [""] * len(captions)
    for place, row in enumerate(order):
        found[row] = captions[order[place - 1]][0]
    return found

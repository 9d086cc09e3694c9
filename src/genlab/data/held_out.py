"""Which rows of a data set without a published split are held out, and either part of it without reading the other."""

from pathlib import Path

import numpy as np

from genlab.data.base import Split
from genlab.data.pixel_cache import cached_pixels
from genlab.errors import DataError
from genlab.seeding import uniform_by_index

_SPLIT_SEED = 0  # never the run's: every run holds out the same images


def rows_of(split: Split, count: int, val_fraction: float, name: str) -> np.ndarray:
    """The rows of a part, (n,) in order, of ``count`` in all. A row is held out if the hash of its number is below
    ``val_fraction``, so it stays on its side when rows are appended. Each side has at least one row.

    Raises:
        DataError: there are fewer than two rows; ``name`` says of what.
    """
    if count < 2:
        raise DataError(f"{name} has one image; one to train and one to hold out are the least.")
    hashes = uniform_by_index(_SPLIT_SEED, np.arange(count))
    held_out = hashes < val_fraction
    held_out[hashes.argmin()], held_out[hashes.argmax()] = True, False
    return np.flatnonzero(held_out if split == "val" else ~held_out)


def cached_part(images: np.ndarray, chosen: np.ndarray, folder: Path, key: str) -> np.ndarray:
    """The rows ``chosen`` (n,) of a mapped array, written once into the cache at ``folder`` and mapped from there.

    ``key`` names what the array and the choice depend on. Raises StorageError if the cache cannot be written.
    """
    return cached_pixels(folder, key, lambda: (images[row] for row in chosen))[0]

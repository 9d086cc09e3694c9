"""Held-out splits by hash, for data sets without a published split."""

import hashlib
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from genlab.data.array_cache import cached_rows
from genlab.data.base import Split
from genlab.errors import DataError
from genlab.seeding import uniform_by_index

_SPLIT_SEED = 0  # never the run's: every run holds out the same images


def held_out_names(names: Iterable[str], val_fraction: float) -> set[str]:
    """The names whose hash is below ``val_fraction``. So a file keeps its split when others are added or removed.

    Each split has at least one of the names, of which there are at least two: if the rule gives none, it gets the one
    with the smallest, or largest, hash.
    """
    hashes = {name: name_hash(name) for name in names}
    found = {name for name, value in hashes.items() if value < val_fraction}
    if not found:
        return {min(hashes, key=hashes.__getitem__)}
    return found - {max(hashes, key=hashes.__getitem__)} if len(found) == len(hashes) else found


def name_hash(name: str) -> float:
    """A hash in [0, 1); the same on systems with another Unicode normalization of file names."""
    normal = unicodedata.normalize("NFC", name).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(normal, digest_size=8).digest(), "big") / 2**64


def rows_of(split: Split, count: int, val_fraction: float, name: str) -> np.ndarray:
    """The rows of a part, (n,) in order, of ``count`` in all. A row is held out if the hash of its number is below
    ``val_fraction``, so it keeps its split when rows are appended. Each split has at least one row.

    Raises:
        DataError: there are fewer than two rows; ``name`` is for the message.
    """
    if count < 2:
        raise DataError(f"{name} has one image; at least one to train and one to hold out are needed.")
    hashes = uniform_by_index(_SPLIT_SEED, np.arange(count))
    held_out = is_held_out(np.arange(count), val_fraction)
    held_out[hashes.argmin()], held_out[hashes.argmax()] = True, False
    return np.flatnonzero(held_out if split == "val" else ~held_out)


def is_held_out(rows: np.ndarray, val_fraction: float) -> np.ndarray:
    """(N,) numbers of rows -> (N,) bool: their hash is below ``val_fraction``."""
    return uniform_by_index(_SPLIT_SEED, rows) < val_fraction


def cached_part(images: np.ndarray, chosen: np.ndarray, folder: Path, key: str) -> np.ndarray:
    """The rows ``chosen`` (n,) of a mapped array, written once into the cache at ``folder`` and mapped from there.

    ``key`` names what the array and the choice depend on. Raises StorageError if the cache cannot be written.
    """
    return cached_rows(folder, key, lambda: (images[row] for row in chosen))[0]

"""Handwritten digits from scikit-learn: a small data set without a download."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from genlab.data.base import Split
from genlab.data.image import ImageDataModule, ImageTable
from genlab.seeding import uniform_by_index

_HELD_OUT = 50  # of each digit
_SPLIT_SEED = 0  # never the run's: every run holds out the same images


class Digits(ImageDataModule):
    """1,797 gray digits of 8 x 8 pixels (Alpaydin & Kaynak 1998), framed in black: (1, 16, 16), 10 classes.

    The frame is zeros rather than an enlargement. It is exact and can be cut off again, so there are no interpolated
    pixels whose smoothness would favor some models; 16 x 16 costs a quarter of 32 x 32 and can be halved twice,
    as the networks here need. The values 0..16 become round(value * 255 / 16), again invertible.

    The split is 1,297 for training and 500 held out, 50 of each digit: a round number for scores that name their
    sample count, the same for every class, and enough left to train on. Held out are, of each digit, the 50 images
    whose index has the smallest hash, so the split depends on neither the run's seed nor the version of a library.
    """

    def load(self, split: Split) -> ImageTable:
        """(1297 or 500, 1, 16, 16) uint8, in the order of the original."""
        table = _table()
        values, labels = table[:, :-1], table[:, -1].astype(np.int64)
        held_out = _held_out(labels)
        chosen = held_out if split == "val" else ~held_out
        images = np.rint(values.reshape(-1, 1, 8, 8) * 255 / 16).astype(np.uint8)  # (N, 1, 8, 8)
        images = np.pad(images, ((0, 0), (0, 0), (4, 4), (4, 4)))  # (N, 1, 16, 16)
        return ImageTable(images[chosen], labels[chosen], tuple(str(digit) for digit in range(10)))


def _table() -> np.ndarray:
    """(1797, 65): what scikit-learn's ``load_digits`` reads, 64 pixels of an image and its label.

    The file is read without the library, which takes a second to import.
    """
    library = find_spec("sklearn")
    for folder in library.submodule_search_locations or () if library else ():
        path = Path(folder, "datasets", "data", "digits.csv.gz")
        if path.exists():
            return np.loadtxt(path, delimiter=",")
    from sklearn.datasets import load_digits  # of another version, which keeps it elsewhere

    return np.column_stack(load_digits(return_X_y=True))


def _held_out(labels: np.ndarray) -> np.ndarray:
    """(N,) labels -> (N,) bool, true for the 50 of each class that are held out."""
    rank = uniform_by_index(_SPLIT_SEED, np.arange(len(labels)))
    held_out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        held_out[members[np.argsort(rank[members])[:_HELD_OUT]]] = True
    return held_out

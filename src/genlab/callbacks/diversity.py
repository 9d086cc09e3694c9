"""Diversity of the samples of a grid relative to held-out images, to detect mode collapse."""

import numpy as np
import torch
from torch import Tensor

from genlab.data.image import ImageTable

_PAIRS = 10  # fewest pairs for a mean
_PER_CLASS = 20  # held-out images of a class that are compared with each other
_NUMBERS = 50_000_000  # pixels that are held as float32 at a time
_CHANCE = 0.01  # probability that a perfect model is reported to miss a class


def distance_ratio(samples: Tensor, labels: Tensor | None, held_out: ImageTable) -> float | None:
    """Mean distance of two samples of a class, relative to that of two held-out images of it: 1 for new data, 0 for one
    image over and over (the pairwise distance by which Zhu et al. 2017, arXiv:1711.11586, sec. 5, measure diversity, in
    pixels). A distance is the root mean square difference of pixels; noise is farther apart than any data.

    None: there are too few pairs, or held-out images do not differ. Where no class was drawn twice, all samples count
    as one class, as they do without labels. ``samples``: (N, C, H, W) uint8; ``labels``: (N,).
    """
    if labels is None or held_out.labels is None or len(labels.unique()) == len(labels):
        labels, classes = torch.zeros(len(samples), dtype=torch.long), np.zeros(len(held_out), dtype=np.int64)
    else:
        classes = held_out.labels
    ours, theirs, pairs = [], [], 0
    for label in labels.unique().tolist():
        drawn = samples[labels == label]
        real = np.flatnonzero(classes == label)
        if len(drawn) < 2 or len(real) < 2:
            continue
        ours.append(pairwise_distance(drawn))
        theirs.append(pairwise_distance(_spread(held_out, real, _PER_CLASS)))
        pairs += len(drawn) * (len(drawn) - 1) // 2
    return sum(ours) / sum(theirs) if pairs >= _PAIRS and sum(theirs) > 0 else None


def pairwise_distance(images: Tensor) -> float:
    """Mean over all pairs of the root mean square difference of their pixels, in [0, 1]. (N, C, H, W) uint8, N >= 2."""
    rows = images.flatten(1).float() / 255
    return float(torch.pdist(rows).mean()) / rows.shape[1] ** 0.5


def classes_drawn(samples: Tensor, train: ImageTable, held_out: ImageTable) -> tuple[list[int], list[int]]:
    """The classes of samples (N, C, H, W) uint8, and the classes whose absence is not explained by chance.

    A sample has the class of its nearest training image. That is a poor classifier of large pictures, so its results
    on held-out images give the expected frequency of each class. A class is missing if N images of the data would
    contain it with probability 0.99, after Bonferroni's correction for the number of classes, and the samples do not.
    """
    assert train.labels is not None
    fits = max(1, _NUMBERS // samples[0].numel())
    known = np.flatnonzero(train.labels >= 0)
    known = known[_evenly(len(known), min(2000, fits))]
    images, labels = _rows(_spread(train, known, len(known))), train.labels[known]
    shares = np.zeros(len(train.names))
    real = _spread(held_out, np.arange(len(held_out)), min(1000, fits))
    np.add.at(shares, labels[_nearest(_rows(real), images)], 1 / len(real))
    drawn = set(labels[_nearest(_rows(samples), images)].tolist())
    luck = (1 - shares) ** len(samples) * len(shares)  # probability that a class is absent
    missing = [label for label in range(len(shares)) if label not in drawn and luck[label] < _CHANCE]
    return sorted(drawn), missing


def _nearest(queries: Tensor, images: Tensor) -> np.ndarray:
    """(N, D), (M, D) -> (N,), places of the nearest images."""
    return (images.square().sum(dim=1) - 2 * queries @ images.T).argmin(dim=1).numpy()


def _rows(images: Tensor) -> Tensor:
    """uint8 -> float32 (N, D), centered at 0, where squares are most exact."""
    return images.flatten(1).float() / 127.5 - 1


def _spread(table: ImageTable, rows: np.ndarray, count: int) -> Tensor:
    """Up to ``count`` images of the ``rows`` of a table, evenly spread."""
    return torch.from_numpy(table.images[rows[_evenly(len(rows), count)]])


def _evenly(size: int, count: int) -> np.ndarray:
    return np.arange(min(size, count)) * size // min(size, count)

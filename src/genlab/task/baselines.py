"""Baseline images made without a model, to compare scores with."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from genlab.data.image import ImageDataModule, ImageTable
from genlab.sampling.examples import Examples
from genlab.seeding import derive_seed


def baselines(
    data: ImageDataModule,
    n: int,
    seed: int,
    labels: Tensor | None = None,  # (N,): the labels of models' samples; None: none
) -> dict[str, Examples]:
    """``n`` images of each kind, by name, made from the training split, with their labels.

    * ``uniform_noise``: every pixel uniform. The worst reasonable score.
    * ``class_means``: the average image of the class. Right on average, without diversity.
    * ``class_gaussian``: draws from a Gaussian with the class's mean and full covariance. What a model must beat.
    * ``copies``: training images of the class, drawn with replacement. Pure memorization: good FID, distance 0.
    * ``floor``: ``n`` distinct training images, labels as they come. No sampler of the training data does better but by
      the reference's own mix of classes; left out where there are fewer than ``n``.
    """
    table = data.table("train")
    wanted = np.zeros(n, dtype=np.int64) if labels is None else labels.numpy()
    rngs = [np.random.default_rng(derive_seed(seed, kind)) for kind in range(4)]
    rows = {
        "uniform_noise": rngs[0].integers(0, 256, (n, *table.images.shape[1:])),
        "class_means": _by_class(table, wanted, lambda images, count: np.repeat(images.mean(0)[None], count, axis=0)),
        "class_gaussian": _by_class(table, wanted, lambda images, count: gaussian_draws(images, count, rngs[1])),
        "copies": _by_class(table, wanted, lambda images, count: images[rngs[2].integers(0, len(images), count)]),
    }
    asked = None if table.labels is None else torch.from_numpy(wanted)
    samples = {name: Examples.of(image=_quantize(images), label=asked) for name, images in rows.items()}
    if n <= len(table):
        chosen = rngs[3].permutation(len(table))[:n]
        floor_labels = None if table.labels is None else torch.from_numpy(table.labels[chosen])
        samples["floor"] = Examples.of(image=torch.from_numpy(table.images[chosen]), label=floor_labels)
    return samples


def gaussian_draws(
    images: np.ndarray,  # (M, ...), M >= 1; one alone has no spread
    count: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draws (count, ...), float32, from the Gaussian with the mean and the full covariance of ``images``.

    With X the centered images as rows and z standard normal, X^T z / sqrt(M - 1) has covariance X^T X / (M - 1)
    exactly: no D x D matrix is made or decomposed.
    """
    x = images.reshape(len(images), -1).astype(np.float32)
    mean = x.mean(axis=0)
    z = rng.standard_normal((count, len(x)), dtype=np.float32) / np.sqrt(np.float32(max(1, len(x) - 1)))
    return (mean + z @ (x - mean)).reshape(count, *images.shape[1:])


def _by_class(table: ImageTable, wanted: np.ndarray, draw: Callable[[np.ndarray, int], np.ndarray]) -> np.ndarray:
    """``draw(images of the class, count)`` for each class, put where ``wanted`` (N,) asks for it."""
    result = np.empty((len(wanted), *table.images.shape[1:]), dtype=np.float32)
    for label in np.unique(wanted):
        images = table.images if table.labels is None else table.images[table.labels == label]
        result[wanted == label] = draw(images, int((wanted == label).sum()))
    return result


def _quantize(images: np.ndarray) -> Tensor:
    """Pixel values of any real type to uint8, rounded and clamped."""
    return torch.from_numpy(np.clip(np.rint(images), 0, 255).astype(np.uint8))

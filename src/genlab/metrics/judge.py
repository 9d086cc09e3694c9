"""An independent classifier on pixels: what is in a picture, whoever made it."""

from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from genlab.errors import DataError

LEAST_RIGHT = 0.8  # of real images, for a judge's word on samples to be of use
_BLUR = 1.0  # pixels, of the second copy that a judge of blurred pictures learns from
_NARROW = 3.0  # its kernel, relative to that of scikit-learn's "scale": 98 % right on digits, 97 % on blurred ones
_FOLDS = 5


class Judge:
    """A support vector machine on pixels. For small pictures: its cost grows as the square of how many it learns from.

    ``blurred``: it learns from each picture and from a blurred copy of it, and names blurred samples as well as sharp
    ones. Without, it takes a blurred digit for another one once in five times.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, penalty: float, blurred: bool):
        """Fit it to ``images`` (N, C, H, W) uint8 and their labels (N,)."""
        from scipy.ndimage import gaussian_filter  # here and below: slow to import, and not needed to train
        from sklearn.svm import SVC

        rows = _unit(images)
        if blurred:
            rows = np.concatenate([rows, _unit(gaussian_filter(images.astype(np.float32), (0, 0, _BLUR, _BLUR)))])
            labels = np.tile(labels, 2)
        self.rows, self.gamma = rows, (_NARROW if blurred else 1.0) / (rows.shape[1] * rows.var())
        self.only = labels[0] if len(np.unique(labels)) == 1 else None  # there is nothing to learn
        if self.only is None:
            self.machine = SVC(C=penalty, kernel="precomputed").fit(self.kernel(rows), labels)

    def kernel(self, rows: np.ndarray) -> np.ndarray:
        """exp(-gamma |x - y|^2) of rows (N, D) and of those that were learned from, (N, M)."""
        squared = np.square(rows).sum(axis=1)[:, None] + np.square(self.rows).sum(axis=1) - 2 * rows @ self.rows.T
        return np.exp(-self.gamma * squared)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """The classes (N,) of images (N, C, H, W) uint8."""
        if self.only is not None:
            return np.full(len(images), self.only)
        return self.machine.predict(self.kernel(_unit(images)))

    def name(self, images: Tensor) -> np.ndarray:
        """As ``predict``; whoever asks about the same images again gets the same answer."""
        pixels = np.ascontiguousarray(images.cpu().numpy())
        return _named(self, pixels.tobytes(), pixels.shape)


def judge_of(images: Tensor, labels: Tensor, penalty: float, blurred: bool) -> tuple[Judge, np.ndarray]:
    """A judge fitted to labelled images, and what judges that had not seen an image made of it, (N,).

    The second says how often, and as what, the judge is wrong about new pictures (five-fold cross-validation). Whoever
    asks for the same again gets the same.
    """
    pixels = np.ascontiguousarray(images.cpu().numpy())
    return _fitted(pixels.tobytes(), pixels.shape, tuple(labels.tolist()), penalty, blurred)


def verdicts(
    judge: Literal["pixels", "logits"],
    real: Tensor,  # the reference: images (M, C, H, W) uint8, or the classes (M,) that logits say
    labels: Tensor,  # (M,) of the reference, -1: none
    samples: Tensor,  # (N, ...), the same of them
    num_reference: int,  # images that a judge on pixels is fitted to, the first labelled ones
    penalty: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels of the part of the reference that is looked at, the classes that a judge finds there who does not know
    them, and the classes of samples (N,).

    Raises DataError if the reference lacks labels, or if pixels are too little to go by.
    """
    if judge == "logits":
        return labels.cpu().numpy(), real.cpu().numpy(), samples.cpu().numpy()
    kept = torch.nonzero(labels >= 0)[:num_reference, 0]
    if not len(kept):
        raise DataError("class_balance needs labels and the data have none. Leave it out of metrics=[...].")
    machine, named = judge_of(real[kept], labels[kept], penalty, blurred=True)
    known = labels[kept].cpu().numpy()
    right = (named == known).mean()
    if right < LEAST_RIGHT:
        raise DataError(
            f"a judge on pixels names only {right:.0%} of the held-out images right, too few to go by. Use "
            "metrics.class_balance.judge=logits, and class_variety's likewise, with an extractor that gives logits, or "
            "leave both out of metrics=[...]."
        )
    return known, named, machine.name(samples)


@lru_cache(maxsize=2)  # several metrics, and every evaluation of a run, ask for the same one
def _fitted(
    pixels: bytes, shape: tuple[int, ...], labels: tuple[int, ...], penalty: float, blurred: bool
) -> tuple[Judge, np.ndarray]:
    from sklearn.model_selection import KFold

    images, classes = np.frombuffer(pixels, dtype=np.uint8).reshape(shape), np.array(labels)
    named = np.empty_like(classes)
    for seen, unseen in KFold(min(_FOLDS, len(classes)), shuffle=True, random_state=0).split(images):
        named[unseen] = Judge(images[seen], classes[seen], penalty, blurred).predict(images[unseen])
    return Judge(images, classes, penalty, blurred), named


@lru_cache(maxsize=2)  # two metrics ask about the same samples
def _named(judge: Judge, pixels: bytes, shape: tuple[int, ...]) -> np.ndarray:
    return judge.predict(np.frombuffer(pixels, dtype=np.uint8).reshape(shape))


def _unit(images: np.ndarray) -> np.ndarray:
    """(N, C, H, W) in [0, 255] -> float32 (N, D) in [0, 1]."""
    return images.reshape(len(images), -1).astype(np.float32) / 255

"""An independent classifier on pixels, which predicts the classes of samples."""

from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from genlab.errors import DataError

LEAST_RIGHT = 0.8  # accuracy on real images that a judge needs
_BLUR = 1.0  # pixels, of the blurred copies that a judge is trained on
_NARROW = 3.0  # its kernel, relative to that of scikit-learn's "scale": 98 % right on digits, 97 % on blurred ones
_FOLDS = 5


class Judge:
    """A support vector machine on pixels. For small pictures: its cost grows as the square of the training set size.

    ``blurred``: it is trained on each picture and on a blurred copy of it, and classifies blurred samples as well as
    sharp ones. Without, it misclassifies one blurred digit in five.
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
        self.only = labels[0] if len(np.unique(labels)) == 1 else None  # a single class
        if self.only is None:
            self.machine = SVC(C=penalty, kernel="precomputed").fit(self.kernel(rows), labels)

    def kernel(self, rows: np.ndarray) -> np.ndarray:
        """exp(-gamma |x - y|^2) of rows (N, D) and the training rows, (N, M)."""
        squared = np.square(rows).sum(axis=1)[:, None] + np.square(self.rows).sum(axis=1) - 2 * rows @ self.rows.T
        return np.exp(-self.gamma * squared)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """The classes (N,) of images (N, C, H, W) uint8."""
        if self.only is not None:
            return np.full(len(images), self.only)
        return self.machine.predict(self.kernel(_unit(images)))

    def name(self, images: Tensor) -> np.ndarray:
        """As ``predict``, cached for repeated calls with the same images."""
        pixels = np.ascontiguousarray(images.cpu().numpy())
        return _named(self, pixels.tobytes(), pixels.shape)


def judge_of(images: Tensor, labels: Tensor, penalty: float, blurred: bool) -> tuple[Judge, np.ndarray]:
    """A judge fitted to labelled images, and its cross-validated predictions for them, (N,).

    The second estimates the judge's errors on new pictures (five-fold cross-validation). Results are cached.
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
    """Labels of the used part of the reference, the cross-validated predictions for it, and the predicted classes of
    samples (N,).

    Raises DataError if the reference lacks labels, or if a judge on pixels is not accurate enough.
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
            f"a judge on pixels classifies only {right:.0%} of the held-out images correctly, too few. Use "
            "metrics.class_balance.judge=logits, and class_variety's likewise, with an extractor that gives logits, or "
            "leave both out of metrics=[...]."
        )
    return known, named, machine.name(samples)


@lru_cache(maxsize=2)  # shared by several metrics, and by all evaluations of a run
def _fitted(
    pixels: bytes, shape: tuple[int, ...], labels: tuple[int, ...], penalty: float, blurred: bool
) -> tuple[Judge, np.ndarray]:
    from sklearn.model_selection import KFold

    images, classes = np.frombuffer(pixels, dtype=np.uint8).reshape(shape), np.array(labels)
    named = np.empty_like(classes)
    for seen, unseen in KFold(min(_FOLDS, len(classes)), shuffle=True, random_state=0).split(images):
        named[unseen] = Judge(images[seen], classes[seen], penalty, blurred).predict(images[unseen])
    return Judge(images, classes, penalty, blurred), named


@lru_cache(maxsize=2)  # shared by two metrics
def _named(judge: Judge, pixels: bytes, shape: tuple[int, ...]) -> np.ndarray:
    return judge.predict(np.frombuffer(pixels, dtype=np.uint8).reshape(shape))


def _unit(images: np.ndarray) -> np.ndarray:
    """(N, C, H, W) in [0, 255] -> float32 (N, D) in [0, 1]."""
    return images.reshape(len(images), -1).astype(np.float32) / 255

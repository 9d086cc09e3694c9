"""The divergence frontier between samples and text (MAUVE: Pillutla et al. 2021, arXiv:2102.01454)."""

import warnings
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from genlab.errors import ConfigError, DataError
from genlab.metrics.base import Direction, MetricBatch
from genlab.metrics.ordered import in_order


class Mauve(Metric):
    """``mauve``, in (0, 1]: the area under the curve of exp(-c KL(Q|R)) and exp(-c KL(P|R)), R between P and Q, where P
    and Q are histograms of the features of text and of samples (section 2.2; appendix A for the constants).

    Features of both sides together are scaled to length 1, projected on the principal components that hold 90 % of
    their variance, and put into clusters by k-means. 1 means equal histograms, 0.004 that no cluster has both. Samples
    that text does not have lower it by one end of the curve, text that samples do not have by the other.

    It depends on the number of samples and of clusters, and much on the features, so numbers are only comparable with
    the same protocol. The paper takes 5000 samples and 500 clusters; two sets of 100 from one source have well below 1:
    read it beside the row ``floor`` of ``baselines=true``. Features of images will do too.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"features"})
    directions: ClassVar[Mapping[str, Direction | None]] = {"mauve": "higher"}
    is_differentiable = False
    full_state_update = False

    real_features: list[Tensor]
    real_index: list[Tensor]
    fake_features: list[Tensor]
    fake_index: list[Tensor]

    def __init__(
        self,
        num_clusters: int | None = None,  # null: a tenth of the examples of the smaller side, at least 2
        scale: float = 5.0,  # c
        explained: float = 0.9,  # share of the variance that the principal components keep
        restarts: int = 5,  # of k-means; the best is taken
        seed: int = 0,  # of k-means
    ):
        """Raises ConfigError if an argument is out of its range."""
        super().__init__()
        if num_clusters is not None and num_clusters < 2:
            raise ConfigError(f"metrics.mauve.num_clusters must be a whole number >= 2 or null, got {num_clusters}.")
        if scale <= 0 or not 0 < explained <= 1 or restarts < 1:
            raise ConfigError(
                f"metrics.mauve: scale={scale} must be above 0, explained={explained} in (0, 1], restarts={restarts} "
                ">= 1."
            )
        self.num_clusters, self.scale, self.explained = num_clusters, scale, explained
        self.restarts, self.seed = restarts, seed
        for state in ("real_features", "real_index", "fake_features", "fake_index"):
            self.add_state(state, [], dist_reduce_fx="cat")

    def update(self, batch: MetricBatch, real: bool) -> None:
        """Takes ``features`` (N, D) and ``index`` (N,)."""
        (self.real_features if real else self.fake_features).append(batch["features"])
        (self.real_index if real else self.fake_index).append(batch["index"])

    def compute(self) -> dict[str, Tensor]:
        """``mauve``. Raises DataError if there are more clusters than examples of a side."""
        real = in_order(self.real_features, self.real_index).double().cpu().numpy()
        fake = in_order(self.fake_features, self.fake_index).double().cpu().numpy()
        count = self.num_clusters or max(2, min(len(real), len(fake)) // 10)
        if count > min(len(real), len(fake)):
            raise DataError(
                f"metrics.mauve.num_clusters={count} needs as many texts of each side, got {len(real)} and {len(fake)}."
            )
        clusters = self.clusters(np.concatenate([real, fake]), count)
        p = np.bincount(clusters[: len(real)], minlength=count) / len(real)
        q = np.bincount(clusters[len(real) :], minlength=count) / len(fake)
        return {"mauve": torch.tensor(frontier_area(p, q, self.scale), dtype=torch.float64)}

    def clusters(self, features: np.ndarray, count: int) -> np.ndarray:
        """Features (N, D) -> (N,) numbers of clusters."""
        from sklearn.cluster import KMeans  # slow to import, and not needed to train
        from sklearn.decomposition import PCA
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.preprocessing import normalize

        points = normalize(features)
        if np.ptp(points, axis=0).max() > 0:  # else there is no variance of which to keep a share
            kept = PCA(svd_solver="full").fit(points)
            size = int(np.searchsorted(kept.explained_variance_ratio_.cumsum(), self.explained - 1e-12)) + 1
            points = kept.transform(points)[:, :size]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different points than clusters: fine
            return KMeans(count, n_init=self.restarts, random_state=self.seed).fit_predict(points)

    def settings(self) -> dict[str, int | float | str]:
        return {
            "num_clusters": self.num_clusters or "samples / 10",
            "scale": self.scale,
            "explained": self.explained,
            "restarts": self.restarts,
            "seed": self.seed,
        }


def frontier_area(p: np.ndarray, q: np.ndarray, scale: float, steps: int = 2000) -> float:
    """Of histograms (K,): the area under the curve of (exp(-c KL(q|r)), exp(-c KL(p|r))), r = w p + (1 - w) q for all w
    in [0, 1] (eq. 1 and 2), which goes on level to either axis. By trapezoids, dense towards both ends."""
    weight = (1 - np.cos(np.pi * np.arange(1, steps) / steps)) / 2
    mixture = weight[:, None] * p + (1 - weight[:, None]) * q  # (steps - 1, K)
    x, y = (np.exp(-scale * _divergences(side, mixture)) for side in (q, p))  # falls, rises
    x = np.concatenate([[1.0, 1.0], x, [0.0]])
    y = np.concatenate([[0.0, y[0]], y, [y[-1]]])
    return float(np.sum((x[:-1] - x[1:]) * (y[:-1] + y[1:]) / 2))


def _divergences(p: np.ndarray, others: np.ndarray) -> np.ndarray:
    """KL(p | other) in nats of each row of ``others`` (M, K), which are nowhere 0 where p (K,) is not. -> (M,)."""
    there = p > 0
    return (p[there] * (np.log(p[there]) - np.log(others[:, there]))).sum(axis=1)

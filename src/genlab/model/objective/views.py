"""Losses of two views of each image of a batch: alike for one image, and not for all."""

import torch
import torch.nn.functional as F
from torch import Tensor


class NTXent:
    """The normalized temperature-scaled cross-entropy of SimCLR (Chen et al. 2020, arXiv:2002.05709, eq. 1): of the
    2 N - 1 other views of a batch, which one is of the same image? By cosines; the mean over all 2 N views."""

    def __init__(self, temperature: float = 0.5):
        """Raises ValueError: a temperature that is not above 0."""
        if not temperature > 0:
            raise ValueError(f"temperature={temperature} must be above 0.")
        self.temperature = temperature

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        """Vectors (N, D) of each image's two views, of all ranks together -> nats, a scalar. A batch of one is 0."""
        z = F.normalize(torch.cat([first, second]), dim=1)
        logits = (z @ z.T / self.temperature).fill_diagonal_(-torch.inf)
        same = torch.arange(len(z), device=z.device).roll(len(first))
        return F.cross_entropy(logits, same)


class BarlowTwins:
    """Correlations over the batch between a vector's elements, of one view and of the other: 1 for the same, 0 for
    others (Zbontar et al. 2021, arXiv:2103.03230, eq. 1 and 2)."""

    def __init__(self, redundancy: float = 5e-3):  # weight of correlations between different elements
        """Raises ValueError: a weight below 0."""
        if redundancy < 0:
            raise ValueError(f"redundancy={redundancy} must be 0 or more.")
        self.redundancy = redundancy

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        """Vectors (N, D) of each image's two views, of all ranks together -> a scalar."""
        correlation = _standardized(first).T @ _standardized(second) / len(first)  # (D, D)
        own = correlation.diagonal()
        others = correlation.square().sum() - own.square().sum()
        return (own - 1).square().sum() + self.redundancy * others


class VICReg:
    """Invariance, variance and covariance (Bardes et al. 2022, arXiv:2105.04906, eq. 1 to 6): near vectors for an
    image's views; each element with a deviation of at least 1 over the batch; and elements without covariance.

    As in the authors' program the invariance is a mean over elements, too, and the variance that of both views.
    """

    def __init__(self, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0):
        """The weights of the three. Raises ValueError: one that is below 0."""
        if min(invariance, variance, covariance) < 0:
            raise ValueError(
                f"invariance={invariance}, variance={variance} and covariance={covariance} must be 0 or more."
            )
        self.invariance, self.variance, self.covariance = invariance, variance, covariance

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        """Vectors (N, D) of each image's two views, of all ranks together -> a scalar."""
        spread = covariances = torch.zeros((), device=first.device)
        for z in (first, second):
            centered = z - z.mean(dim=0)
            covariance = centered.T @ centered / max(len(z) - 1, 1)  # (D, D)
            own = covariance.diagonal()
            spread = spread + F.relu(1 - (own + 1e-4).sqrt()).mean() / 2
            covariances = covariances + (covariance.square().sum() - own.square().sum()) / z.shape[1]
        near = F.mse_loss(first, second)
        return self.invariance * near + self.variance * spread + self.covariance * covariances


def _standardized(z: Tensor) -> Tensor:
    """Each element of (N, D) with mean 0 and variance 1 over the batch."""
    centered = z - z.mean(dim=0)
    return centered * torch.rsqrt(centered.square().mean(dim=0) + 1e-5)

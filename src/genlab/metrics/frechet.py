"""The Frechet distance between Gaussians, in float64 and without a matrix square root."""

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_TOLERANCE = 1e-8  # relative error of a distance


@dataclass(frozen=True)
class Gaussian:
    """A normal distribution, float64, by a factor of its covariance where that is smaller."""

    mean: Tensor  # (D,)
    cov: Tensor | None = None  # (D, D), symmetric, positive semi-definite
    factor: Tensor | None = None  # (r, D), of a covariance factor^T factor; in place of ``cov``
    rank: int | None = None  # a bound on the rank of ``cov`` (examples - 1); None: D

    @classmethod
    def of_few(cls, x: Tensor) -> "Gaussian":
        """Fitted to the rows of ``x`` (N, D), N >= 2, with the unbiased covariance."""
        x = x.double()
        mean = x.mean(dim=0)
        return cls(mean, factor=(x - mean) / (len(x) - 1) ** 0.5)

    def variance(self) -> Tensor:
        """The trace of the covariance."""
        if self.factor is not None:
            return self.factor.square().sum()
        assert self.cov is not None
        return self.cov.trace()

    def root(self) -> np.ndarray:
        """A (D, r) with A A^T the covariance."""
        if self.factor is not None:
            return self.factor.numpy().T
        assert self.cov is not None
        return _factor(self.cov.numpy(), len(self.mean) if self.rank is None else self.rank)

    def on_cpu(self) -> "Gaussian":
        cov, factor = (None if x is None else x.cpu() for x in (self.cov, self.factor))
        return Gaussian(self.mean.cpu(), cov, factor, self.rank)


def distance(a: Gaussian, b: Gaussian) -> Tensor:
    """Their Frechet distance, a float64 scalar.

    With C1 = A A^T and C2 = B B^T, tr (C1 C2)^(1/2) is the sum of the singular values of A^T B, which is no larger than
    the numbers of examples: where one of them is below the number of dimensions D, no D x D matrix is made of it.
    """
    a, b = a.on_cpu(), b.on_cpu()
    if a.cov is not None and b.cov is not None:
        ranks = tuple(len(g.mean) if g.rank is None else g.rank for g in (a, b))
        return frechet_distance(a.mean, a.cov, b.mean, b.cov, ranks=(ranks[0], ranks[1]))
    apart = (a.mean - b.mean).square().sum() + a.variance() + b.variance()
    return apart - 2 * _sum_of_singular_values(a.root(), b.root())


def frechet_distance(
    mean1: Tensor,  # (D,)
    cov1: Tensor,  # (D, D), symmetric, positive semi-definite
    mean2: Tensor,  # (D,)
    cov2: Tensor,  # (D, D)
    ranks: tuple[int, int] | None = None,  # bounds on the covariances' ranks (examples - 1); null: D
) -> Tensor:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (Dowson & Landau 1982), a float64 scalar.

    The eigenvalues of C1 C2 are those of the symmetric L^T C1 L with C2 = L L^T: nothing unsymmetric, no complex
    numbers. Rounding moves each by about epsilon times the largest, and so its root the more the smaller it is. Where
    that could move the distance by more than 1e-8 of itself, or a covariance is singular, the roots are taken as
    singular values instead: slower by a few times where both have full rank, quicker where there are fewer examples
    than dimensions, and exact in both.
    """
    mean1, cov1, mean2, cov2 = (x.double().cpu() for x in (mean1, cov1, mean2, cov2))
    apart = (mean1 - mean2).square().sum() + cov1.trace() + cov2.trace()
    rank1, rank2 = ranks or (len(mean1), len(mean2))
    if min(rank1, rank2) >= len(mean1):
        root, error = _by_eigenvalues(cov1.numpy(), cov2.numpy())
        if 2 * error <= _TOLERANCE * float(apart - 2 * root):
            return apart - 2 * root
    return apart - 2 * _by_singular_values(cov1.numpy(), cov2.numpy(), rank1, rank2)


def _by_eigenvalues(cov1: np.ndarray, cov2: np.ndarray) -> tuple[float, float]:
    """tr (C1 C2)^(1/2), and a bound on its error from rounding; infinite if C2 is singular."""
    from scipy.linalg import LinAlgError, eigvalsh  # here and below: slow to import, and not needed to train

    try:
        values = eigvalsh(cov1, cov2, type=2, driver="gv", check_finite=False)  # of C1 C2 x = w x
    except LinAlgError:
        return 0.0, np.inf
    rounding = np.finfo(np.float64).eps * values[-1] + np.finfo(np.float64).tiny  # C1 may be 0
    error = rounding / 2 * (1 / np.sqrt(np.maximum(values, rounding))).sum()
    return float(np.sqrt(np.maximum(values, 0.0)).sum()), float(error)


def _by_singular_values(cov1: np.ndarray, cov2: np.ndarray, rank1: int, rank2: int) -> float:
    """tr (C1 C2)^(1/2): with C1 = A A^T, C2 = B B^T the squared singular values of A^T B are the eigenvalues."""
    return _sum_of_singular_values(_factor(cov1, rank1), _factor(cov2, rank2))


def _sum_of_singular_values(a: np.ndarray, b: np.ndarray) -> float:
    """Of A^T B, with A (D, r) and B (D, s)."""
    return float(torch.linalg.svdvals(torch.from_numpy(a).T @ torch.from_numpy(b)).sum())


def _factor(cov: np.ndarray, rank: int) -> np.ndarray:
    """A (D, r) with A A^T = ``cov``, r <= ``rank``."""
    from scipy.linalg import LinAlgError, cholesky, lapack

    if rank >= len(cov):
        with suppress(LinAlgError):
            return cholesky(cov, lower=True, check_finite=False)
    lower, pivots, found, _ = lapack.dpstrf(cov, lower=1)  # with pivoting, until nothing is left but rounding
    factor = np.empty((len(cov), min(rank, found)))
    factor[pivots - 1] = np.tril(lower)[:, : factor.shape[1]]  # LAPACK counts from 1
    return factor

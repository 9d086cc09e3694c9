"""Directions of a latent space in closed form: of a generator's weights, of samples, and of labels."""

import torch
from torch import Tensor

from genlab.metrics.logistic import fifth_of_each, fit

_FLAT = 1e-12  # of the largest variance: directions of less have no scale


def sefa(weights: Tensor, count: int) -> Tensor:
    """The unit vectors along which the first affine map A (outputs, D) changes most: the eigenvectors of A^T A with the
    largest eigenvalues (Shen and Zhou 2021, arXiv:2007.06600, eq. 5). -> (count, D), the largest first, signs fixed by
    :func:`oriented`."""
    a = weights.double()
    _, vectors = torch.linalg.eigh(a.T @ a)  # ascending
    return oriented(vectors.T.flip(0)[:count]).to(weights.dtype)


def principal(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The principal components of ``rows`` (N, D): unit vectors (count, D) of the largest variance, largest first, and
    the standard deviations (count,) along them. By the smaller of D x D and N x N matrices."""
    x = rows.double() - rows.double().mean(dim=0)
    if x.shape[1] <= x.shape[0]:
        variances, vectors = torch.linalg.eigh(x.T @ x / len(x))
        vectors = vectors.T.flip(0)[:count]
    else:
        variances, places = torch.linalg.eigh(x @ x.T / len(x))
        vectors = torch.nn.functional.normalize(places.T.flip(0)[:count] @ x, dim=1)
    deviations = variances.flip(0)[:count].clamp_min(0).sqrt()
    return oriented(vectors).to(rows.dtype), deviations.to(rows.dtype)


def behind(latents: Tensor, features: Tensor, count: int) -> Tensor:
    """The directions of ``latents`` (N, D) that go with the principal components of ``features`` (N, F): those that
    best explain the latents by the components' coordinates, in the sense of least squares (Härkönen et al. 2020,
    arXiv:2004.02546, eq. 1). -> unit vectors (count, D)."""
    components, deviations = principal(features, count)
    x = (features - features.mean(dim=0)).double()
    coordinates = x @ components.double().T / deviations.double().clamp_min(_FLAT)  # (N, count), uncorrelated
    z = (latents - latents.mean(dim=0)).double()
    return torch.nn.functional.normalize(coordinates.T @ z, dim=1).to(latents.dtype)


def separating(latents: Tensor, is_in: Tensor, strength: float = 0.01) -> tuple[Tensor, float]:
    """The normal of the plane that best separates ``latents`` (N, D) by ``is_in`` (N,) bool, pointing to those that are
    (Shen et al. 2020, arXiv:1907.10786, section 3.1): of a logistic regression with an L2 penalty of ``strength``. -> a
    unit vector (D,), and the share of a kept-back fifth on the right side of a plane fitted to the rest.

    Raises ValueError: all or none of them are.
    """
    labels = is_in.long()
    if labels.unique().numel() < 2:
        raise ValueError("all latents are on one side")
    kept_back = fifth_of_each(labels)
    accuracy = 0.0
    if labels[~kept_back].unique().numel() == 2 and kept_back.any():
        accuracy = float(
            fit(latents[~kept_back], labels[~kept_back], 2, strength).accuracy(latents[kept_back], labels[kept_back])
        )
    probe = fit(latents, labels, 2, strength)
    normal = (probe.weight[1] - probe.weight[0]) / probe.scale
    return torch.nn.functional.normalize(normal, dim=0).to(latents.dtype), accuracy


def difference(points: Tensor, is_in: Tensor) -> Tensor:
    """From the mean of ``points`` (N, D) that are not in to that of those that are, ``is_in`` (N,) bool, as a unit
    vector (D,). Raises ValueError: all or none of them are."""
    if is_in.all() or not is_in.any():
        raise ValueError("all points are on one side")
    return torch.nn.functional.normalize(points[is_in].mean(dim=0) - points[~is_in].mean(dim=0), dim=0)


def deviations(points: Tensor, vectors: Tensor) -> Tensor:
    """Standard deviations of ``points`` (N, D) along unit ``vectors`` (K, D). -> (K,)"""
    return (points.double() @ vectors.double().T).std(dim=0, correction=0).to(vectors.dtype)


def oriented(vectors: Tensor) -> Tensor:
    """With the sign that makes the largest entry of each of ``vectors`` (K, D) positive."""
    largest = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))
    return vectors * torch.where(largest < 0, -1.0, 1.0).to(vectors)

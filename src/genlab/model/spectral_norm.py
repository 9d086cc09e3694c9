"""Spectral normalization of averaged weights: recomputes their singular vectors, which cannot be averaged."""

from collections.abc import Container, Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import ParametrizationList


def singular_vectors(network: nn.Module) -> Iterator[Tensor]:
    """The buffers u and v of every spectrally normalized weight, which power iteration moves in training."""
    for _, _, norm in _spectral_norms(network):
        yield from (norm._u, norm._v)


@torch.no_grad()
def renew_singular_vectors(network: nn.Module, weights: Container[str] | None = None) -> None:
    """Make every spectral norm exact: u and v become the first singular vectors of the weight as it is now.

    An average of unit vectors is shorter than 1, and vectors that follow the raw weights are not those of averaged
    ones: either way W / (u^T W v) is too large.

    ``weights``: only of those weights, by their names in the state dict; None: of all.
    """
    for name, weight, norm in _spectral_norms(network):
        if weights is None or name in weights:
            u, v = _first_singular_vectors(norm._reshape_weight_to_matrix(weight))
            norm._u.copy_(u)
            norm._v.copy_(v)


def _spectral_norms(network: nn.Module) -> Iterator[tuple[str, Tensor, _SpectralNorm]]:
    """Names of normalized weights in the state dict, these weights, and what normalizes them."""
    for name, module in network.named_modules():
        if isinstance(module, ParametrizationList):
            for part in module:
                if isinstance(part, _SpectralNorm) and hasattr(part, "_u"):  # a vector's norm is exact without
                    yield f"{name}.original", module.original, part


def _first_singular_vectors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Of (H, W): u (H,) and v (W,), from the smaller of its Gram matrices, in float64.

    Power iteration can stay at another pair of singular vectors for long without a sign of it.
    """
    device = "cpu" if matrix.device.type == "mps" else matrix.device  # which has neither float64 nor eigenvectors
    matrix = matrix.detach().to(device, torch.float64)
    wide = matrix.shape[0] <= matrix.shape[1]
    gram = matrix @ matrix.T if wide else matrix.T @ matrix
    first = torch.linalg.eigh(gram).eigenvectors[:, -1]
    second = nn.functional.normalize((matrix.T if wide else matrix) @ first, dim=0, eps=1e-12)
    return (first, second) if wide else (second, first)

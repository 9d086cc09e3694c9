"""Couplings of noise and images in a batch, for flow matching."""

from typing import Protocol

import torch
from torch import Tensor


class Coupling(Protocol):
    """The protocol of couplings."""

    def __call__(self, noise: Tensor, x: Tensor) -> Tensor: ...


class Independent:
    """Any noise with any image (Lipman et al. 2023)."""

    def __call__(self, noise: Tensor, x: Tensor) -> Tensor:
        """(N, C, H, W), (N, C, H, W) -> the noise as it is."""
        return noise


class OptimalTransport:
    """The pairs of a batch whose squared distances have the least sum (Tong et al. 2024, section 3.2.4): paths cross
    less, so they are straighter. Between two sets of equal size and weight an optimal plan is a permutation.

    Exact, on the CPU, in a time that grows with the cube of the batch; each rank matches its own part of a batch. The
    label of an image plays no part, so with labels the noise of an image is no longer independent of its class.
    """

    def __call__(self, noise: Tensor, x: Tensor) -> Tensor:
        """(N, C, H, W), (N, C, H, W) -> the noise in another order: row i belongs to image i."""
        from scipy.optimize import linear_sum_assignment  # slow to import: for whoever couples so

        # |n - x|^2 = |n|^2 + |x|^2 - 2 n x, and the squares are the same for every permutation
        affinity = x.flatten(1).float() @ noise.flatten(1).float().T  # (N images, N noises)
        _, order = linear_sum_assignment(affinity.detach().cpu().numpy(), maximize=True)
        return noise[torch.from_numpy(order).to(noise.device)]

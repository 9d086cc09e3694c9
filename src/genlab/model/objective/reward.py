"""Likelihoods of preferences between two answers, by the difference of their rewards."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


class BradleyTerry:
    """-log sigmoid(difference) (Bradley and Terry 1952); a tie is half a preference for either.

    Where the data say by how much one is better, the difference has to be larger by that ``margin`` (Touvron et al.
    2023, eq. 2).
    """

    def loss(self, difference: Tensor, tie: Tensor, margin: Tensor) -> Tensor:
        preferred = F.softplus(margin - difference)
        return torch.where(tie, (F.softplus(difference) + F.softplus(-difference)) / 2, preferred)

    def probability(self, difference: Tensor) -> Tensor:
        return torch.sigmoid(difference)


class RaoKupper:
    """With ties as an outcome of their own (Rao and Kupper 1967, eq. 2.1 to 2.3): the first is preferred with the
    probability sigmoid(difference - threshold), the second with sigmoid(-difference - threshold), neither else.

    Of two equally good answers a share tanh(threshold / 2) are ties.
    """

    def __init__(self, threshold: float = 0.5):  # the logarithm of the paper's theta
        """Raises ValueError: it is not above 0."""
        if not 0 < threshold < math.inf:
            raise ValueError(f"threshold={threshold} must be finite and above 0; without ties use bradley_terry.")
        self.threshold = threshold

    def loss(self, difference: Tensor, tie: Tensor, margin: Tensor) -> Tensor:
        first, second = self._beyond(difference - margin), self._beyond(-difference)
        neither = self._beyond(difference) + second - math.log(math.expm1(2 * self.threshold))
        return torch.where(tie, neither, first)

    def probability(self, difference: Tensor) -> Tensor:
        return torch.sigmoid(self._beyond(-difference) - self._beyond(difference))

    def _beyond(self, difference: Tensor) -> Tensor:
        """Minus the logarithm of the probability that one is preferred."""
        return F.softplus(self.threshold - difference)

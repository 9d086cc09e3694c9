"""The evidence lower bound of variational autoencoders: normals, their KL divergence, free bits, importance weights."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Normal:
    """Independent normals, one for each element of ``mean``."""

    mean: Tensor  # (N, Z, h, w)
    log_std: Tensor  # broadcasts to the mean

    @classmethod
    def of(cls, parameters: Tensor) -> "Normal":
        """From a network's output (N, 2 Z, h, w): means, then logarithms of standard deviations, kept in (-5, 5)."""
        mean, log_std = parameters.float().chunk(2, dim=1)
        return cls(mean, soft_clamp(log_std, 5.0))

    def shifted(self, by: "Normal") -> "Normal":
        """The residual parameterisation of a posterior: its mean relative to this prior's, its scale a multiple of it
        (Vahdat and Kautz 2020, section 3.2)."""
        return Normal(self.mean + by.mean, self.log_std + by.log_std)

    def at(self, noise: Tensor) -> Tensor:
        """The point that standard normal ``noise`` stands for; noise 0 is the mean."""
        return self.mean + self.log_std.exp() * noise

    def log_prob(self, z: Tensor) -> Tensor:
        """Nats of each element of ``z``."""
        return -0.5 * ((z - self.mean) * (-self.log_std).exp()) ** 2 - self.log_std - 0.5 * math.log(2 * math.pi)

    def kl(self, other: "Normal") -> Tensor:
        """KL(self || other) of each element, in nats."""
        log_ratio = self.log_std - other.log_std
        distance = (self.mean - other.mean) * (-other.log_std).exp()
        return 0.5 * ((2 * log_ratio).exp() + distance**2 - 1) - log_ratio


def standard_normal(like: Tensor) -> Normal:
    """N(0, I) of the shape of ``like``."""
    return Normal(torch.zeros_like(like), torch.zeros_like(like))


def soft_clamp(x: Tensor, bound: float) -> Tensor:
    """Smoothly into (-bound, bound); about the identity near 0."""
    return bound * torch.tanh(x / bound)


def with_free_bits(kl: Tensor, free_nats: float) -> Tensor:
    """The KL cost of a batch, of which the first ``free_nats`` of each group cost nothing less (Kingma et al. 2016,
    eq. 15): the sum over groups of max(free_nats, mean over the batch). ``kl``: (N, groups), nats -> a scalar."""
    return kl.mean(dim=0).clamp(min=free_nats).sum()


def kl_weight(fraction: float, share: float) -> float:
    """The weight of the KL cost, from 0 to 1 over the first ``share`` of the budget; ``fraction`` of it is spent."""
    return min(1.0, fraction / share) if share > 0 else 1.0


def importance_weighted(log_weights: Tensor) -> Tensor:
    """log mean exp over importance samples: a bound of log p(x) that tightens with their number (Burda et al. 2016,
    eq. 8). ``log_weights``: log p(x, z) - log q(z | x), (samples, N) -> (N,)."""
    return log_weights.logsumexp(dim=0) - math.log(len(log_weights))

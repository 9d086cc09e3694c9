"""Losses of preferences between two answers to a prompt, by their log-probabilities."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Scored(NamedTuple):
    """N answers: the sums of the log-probabilities of their tokens, in float32 or finer."""

    policy: Tensor  # (N,)
    reference: Tensor | None  # (N,); None: an objective without a reference
    length: Tensor  # (N,), tokens of the answer

    @property
    def log_ratio(self) -> Tensor:
        """log policy / reference, (N,)."""
        assert self.reference is not None, "the model computes it for objectives that need it"
        return self.policy - self.reference

    def every_other(self, first: int) -> "Scored":
        """Every second answer, from ``first`` on."""
        reference = None if self.reference is None else self.reference[first::2]
        return Scored(self.policy[first::2], reference, self.length[first::2])

    @property
    def mean(self) -> Tensor:
        """Of the policy, a token: (N,)."""
        return self.policy / self.length


# ``loss`` of N pairs is (N,). ``reward`` is the reward that the objective implies, up to what depends on the prompt
# alone: chosen answers should have more of it. ``needs_reference``: its log-probabilities; ``needs_drift``: an estimate
# of the KL divergence of the policy from the reference, a scalar without a gradient; else it is None.


class _LogRatios:
    """Those that compare with a reference: the reward is beta log(policy / reference) (Rafailov et al. 2023, eq. 5)."""

    needs_reference = True
    needs_drift = False

    def __init__(self, beta: float = 0.1):  # strength of the pull to the reference
        """Raises ValueError: it is not above 0."""
        self.beta = _positive("beta", beta)

    def reward(self, scored: Scored) -> Tensor:
        return self.beta * scored.log_ratio

    def margin(self, chosen: Scored, rejected: Scored) -> Tensor:
        return self.reward(chosen) - self.reward(rejected)


class DPO(_LogRatios):
    """-log sigmoid of the difference of rewards: the likelihood of preferences under Bradley and Terry's model
    (Rafailov et al. 2023, eq. 7)."""

    def loss(self, chosen: Scored, rejected: Scored, drift: Tensor | None) -> Tensor:
        return -F.logsigmoid(self.margin(chosen, rejected))


class SLiC(_LogRatios):
    """The hinge loss of the difference of rewards (Liu et al. 2024, eq. 10; after SLiC, Zhao et al. 2023)."""

    def loss(self, chosen: Scored, rejected: Scored, drift: Tensor | None) -> Tensor:
        return torch.relu(1 - self.margin(chosen, rejected))


class RobustDPO(_LogRatios):
    """DPO without its bias where a share ``noise`` of preferences was turned round at random (Ray Chowdhury et al.
    2024, eq. 12)."""

    def __init__(self, beta: float = 0.1, noise: float = 0.1):  # share of wrong preferences
        """Raises ValueError: an argument is outside its range."""
        super().__init__(beta)
        if not 0 <= noise < 0.5:
            raise ValueError(f"noise={noise} must be at least 0 and below 0.5.")
        self.noise = noise

    def loss(self, chosen: Scored, rejected: Scored, drift: Tensor | None) -> Tensor:
        margin = self.margin(chosen, rejected)
        right, turned = -F.logsigmoid(margin), -F.logsigmoid(-margin)
        return ((1 - self.noise) * right - self.noise * turned) / (1 - 2 * self.noise)


class IPO:
    """The squared distance of the difference of log-ratios from 1 / (2 tau), which does not grow without bound where
    preferences are sure (Azar et al. 2024, eq. 17). The log-ratios are means over the tokens of an answer, so that the
    target does not depend on lengths: the form that its authors use."""

    needs_reference = True
    needs_drift = False

    def __init__(self, tau: float = 0.1):  # strength of the pull to the reference
        """Raises ValueError: it is not above 0."""
        self.tau = _positive("tau", tau)

    def loss(self, chosen: Scored, rejected: Scored, drift: Tensor | None) -> Tensor:
        difference = chosen.log_ratio / chosen.length - rejected.log_ratio / rejected.length
        return (difference - 1 / (2 * self.tau)) ** 2

    def reward(self, scored: Scored) -> Tensor:
        return self.tau * scored.log_ratio / scored.length


class KTO(_LogRatios):
    """Each answer on its own, as desirable or not, by its reward less that of answers in general, beta ``drift``
    (Ethayarajh et al. 2024, eq. 8). The loss of a pair is the mean of the two."""

    needs_drift = True

    def __init__(
        self,
        beta: float = 0.1,
        desirable_weight: float = 1.0,  # of chosen answers
        undesirable_weight: float = 1.0,  # of rejected answers
    ):
        """Raises ValueError: an argument is not above 0."""
        super().__init__(beta)
        self.desirable_weight = _positive("desirable_weight", desirable_weight)
        self.undesirable_weight = _positive("undesirable_weight", undesirable_weight)

    def loss(self, chosen: Scored, rejected: Scored, drift: Tensor | None) -> Tensor:
        assert drift is not None, "the model estimates it"
        zero = self.beta * drift
        desirable = 1 - torch.sigmoid(self.reward(chosen) - zero)
        undesirable = 1 - torch.sigmoid(zero - self.reward(rejected))
        return (self.desirable_weight * desirable + self.undesirable_weight * undesirable) / 2


class ORPO:
    """Maximum likelihood of the chosen answer, a token, and -log sigmoid of the log of the odds ratio, where odds are
    of the mean probability of a token (Hong et al. 2024, eqs. 3 to 7). Without a reference."""

    needs_reference = False
    needs_drift = False

    def __init__(self, weight: float = 0.1):  # of the odds ratio: lambda in the paper
        """Raises ValueError: it is not above 0."""
        self.weight = _positive("weight", weight)

    def loss(self, chosen: Scored, rejected: Scored, drift: Tensor | None) -> Tensor:
        odds = _log_odds(chosen.mean) - _log_odds(rejected.mean)
        return -chosen.mean - self.weight * F.logsigmoid(odds)

    def reward(self, scored: Scored) -> Tensor:
        return self.weight * scored.mean


class SimPO:
    """-log sigmoid of the difference of rewards less a margin, where a reward is beta times the mean log-probability of
    a token (Meng et al. 2024, eq. 6). Without a reference."""

    needs_reference = False
    needs_drift = False

    def __init__(self, beta: float = 2.0, gamma: float = 1.0):  # gamma: the margin
        """Raises ValueError: an argument is outside its range."""
        self.beta = _positive("beta", beta)
        if not 0 <= gamma < math.inf:
            raise ValueError(f"gamma={gamma} must be finite and at least 0.")
        self.gamma = gamma

    def loss(self, chosen: Scored, rejected: Scored, drift: Tensor | None) -> Tensor:
        return -F.logsigmoid(self.reward(chosen) - self.reward(rejected) - self.gamma)

    def reward(self, scored: Scored) -> Tensor:
        return self.beta * scored.mean


def _log_odds(log_probability: Tensor) -> Tensor:
    """log p / (1 - p) of log p < 0, also where p is all but 1 or 0 (Maechler 2012, eq. 7)."""
    x = log_probability.to(torch.promote_types(log_probability.dtype, torch.float32))
    x = x.clamp(max=-torch.finfo(x.dtype).tiny)  # p = 1 has no odds
    is_large = x > -math.log(2)
    # Each branch is given what it can take, for the other's gradient would be NaN.
    large = torch.log(-torch.expm1(torch.where(is_large, x, -1.0)))
    small = torch.log1p(-torch.exp(torch.where(is_large, -1.0, x)))
    return x - torch.where(is_large, large, small)


def _positive(name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise ValueError(f"{name}={value} must be finite and above 0.")
    return value

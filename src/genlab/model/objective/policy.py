"""Policy gradients: what an answer that was drawn teaches, by the reward that it got.

All maximize E[R] - beta KL(policy || reference) for answers drawn from the policy, and differ in what they compare a
reward with, in how the answers of a batch are weighed, and in where the divergence stands. There it is estimated from
the tokens drawn, by d = log policy / reference (Schulman 2020): k1 = d, k2 = d^2 / 2, or k3 = exp(-d) - 1 + d.

* ``kl_in=reward``: each token's estimate is taken off the reward. With k1, the gradient is that of the divergence of
  whole answers.
* ``kl_in=loss``: it is added to the loss. The gradient of k2 and k3 is that of a token's divergence alone, of k3 even
  of that a biased one; that of k1 is 0 on average, so it is refused.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

Estimator = Literal["k1", "k2", "k3"]
Total = Callable[[Tensor], Tensor]  # the sum of a tensor over all processes
_EPSILON = 1e-4  # beside the standard deviation of a group's rewards
_TINY = 1e-8  # beside the variance of advantages


class Drawn(NamedTuple):
    """M answers of up to L tokens, those to one prompt one after the other."""

    reward: Tensor  # (M,), of whole answers
    counted: Tensor  # (M, L) bool: the tokens of an answer, and the one that ends it, that are learnt from
    ended: Tensor  # (M,) bool; false: cut at the limit of its length
    log_prob: Tensor  # (M, L), of the policy that drew them
    reference: Tensor | None  # (M, L), of the reference; None: there is none
    value: Tensor | None  # (M, L + 1), expected before each token and after the last; None: nobody estimates it
    group: int  # answers to each prompt
    limit: int  # of the length of an answer

    def some(self, rows: Tensor) -> "Drawn":
        """Those of the answers ``rows`` (K,)."""
        reference, value = (None if x is None else x[rows] for x in (self.reference, self.value))
        return Drawn(
            self.reward[rows],
            self.counted[rows],
            self.ended[rows],
            self.log_prob[rows],
            reference,
            value,
            self.group,
            self.limit,
        )


class Lesson(NamedTuple):
    """What is to be learnt from answers."""

    advantage: Tensor  # (M, L): by how much a token was better than expected
    returned: Tensor | None = None  # (M, L): what the value before a token should have been

    def some(self, rows: Tensor) -> "Lesson":
        return Lesson(self.advantage[rows], None if self.returned is None else self.returned[rows])


class Counts(NamedTuple):
    """Of the answers of one optimizer step, on all processes."""

    answers: Tensor  # a scalar
    tokens: Tensor  # a scalar: those that count


def count(counted: Tensor, total: Total) -> Counts:
    """``counted`` (M, L), of this process."""
    answers = torch.tensor(float(len(counted)), device=counted.device)
    both = total(torch.stack([answers, counted.sum().to(answers.dtype)]))
    return Counts(both[0], both[1].clamp(min=1))


def estimate(estimator: Estimator, log_prob: Tensor, reference: Tensor) -> Tensor:
    """Of the divergence, for each token: (M, L)."""
    d = log_prob - reference
    if estimator == "k1":
        return d
    return d.square() / 2 if estimator == "k2" else torch.expm1(-d) + d


class Divergence:
    """beta times the divergence from the reference, and where it stands."""

    def __init__(self, beta: float, estimator: Estimator, stands_in: Literal["reward", "loss"]):
        """Raises ValueError: an argument is outside its range."""
        if not 0 <= beta < math.inf:
            raise ValueError(f"beta={beta} must be finite and at least 0.")
        _one_of("kl", estimator, ("k1", "k2", "k3"))
        _one_of("kl_in", stands_in, ("reward", "loss"))
        if stands_in == "loss" and estimator == "k1":
            raise ValueError(
                "kl=k1 in the loss has no gradient on average. Use model.objective.kl_in=reward, or "
                "model.objective.kl=k3."
            )
        self.beta, self.estimator, self.stands_in = beta, estimator, stands_in

    def costs(self, drawn: Drawn) -> Tensor:
        """What is taken off the reward of each token: (M, L), 0 if it stands in the loss."""
        if self.beta == 0 or self.stands_in == "loss":
            return torch.zeros_like(drawn.log_prob)
        assert drawn.reference is not None, "the model computes it for objectives that need it"
        return self.beta * estimate(self.estimator, drawn.log_prob, drawn.reference) * drawn.counted

    def loss(self, log_prob: Tensor, drawn: Drawn) -> Tensor:
        """What is added to the loss of each token: (M, L), 0 if it stands in the reward."""
        if self.beta == 0 or self.stands_in == "reward":
            return torch.zeros_like(log_prob)
        assert drawn.reference is not None, "the model computes it for objectives that need it"
        return self.beta * estimate(self.estimator, log_prob, drawn.reference)


class _Whole:
    """Those that compare whole answers: the probability ratio of an answer, clipped as PPO clips that of a token, times
    its advantage. The loss is the mean over answers of the sum over their tokens."""

    needs_group = False
    needs_value = False

    def __init__(
        self,
        beta: float = 0.05,  # weight of the divergence from the reference; 0: there is no reference
        kl: Estimator = "k1",
        kl_in: Literal["reward", "loss"] = "reward",
        clip: float = 0.2,  # the ratio counts in 1 - clip to 1 + clip: of answers drawn by an earlier policy
    ):
        """Raises ValueError: an argument is outside its range."""
        self.divergence, self.clip = Divergence(beta, kl, kl_in), _positive("clip", clip)

    @property
    def needs_reference(self) -> bool:
        return self.divergence.beta > 0

    def loss(self, log_prob: Tensor, drawn: Drawn, lesson: Lesson, counts: Counts) -> tuple[Tensor, Tensor]:
        """See :class:`PolicyObjective`."""
        ratio = ((log_prob - drawn.log_prob) * drawn.counted).sum(dim=1).exp()
        advantage = lesson.advantage[:, 0]
        best, is_clipped = _clipped(ratio, advantage, self.clip, self.clip)
        divergence = (self.divergence.loss(log_prob, drawn) * drawn.counted).sum(dim=1)
        is_learnt = drawn.counted.any(dim=1)
        return ((divergence - best) * is_learnt).sum() / counts.answers, (is_clipped & is_learnt).sum() / counts.answers

    def returns(self, drawn: Drawn) -> Tensor:
        """The reward of each answer, less what its divergence costs: (M,)."""
        return drawn.reward - self.divergence.costs(drawn).sum(dim=1)


class Reinforce(_Whole):
    """REINFORCE (Williams 1992). The baseline is the mean reward of all other answers of the batch, to other prompts
    too; without it the gradient is as right, and noisier."""

    def __init__(
        self,
        beta: float = 0.05,
        kl: Estimator = "k1",
        kl_in: Literal["reward", "loss"] = "reward",
        clip: float = 0.2,
        baseline: bool = True,
    ):
        """Raises ValueError: an argument is outside its range."""
        super().__init__(beta, kl, kl_in, clip)
        self.baseline = baseline

    def lesson(self, drawn: Drawn, total: Total) -> Lesson:
        """See :class:`PolicyObjective`."""
        returns = self.returns(drawn)
        if self.baseline:
            both = total(torch.stack([returns.sum(), torch.full_like(returns[0], len(returns))]))
            returns = _less_others(returns, both[0], both[1])
        return Lesson(returns[:, None].expand_as(drawn.log_prob))


class RLOO(_Whole):
    """REINFORCE whose baseline is the mean reward of the other answers to the same prompt: leave one out (Kool et al.
    2019; Ahmadian et al. 2024, eq. 8)."""

    needs_group = True

    def lesson(self, drawn: Drawn, total: Total) -> Lesson:
        """See :class:`PolicyObjective`."""
        groups = self.returns(drawn).view(-1, drawn.group)
        advantage = _less_others(groups, groups.sum(dim=1, keepdim=True), torch.tensor(float(drawn.group)))
        return Lesson(advantage.view(-1, 1).expand_as(drawn.log_prob))


class GRPO:
    """Group relative policy optimization (Shao et al. 2024, eq. 3): the advantage of every token of an answer is its
    reward among those of the answers to the same prompt, in standard deviations. A group of equal rewards teaches
    nothing.

    ``aggregate``: what the weight of a token is: one over the number of answers and over the length of its own
    (``sequence``, as published, by which a token of a long answer weighs less); one over the number of tokens
    (``token``: Yu et al. 2025, eq. 8); or one over the number of answers and over the limit of their length
    (``constant``: Dr. GRPO, Liu et al. 2025, where rewards are not ``scaled`` either: then the gradient is unbiased, up
    to a factor).
    """

    needs_group = True
    needs_value = False

    def __init__(
        self,
        beta: float = 0.04,  # weight of the divergence from the reference; 0: there is no reference
        kl: Estimator = "k3",
        kl_in: Literal["reward", "loss"] = "loss",
        clip: float = 0.2,  # a token's ratio counts from 1 - clip on
        clip_high: float = 0.2,  # to 1 + clip_high
        scaled: bool = True,  # advantages are in standard deviations of their group
        aggregate: Literal["sequence", "token", "constant"] = "sequence",
    ):
        """Raises ValueError: an argument is outside its range."""
        self.divergence = Divergence(beta, kl, kl_in)
        self.clip, self.clip_high = _positive("clip", clip), _positive("clip_high", clip_high)
        _one_of("aggregate", aggregate, ("sequence", "token", "constant"))
        self.scaled, self.aggregate = scaled, aggregate

    @property
    def needs_reference(self) -> bool:
        return self.divergence.beta > 0

    def lesson(self, drawn: Drawn, total: Total) -> Lesson:
        """See :class:`PolicyObjective`."""
        groups = (drawn.reward - self.divergence.costs(drawn).sum(dim=1)).view(-1, drawn.group)
        advantage = groups - groups.mean(dim=1, keepdim=True)
        if self.scaled:
            advantage = advantage / (groups.std(dim=1, keepdim=True) + _EPSILON)
        return Lesson(advantage.view(-1, 1).expand_as(drawn.log_prob))

    def loss(self, log_prob: Tensor, drawn: Drawn, lesson: Lesson, counts: Counts) -> tuple[Tensor, Tensor]:
        """See :class:`PolicyObjective`."""
        best, is_clipped = _clipped((log_prob - drawn.log_prob).exp(), lesson.advantage, self.clip, self.clip_high)
        weight = self.weights(drawn, counts)
        loss = (weight * (self.divergence.loss(log_prob, drawn) - best)).sum()
        return loss, (is_clipped & drawn.counted).sum() / counts.tokens

    def weights(self, drawn: Drawn, counts: Counts) -> Tensor:
        """Of each token: (M, L)."""
        weight = drawn.counted.to(drawn.log_prob.dtype)
        if self.aggregate == "token":
            return weight / counts.tokens
        length = drawn.limit if self.aggregate == "constant" else weight.sum(dim=1, keepdim=True).clamp(min=1)
        return weight / length / counts.answers


class PPO:
    """Proximal policy optimization (Schulman et al. 2017) as for language models (Ziegler et al. 2019; Stiennon et al.
    2020): a second network estimates what reward is to come, by which each token has an advantage of its own
    (generalized advantage estimation, Schulman et al. 2016, eq. 16). The reward comes with the last token, and each
    token costs its divergence.

    An answer that is cut has no last state: what would have come is estimated by the value after its last token.
    """

    needs_group = False
    needs_value = True

    def __init__(
        self,
        beta: float = 0.05,  # weight of the divergence from the reference; 0: there is no reference
        kl: Estimator = "k1",
        clip: float = 0.2,  # a token's ratio counts in 1 - clip to 1 + clip
        gamma: float = 1.0,  # discount of a token
        lam: float = 0.95,  # lambda: how far rewards are looked at before values are trusted
        value_clip: float = 0.2,  # by how much a value may move away from what it was when the answer was drawn
        value_weight: float = 0.1,  # of the squared error of values in the loss
        whiten: bool = True,  # advantages have mean 0 and variance 1 over all tokens, on all processes
    ):
        """Raises ValueError: an argument is outside its range."""
        for name, share in (("gamma", gamma), ("lam", lam)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name}={share} must lie between 0 and 1.")
        self.divergence, self.clip = Divergence(beta, kl, "reward"), _positive("clip", clip)
        self.gamma, self.lam = gamma, lam
        self.value_clip, self.value_weight = (
            _positive("value_clip", value_clip),
            _positive("value_weight", value_weight),
        )
        self.whiten = whiten

    @property
    def needs_reference(self) -> bool:
        return self.divergence.beta > 0

    def lesson(self, drawn: Drawn, total: Total) -> Lesson:
        """See :class:`PolicyObjective`."""
        assert drawn.value is not None, "the model computes it for objectives that need it"
        rewards = at_the_end(drawn.reward, drawn.counted) - self.divergence.costs(drawn)
        advantage = generalized_advantages(rewards, drawn.value, drawn.counted, drawn.ended, self.gamma, self.lam)
        returned = advantage + drawn.value[:, :-1]
        return Lesson(whitened(advantage, drawn.counted, total) if self.whiten else advantage, returned)

    def loss(self, log_prob: Tensor, drawn: Drawn, lesson: Lesson, counts: Counts) -> tuple[Tensor, Tensor]:
        """See :class:`PolicyObjective`. The mean over tokens."""
        best, is_clipped = _clipped((log_prob - drawn.log_prob).exp(), lesson.advantage, self.clip, self.clip)
        loss = -(best * drawn.counted).sum() / counts.tokens
        return loss, (is_clipped & drawn.counted).sum() / counts.tokens

    def value_loss(self, value: Tensor, drawn: Drawn, lesson: Lesson, counts: Counts) -> Tensor:
        """Of values (M, L) before each token: half the squared error, or that of the value clipped near what it was,
        whichever is larger. The mean over tokens, a scalar."""
        assert drawn.value is not None
        assert lesson.returned is not None
        before = drawn.value[:, :-1]
        near = before + (value - before).clamp(-self.value_clip, self.value_clip)
        worst = torch.maximum((value - lesson.returned).square(), (near - lesson.returned).square())
        return self.value_weight * (worst * drawn.counted).sum() / 2 / counts.tokens


class PolicyObjective(Protocol):
    """What answers teach, and the loss of the policy that learns it."""

    needs_group: bool  # several answers to each prompt
    needs_reference: bool  # log-probabilities of the reference
    needs_value: bool  # values; then it has ``value_loss`` too

    def lesson(self, drawn: Drawn, total: Total) -> Lesson:
        """Of all answers of a batch; ``total`` sums over processes."""
        ...

    def loss(self, log_prob: Tensor, drawn: Drawn, lesson: Lesson, counts: Counts) -> tuple[Tensor, Tensor]:
        """Of some answers of an optimizer step, by their log-probabilities now (M, L): this part of the loss, and of
        the share of ratios that are clipped. Scalars, which are summed."""
        ...


def at_the_end(reward: Tensor, counted: Tensor) -> Tensor:
    """The reward (M,) of an answer as that of the last of its tokens (M, L), whatever follows it; 0 at others."""
    places = torch.arange(counted.shape[1], device=counted.device)
    last = torch.where(counted, places, -1).amax(dim=1, keepdim=True)
    return torch.where(places == last, reward[:, None], 0.0)


def generalized_advantages(
    rewards: Tensor,  # (M, L), of each token
    value: Tensor,  # (M, L + 1), before each token and after the last
    counted: Tensor,  # (M, L) bool
    ended: Tensor,  # (M,) bool
    gamma: float,
    lam: float,
) -> Tensor:
    """Sums of (gamma lam)^k times the surprise k tokens later, r + gamma V(after) - V(before) (Schulman et al. 2016,
    eq. 16). -> (M, L), 0 where nothing counts. After the end of an answer nothing is worth anything; after the last
    token of a cut one, its value."""
    following, found = torch.zeros_like(value[:, 0]), []
    length = counted.shape[1]
    for t in reversed(range(length)):
        is_last = counted[:, t] & (~counted[:, t + 1] if t + 1 < length else True)
        after = torch.where(is_last & ended, 0.0, value[:, t + 1])
        surprise = rewards[:, t] + gamma * after - value[:, t]
        following = torch.where(counted[:, t], surprise + gamma * lam * following, 0.0)
        found.append(following)
    return torch.stack(found[::-1], dim=1)


def whitened(values: Tensor, counted: Tensor, total: Total) -> Tensor:
    """With mean 0 and variance 1 over those of (M, L) that count, on all processes; 0 elsewhere."""
    kept = torch.where(counted, values, 0.0)
    sums = total(torch.stack([kept.sum(), counted.sum().to(values.dtype)]))
    number = sums[1].clamp(min=1)
    centred = torch.where(counted, values - sums[0] / number, 0.0)
    variance = total(centred.square().sum()) / (number - 1).clamp(min=1)
    return centred * torch.rsqrt(variance + _TINY)


def _clipped(ratio: Tensor, advantage: Tensor, below: float, above: float) -> tuple[Tensor, Tensor]:
    """The smaller of ratio * advantage with the ratio as it is and clipped (Schulman et al. 2017, eq. 7), and where
    the clipped one has no gradient."""
    near = ratio.clamp(1 - below, 1 + above)
    best = torch.minimum(ratio * advantage, near * advantage)
    is_clipped = ((ratio < 1 - below) & (advantage < 0)) | ((ratio > 1 + above) & (advantage > 0))
    return best, is_clipped


def _less_others(values: Tensor, total: Tensor, number: Tensor) -> Tensor:
    """Each less the mean of the others, of which with it there are ``number`` and that sum up to ``total``."""
    return values - (total - values) / (number - 1).clamp(min=1)


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name}={value} must be {', '.join(known[:-1])} or {known[-1]}.")


def _positive(name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise ValueError(f"{name}={value} must be finite and above 0.")
    return value

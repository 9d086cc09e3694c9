"""Policy gradients, exactly: summed over all answers of a language small enough, in float64, without sampling.

Eight tokens, up to three of them in an answer, of which token 0 ends it (or none does). A policy is a table of the
logits of a token after none, one or two others. What an objective makes of a batch has an expectation, which is
compared with the gradient of E[R] - beta KL(policy || reference).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from genlab.model.objective.policy import (
    GRPO,
    PPO,
    RLOO,
    Counts,
    Drawn,
    Lesson,
    Reinforce,
    at_the_end,
    estimate,
    generalized_advantages,
    whitened,
)

BETA = 0.3
ALL = torch.cartesian_prod(*[torch.arange(8)] * 3)  # (512, 3)


class Language:
    """All answers, the policy's probabilities of them, and their rewards."""

    def __init__(self, ends: bool, seed: int = 0):
        """``ends``: token 0 ends an answer; else all have three tokens, and are cut."""
        draw = torch.Generator().manual_seed(seed)
        answers = ALL
        if ends:
            after = torch.cat([torch.zeros(len(ALL), 1, dtype=torch.bool), (ALL == 0).cumsum(1)[:, :2] > 0], dim=1)
            answers = ALL[~(after & (ALL != 0)).any(dim=1)]
        self.answers = answers
        self.counted = torch.ones_like(answers, dtype=torch.bool)
        if ends:
            self.counted[:, 1:] = (answers[:, :2] != 0).cumprod(dim=1) > 0
        self.ended = ((answers == 0) & self.counted).any(dim=1) if ends else torch.zeros(len(answers), dtype=torch.bool)
        self.places = torch.stack(
            [torch.zeros(len(answers), dtype=torch.long), 1 + answers[:, 0], 9 + 8 * answers[:, 0] + answers[:, 1]],
            dim=1,
        )
        self.table = torch.randn(73, 8, dtype=torch.float64, generator=draw).requires_grad_()
        self.reference = self.tokens(torch.randn(73, 8, dtype=torch.float64, generator=draw))
        self.reward = torch.randn(len(answers), dtype=torch.float64, generator=draw)

    def tokens(self, table: Tensor) -> Tensor:
        """Log-probabilities of the tokens of all answers, (A, 3), 0 where none is."""
        return table.log_softmax(dim=1)[self.places, self.answers] * self.counted

    def probability(self, table: Tensor | None = None) -> Tensor:
        return self.tokens(self.table if table is None else table).sum(dim=1).exp()

    def value(self, table: Tensor, beta: float) -> Tensor:
        """E[R] - beta KL."""
        log_probs = self.tokens(table)
        divergence = (log_probs - self.reference).sum(dim=1)
        return (log_probs.sum(dim=1).exp() * (self.reward - beta * divergence)).sum()

    def gradient(self, beta: float = BETA) -> Tensor:
        return torch.autograd.grad(self.value(self.table, beta), self.table)[0]

    def drawn(self, rows: Tensor, group: int, table: Tensor | None = None, value: Tensor | None = None) -> Drawn:
        """The answers ``rows`` (M,), as a policy drew them."""
        log_prob = self.tokens(self.table if table is None else table).detach()
        return Drawn(
            self.reward[rows],
            self.counted[rows],
            self.ended[rows],
            log_prob[rows],
            self.reference[rows],
            None if value is None else value[rows],
            group,
            3,
        )

    def expected(
        self, objective: Any, group: int, table: Tensor | None = None, values: Tensor | None = None, alone: bool = True
    ) -> Tensor:
        """The expectation of minus the gradient of the loss of a batch of one group of one or two answers, where a
        policy of ``table`` drew them. The loss is a sum over answers, so each token's share is found for all groups at
        once. ``alone``: with the counts of one group."""
        number = len(self.answers)
        one = torch.arange(number)
        rows = one if group == 1 else torch.cartesian_prod(one, one).flatten()
        drawn = self.drawn(rows, group, table, values)
        weight = self.probability(table).detach()[rows].view(-1, group).prod(dim=1).repeat_interleave(group)
        lesson = lessons(objective, drawn)
        log_prob = self.tokens(self.table).detach()[rows].requires_grad_()
        found = torch.zeros_like(log_prob)
        tokens = drawn.counted.view(-1, group, 3).sum(dim=(1, 2)).repeat_interleave(group)
        for length in tokens.unique().tolist():  # those that share their counts
            same = (tokens == length).nonzero()[:, 0]
            counts = Counts(torch.tensor(float(group)).double(), torch.tensor(float(length)).double())
            loss, _ = objective.loss(log_prob[same], drawn.some(same), lesson.some(same), counts)
            found = found + torch.autograd.grad(loss, log_prob)[0]
        shares = torch.zeros(number, 3, dtype=torch.float64).index_add(0, rows, found * weight[:, None])
        return -torch.autograd.grad((shares * self.tokens(self.table)).sum(), self.table)[0]


def lessons(objective: Any, drawn: Drawn) -> Lesson:
    """Of groups that never meet in a batch."""
    return objective.lesson(drawn, lambda x: x)  # type: ignore[no-any-return]


def off_by(found: Tensor, wanted: Tensor) -> float:
    """The norm of the difference of two directions, of which the first has the length of the second."""
    scaled = found * (wanted.norm() / found.norm())
    return float((scaled - wanted).norm() / wanted.norm())


BOTH = pytest.mark.parametrize("ends", [False, True])


# --- unbiased ones ----------------------------------------------------------------------------------------------------


@BOTH
def test_reinforce_has_the_gradient(ends: bool) -> None:
    language = Language(ends)
    found = language.expected(Reinforce(BETA, baseline=False), 1)
    torch.testing.assert_close(found, language.gradient(), rtol=0, atol=1e-10)


@BOTH
def test_rloo_has_the_gradient(ends: bool) -> None:
    language = Language(ends)
    torch.testing.assert_close(language.expected(RLOO(BETA), 2), language.gradient(), rtol=0, atol=1e-10)


def test_a_baseline_of_the_other_answers_of_a_batch_changes_nothing_on_average() -> None:
    """Of two prompts with an answer each, which are the two answers of a batch."""
    language = Language(True)

    class Two(Reinforce):
        def lesson(self, drawn: Drawn, total: Any) -> Lesson:
            pairs = self.returns(drawn).view(-1, 2)
            found = [super(Two, self).lesson(drawn.some(torch.tensor([2 * i, 2 * i + 1])), total).advantage
                     for i in range(3)]  # fmt: skip
            torch.testing.assert_close(found[1][0, 0], pairs[1, 0] - pairs[1, 1])
            return Lesson((pairs - pairs.flip(1)).view(-1, 1).expand_as(drawn.log_prob))

    torch.testing.assert_close(language.expected(Two(BETA), 2), language.gradient(), rtol=0, atol=1e-10)


@BOTH
@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
def test_ppo_with_a_perfect_critic_has_the_gradient(ends: bool, lam: float) -> None:
    """With values that are what is to come, whatever lambda is, up to the mean over tokens; answers that are cut after
    their third token are worth nothing then, so that what follows adds nothing to them."""
    language = Language(ends)
    log_prob = language.tokens(language.table).detach()
    reward = at_the_end(language.reward, language.counted) - BETA * (log_prob - language.reference)
    probability = log_prob.sum(dim=1).exp()
    value = torch.zeros(len(language.answers), 4, dtype=torch.float64)
    for t in range(3):
        rest = reward[:, t:].sum(dim=1)
        for place in language.places[:, t].unique():
            here = (language.places[:, t] == place) & language.counted[:, t]
            if here.any():
                value[here, t] = (probability[here] * rest[here]).sum() / probability[here].sum()

    class BySums(PPO):
        def loss(self, log_prob: Tensor, drawn: Drawn, lesson: Lesson, counts: Counts) -> tuple[Tensor, Tensor]:
            return super().loss(log_prob, drawn, lesson, counts._replace(tokens=torch.ones(()).double()))

    objective = BySums(BETA, lam=lam, whiten=False)
    found = language.expected(objective, 1, values=value)
    torch.testing.assert_close(found, language.gradient(), rtol=0, atol=1e-10)


@BOTH
@pytest.mark.parametrize("beta", [0.0, BETA])
def test_dr_grpo_has_the_gradient_up_to_a_factor(ends: bool, beta: float) -> None:
    """(G - 1) / G, since an answer is in the mean of its own group, over the limit of the length."""
    language = Language(ends)
    objective = GRPO(beta, kl="k1", kl_in="reward", scaled=False, aggregate="constant")
    wanted = language.gradient(beta) / 2 / 3
    torch.testing.assert_close(language.expected(objective, 2), wanted, rtol=0, atol=1e-10)


# --- biased ones ------------------------------------------------------------------------------------------------------


def test_estimates_of_the_divergence_in_the_loss_have_not_its_gradient() -> None:
    """k2 and k3 are right for a single token, k2 to the last digit, and leave out what a token leads to. docs/rlhf.md
    has the figures."""
    language = Language(True)
    wanted = language.gradient()
    found = {(kl, place): off_by(language.expected(RLOO(BETA, kl, place), 2), wanted)  # type: ignore[arg-type]
             for kl, place in (("k2", "loss"), ("k3", "loss"), ("k2", "reward"), ("k3", "reward"))}  # fmt: skip
    wrong = {("k2", "loss"): 0.22, ("k3", "loss"): 0.38, ("k2", "reward"): 0.60, ("k3", "reward"): 0.76}
    assert found == pytest.approx(wrong, abs=0.01)


def test_k2_is_right_for_one_token_and_k3_is_not() -> None:
    draw = torch.Generator().manual_seed(1)
    logits, other = (torch.randn(8, dtype=torch.float64, generator=draw) for _ in range(2))
    logits.requires_grad_()
    log_prob, reference = logits.log_softmax(dim=0), other.log_softmax(dim=0)
    wanted = torch.autograd.grad((log_prob.exp() * (log_prob - reference)).sum(), logits, retain_graph=True)[0]
    found = {
        kl: torch.autograd.grad(
            (log_prob.exp().detach() * estimate(kl, log_prob, reference)).sum(),
            logits,
            retain_graph=True,  # type: ignore[arg-type]
        )[0]
        for kl in ("k1", "k2", "k3")
    }
    torch.testing.assert_close(found["k2"], wanted)
    assert float(found["k1"].abs().max()) < 1e-15
    assert float((found["k3"] - wanted).norm() / wanted.norm()) > 0.1


def test_grpo_is_its_own_expectation_and_not_the_gradient() -> None:
    """The divergence in the loss, lengths of answers and standard deviations of rewards all turn it."""
    language = Language(True)
    found = language.expected(GRPO(BETA), 2)
    probability, log_prob = language.probability().detach(), language.tokens(language.table)
    one, two = language.reward[:, None], language.reward[None, :]
    std = (one - two).abs() / math.sqrt(2)
    advantage = (one - two) / 2 / (std + 1e-4)  # of the first of two
    mean = (probability[:, None] * probability[None, :] * advantage).sum(dim=1)  # an answer is either of two
    ratio = language.reference - log_prob
    k3 = (ratio.exp() - 1 - ratio) * language.counted
    length = language.counted.sum(dim=1)
    surrogate = (mean[:, None] * log_prob).sum(dim=1) / length
    cost = BETA * probability * (k3.sum(dim=1) / length)
    wanted = torch.autograd.grad((surrogate - cost).sum(), language.table)[0]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)
    assert off_by(found, language.gradient()) == pytest.approx(0.64, abs=0.01)
    parts = {
        "divergence": GRPO(BETA, scaled=False, aggregate="constant"),
        "lengths": GRPO(BETA, "k1", "reward", scaled=False),
        "token": GRPO(BETA, "k1", "reward", scaled=False, aggregate="token"),
        "deviations": GRPO(BETA, "k1", "reward", aggregate="constant"),
    }
    wrong = {name: off_by(language.expected(one, 2), language.gradient()) for name, one in parts.items()}
    told = {"divergence": 0.58, "lengths": 0.40, "token": 0.14, "deviations": 0.21}
    assert wrong == pytest.approx(told, abs=0.01)  # docs/rlhf.md has them


def test_clipped_ppo_is_its_own_expectation_and_not_the_gradient() -> None:
    """Of answers that another policy drew: the smaller of two surrogates."""
    language, earlier = Language(True), Language(True, seed=3)
    before = language.table.detach() + 0.3 * earlier.table.detach()
    value = torch.randn(len(language.answers), 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    objective = PPO(BETA, clip=0.1, whiten=False)
    found = language.expected(objective, 1, before, value)
    old = language.tokens(before)
    drawn = language.drawn(torch.arange(len(language.answers)), 1, before, value)
    advantage = lessons(objective, drawn).advantage
    ratio = (language.tokens(language.table) - old).exp()
    up, down = (
        torch.where(advantage > 0, ratio.clamp(max=1.1), ratio),
        torch.where(advantage < 0, ratio.clamp(min=0.9), ratio),
    )
    smaller = torch.where(advantage > 0, up, down) * advantage * language.counted
    weight = language.probability(before).detach() / language.counted.sum(dim=1)
    wanted = torch.autograd.grad((weight[:, None] * smaller).sum(), language.table)[0]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)
    assert off_by(found, language.gradient()) > 0.1


# --- the optimum ------------------------------------------------------------------------------------------------------


def test_the_optimum_is_the_closed_form() -> None:
    """In proportion to reference * exp(reward / beta): there all unbiased gradients are 0, and GRPO's is not."""
    language = Language(True)
    wanted = (language.reference.sum(dim=1) + language.reward / BETA).softmax(dim=0)
    table = torch.full((73, 8), -1e9, dtype=torch.float64)
    for t in range(3):
        for place in language.places[:, t].unique():
            here = (language.places[:, t] == place) & language.counted[:, t]
            for token in range(8):
                table[place, token] = wanted[here & (language.answers[:, t] == token)].sum().clamp(min=1e-300).log()
    with torch.no_grad():
        language.table.copy_(table)
    torch.testing.assert_close(language.probability(), wanted)
    found = {
        "reinforce": language.expected(Reinforce(BETA, baseline=False), 1),
        "rloo": language.expected(RLOO(BETA), 2),
        "dr_grpo": language.expected(GRPO(BETA, "k1", "reward", scaled=False, aggregate="constant"), 2),
    }
    assert max(float(gradient.abs().max()) for gradient in found.values()) < 1e-12
    assert float(language.expected(GRPO(BETA), 2).abs().max()) > 1e-3


# --- parts ------------------------------------------------------------------------------------------------------------


def drawn(reward: list[float], counted: list[list[int]], **others: Any) -> Drawn:
    mask = torch.tensor(counted, dtype=torch.bool)
    zeros = torch.zeros(mask.shape, dtype=torch.float64)
    given: dict[str, Any] = {"ended": torch.ones(len(reward), dtype=torch.bool), "log_prob": zeros,
                             "reference": zeros, "value": None, "group": 2, "limit": mask.shape[1]}  # fmt: skip
    return Drawn(torch.tensor(reward, dtype=torch.float64), mask, **{**given, **others})


# Of trl 1.16.0: `_compute_loss` of GRPOTrainer (loss_type grpo with scaled rewards, bnpo, dr_grpo without, of at most 8
# tokens) and of RLOOTrainer (advantages as in its `_generate_and_score_completions`), given the batch of ``by_waves``
# in place of a model: the loss, and the norm of its gradient by the log-probabilities.
RECORDED: tuple[tuple[Any, float, float], ...] = (
    (GRPO(0.04), 0.028123256561791283, 0.18937875354904105),
    (GRPO(0.04, aggregate="token"), 0.007756070819040756, 0.20091380275223616),
    (GRPO(0.04, scaled=False, aggregate="constant"), -0.01621576386369126, 0.03327569549392422),
    (RLOO(0.05), 0.04168696229606722, 0.37210008472629913),
)


def by_waves() -> tuple[Tensor, Drawn]:
    """Log-probabilities now, and two groups of three answers, as another policy drew them."""
    waves = [-1.5 + torch.sin(torch.arange(30).double() * 1.7 + phase).view(6, 5) for phase in (0.0, 0.15, 0.4)]
    mask = torch.arange(5) < torch.tensor([5, 2, 3, 1, 4, 5])[:, None]
    reward = torch.tensor([1.0, 0.0, 0.25, 0.5, 0.5, 0.125], dtype=torch.float64)
    return waves[0].requires_grad_(), Drawn(reward, mask, mask.any(dim=1), waves[1], waves[2], None, 3, 8)


@pytest.mark.parametrize(("objective", "loss", "norm"), RECORDED, ids=["grpo", "bnpo", "dr_grpo", "rloo"])
def test_trl_has_the_same_loss_and_gradient(objective: Any, loss: float, norm: float) -> None:
    log_prob, batch = by_waves()
    counts = Counts(torch.tensor(6.0).double(), batch.counted.sum().double())
    found, _ = objective.loss(log_prob, batch, lessons(objective, batch), counts)
    found.backward()
    assert float(found.detach()) == pytest.approx(loss, rel=1e-6)
    assert float(log_prob.grad.norm()) == pytest.approx(norm, rel=1e-6)  # type: ignore[union-attr]


def test_the_reward_comes_with_the_last_token_and_not_with_the_last_column() -> None:
    found = at_the_end(torch.tensor([2.0, 3.0]), torch.tensor([[1, 1, 0], [1, 1, 1]]).bool())
    assert found.tolist() == [[0, 2, 0], [0, 0, 3]]


def test_advantages_by_hand() -> None:
    """Two answers: one ends after two tokens, whatever value stands after it; one is cut, and what follows is what its
    last value says."""
    rewards = torch.tensor([[0.0, 1.0, 0.0], [0.1, 0.2, 0.3]]).double()
    value = torch.tensor([[0.5, 0.4, 9.0, 9.0], [0.1, 0.2, 0.3, 0.4]]).double()
    counted = torch.tensor([[1, 1, 0], [1, 1, 1]]).bool()
    found = generalized_advantages(rewards, value, counted, torch.tensor([True, False]), 0.9, 0.5)
    d1, d0 = 1.0 - 0.4, 0 + 0.9 * 0.4 - 0.5
    c2, c1, c0 = 0.3 + 0.9 * 0.4 - 0.3, 0.2 + 0.9 * 0.3 - 0.2, 0.1 + 0.9 * 0.2 - 0.1
    wanted = [[d0 + 0.45 * d1, d1, 0.0], [c0 + 0.45 * (c1 + 0.45 * c2), c1 + 0.45 * c2, c2]]
    torch.testing.assert_close(found, torch.tensor(wanted).double())


def test_an_answer_that_ended_at_the_limit_is_worth_nothing_after_it() -> None:
    value, counted = torch.tensor([[0.5, 7.0]]).double(), torch.ones(1, 1).bool()
    for ended, wanted in ((True, 1 - 0.5), (False, 1 + 7 - 0.5)):
        found = generalized_advantages(torch.ones(1, 1).double(), value, counted, torch.tensor([ended]), 1.0, 1.0)
        assert float(found) == pytest.approx(wanted)


def test_ppos_losses_by_hand() -> None:
    objective = PPO(0.0, clip=0.2, value_clip=0.1, value_weight=0.5, whiten=False)
    batch = drawn([0.0], [[1, 1, 1, 1, 0]], value=torch.tensor([[1.0, 1, 1, 1, 5, 5]]).double(), group=1)
    lesson = Lesson(torch.tensor([[1.0, 1, -1, -1, 9]]).double(), torch.tensor([[2.0, 2, 1, 1, 9]]).double())
    counts = Counts(torch.tensor(1.0), torch.tensor(4.0))
    ratio = torch.tensor([[1.5, 0.5, 1.5, 0.5, 9]]).double()
    loss, clipped = objective.loss(ratio.log(), batch, lesson, counts)
    assert float(loss) == pytest.approx(-(1.2 + 0.5 - 1.5 - 0.8) / 4)
    assert float(clipped) == 0.5
    value = torch.tensor([[1.05, 1.5, 1.05, 0.5, 0.0]]).double()
    wanted = (0.95**2 + max(0.5**2, 0.9**2) + 0.05**2 + max(0.5**2, 0.1**2)) / 2 / 4
    assert float(objective.value_loss(value, batch, lesson, counts)) == pytest.approx(0.5 * wanted)


def test_advantages_are_whitened_over_all_processes() -> None:
    values = torch.arange(6.0).view(2, 3)
    counted = torch.tensor([[1, 1, 0], [1, 1, 1]]).bool()
    alone = whitened(values, counted, lambda x: x)
    kept = values[counted]
    torch.testing.assert_close(alone[counted], (kept - kept.mean()) / kept.std())
    assert float(alone[0, 2]) == 0
    twice = whitened(values, counted, lambda x: 2 * x)  # another process has the same
    both = kept.repeat(2)
    torch.testing.assert_close(twice[counted], (kept - both.mean()) / both.std())


def test_a_group_with_equal_rewards_teaches_nothing() -> None:
    batch = drawn([1.0, 1.0, 0.0, 1.0], [[1, 1]] * 4)
    for objective in (GRPO(0.0), RLOO(0.0), GRPO(0.0, scaled=False, aggregate="constant")):
        advantage = objective.lesson(batch, lambda x: x).advantage
        assert advantage[:2].abs().max() == 0
        assert advantage[2:, 0].tolist() == [-advantage[3, 0].item(), advantage[3, 0].item()]
        assert advantage.isfinite().all()


@pytest.mark.parametrize(
    ("aggregate", "weights"),
    [
        ("sequence", [[1 / 2 / 2, 1 / 2 / 2, 0], [1 / 2 / 3] * 3]),
        ("token", [[1 / 5, 1 / 5, 0], [1 / 5] * 3]),
        ("constant", [[1 / 2 / 3, 1 / 2 / 3, 0], [1 / 2 / 3] * 3]),
    ],
)
def test_what_the_weight_of_a_token_is(aggregate: Any, weights: list[list[float]]) -> None:
    batch = drawn([1.0, 0.0], [[1, 1, 0], [1, 1, 1]])
    found = GRPO(aggregate=aggregate).weights(batch, Counts(torch.tensor(2.0), torch.tensor(5.0)))
    torch.testing.assert_close(found, torch.tensor(weights).double())


def test_answers_that_are_not_learnt_from_change_nothing() -> None:
    """Cut ones, if these are left out: their tokens do not count, and their rewards still compare."""
    batch = drawn([1.0, 0.0], [[0, 0, 0], [1, 1, 1]], ended=torch.tensor([False, True]))
    counts = Counts(torch.tensor(2.0), torch.tensor(3.0))
    for objective in (GRPO(), RLOO(), GRPO(aggregate="token")):
        log_prob = torch.full((2, 3), 0.02, dtype=torch.float64).requires_grad_()
        lesson = objective.lesson(batch, lambda x: x)
        loss, _ = objective.loss(log_prob, batch, lesson, counts)
        slope = torch.autograd.grad(loss, log_prob)[0]
        assert slope[0].abs().max() == 0
        assert slope[1].abs().min() > 0


@pytest.mark.parametrize(
    "make",
    [partial(GRPO, -1), partial(GRPO, clip=0), partial(GRPO, aggregate="mean"), partial(RLOO, kl="k4"),
     partial(Reinforce, kl_in="both"), partial(PPO, gamma=1.1), partial(PPO, lam=-0.1), partial(PPO, value_clip=0)],
)  # fmt: skip
def test_settings_out_of_range_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=r"^\w+=\S+ must "):
        make()


def test_an_estimate_without_a_gradient_is_refused() -> None:
    with pytest.raises(ValueError, match="kl=k1 in the loss has no gradient on average"):
        RLOO(kl="k1", kl_in="loss")

"""Reward models: likelihoods of preferences, where a text is scored, ensembles, and what may not matter."""

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genlab.model.network.feed_forward import SwiGLU
from genlab.model.network.positions import Rotary
from genlab.model.network.token_transformer import TokenTransformer
from genlab.model.objective.reward import BradleyTerry, RaoKupper
from genlab.model.reward import Reward, last_counted
from genlab.model.schedule import Constant
from preferred import by_hand

VOCABULARY, LENGTH = 97, 11


def network(tied: bool = False, **sizes: Any) -> TokenTransformer:
    parts: dict[str, Any] = {"positions": Rotary, "norm": nn.RMSNorm, "feed_forward": SwiGLU}
    return TokenTransformer(**sizes, **parts, width=16, depth=2, num_heads=2, tied=tied)


def model(members: int = 1, seed: int = 0, trained: bool = True, objective: Any = None, tied: bool = False) -> Reward:
    """``trained``: with a head that is not zero."""
    torch.manual_seed(0)
    made = Reward(
        partial(network, tied),
        objective or BradleyTerry(),
        partial(torch.optim.SGD, lr=0.1),
        Constant(),
        (LENGTH,),
        VOCABULARY,
        members=members,
        seed=seed,
    )
    made.configure_model()
    for member in made.each():
        if trained:
            nn.init.normal_(member.head.weight)
    return made.eval()


def zeros(count: int) -> Tensor:
    return torch.zeros(count)


def no(count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.bool)


# --- likelihoods ------------------------------------------------------------------------------------------------------


def test_bradley_terry_is_the_likelihood_of_a_preference() -> None:
    difference = torch.tensor([-2.0, 0.0, 1.5])
    expected = [-math.log(1 / (1 + math.exp(-d))) for d in difference.tolist()]
    torch.testing.assert_close(BradleyTerry().loss(difference, no(3), zeros(3)), torch.tensor(expected))
    margin = torch.tensor([0.5, 1.0, 2.0])
    torch.testing.assert_close(
        BradleyTerry().loss(difference, no(3), margin), BradleyTerry().loss(difference - margin, no(3), zeros(3))
    )
    half = (BradleyTerry().loss(difference, no(3), zeros(3)) + BradleyTerry().loss(-difference, no(3), zeros(3))) / 2
    torch.testing.assert_close(BradleyTerry().loss(difference, ~no(3), margin), half)


@pytest.mark.parametrize("threshold", [0.1, 0.7, 2.0])
def test_rao_kuppers_three_outcomes_are_all_there_are(threshold: float) -> None:
    objective, difference = RaoKupper(threshold), torch.linspace(-4, 4, 17, dtype=torch.float64)
    zero, tie = torch.zeros_like(difference), torch.ones_like(difference, dtype=torch.bool)
    first = (-objective.loss(difference, ~tie, zero)).exp()
    second = (-objective.loss(-difference, ~tie, zero)).exp()
    neither = (-objective.loss(difference, tie, zero)).exp()
    torch.testing.assert_close(first + second + neither, torch.ones_like(difference))
    assert neither.argmax() == 8
    assert neither[8] == pytest.approx(math.tanh(threshold / 2))
    torch.testing.assert_close(objective.probability(difference), first / (first + second))


def test_rewards_of_exact_preferences_are_found() -> None:
    """Three answers, each preferred to the others as often as their true rewards say, neither included."""
    true = torch.tensor([0.0, 0.8, -0.5], dtype=torch.float64)
    objective = RaoKupper(0.6)
    found = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]

    def likelihood(rewards: Tensor, tie: bool) -> Tensor:
        difference = torch.stack([rewards[i] - rewards[j] for i, j in pairs])
        return objective.loss(difference, torch.full((6,), tie), torch.zeros(6, dtype=torch.float64))

    shares = {tie: (-likelihood(true, tie)).exp() for tie in (False, True)}
    optimizer = torch.optim.LBFGS(
        [found], max_iter=300, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        total = sum((shares[tie] * likelihood(found, tie)).sum() / (2 if tie else 1) for tie in (False, True))
        assert isinstance(total, Tensor)
        total.backward()
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(found.detach() - found.detach()[0], true, rtol=0, atol=1e-6)


@pytest.mark.parametrize("threshold", [0.0, -1.0, math.inf])
def test_a_threshold_is_above_zero(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        RaoKupper(threshold)


# --- where a text is scored -------------------------------------------------------------------------------------------


def test_the_last_token_that_counts() -> None:
    answer = torch.tensor([[0, 0, 1, 1, 0, 0], [0, 1, 0, 0, 1, 0], [0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 1]]).bool()
    assert last_counted(answer).tolist() == [4, 5, 5, 5]  # a seventh token is not seen


def test_what_follows_or_precedes_a_text_as_padding_does_not_matter() -> None:
    reward = model()
    member = next(reward.each())
    tokens = torch.arange(1, 6)[None]
    alone = reward.score(member, tokens, torch.tensor([4]))
    after = torch.cat([tokens, torch.tensor([[7, 0, 3]])], dim=1)
    torch.testing.assert_close(reward.score(member, after, torch.tensor([4])), alone)
    before = torch.cat([torch.tensor([[9, 9, 9]]), tokens], dim=1)
    padded = reward.score(member, before, torch.tensor([7]), padding=torch.tensor([3]))
    torch.testing.assert_close(padded, alone)
    assert not torch.isclose(reward.score(member, before, torch.tensor([7])), alone)
    assert not torch.isclose(reward.score(member, after, torch.tensor([5])), alone)


def test_pairs_are_scored_as_texts_are() -> None:
    reward, batch = model(), by_hand(VOCABULARY)
    found = reward.rewards({**batch, "margin": zeros(3)})[0]  # (3, 2)
    for i in range(3):
        for side in range(2):
            length = int(batch["answer"][i, side].nonzero().max()) + 2
            alone = {"tokens": batch["tokens"][i, side, :length][None], "last": torch.tensor([length - 1])}
            if length <= LENGTH:
                torch.testing.assert_close(reward.rewards({**alone, "rating": zeros(1)})[0, 0], found[i, side])


def test_at_the_start_everything_has_a_reward_of_zero() -> None:
    reward, batch = model(members=2, trained=False), by_hand(VOCABULARY)
    assert not reward.rewards(batch).any()
    assert reward.losses(batch)["loss"].item() == pytest.approx(math.log(2))
    rated = {
        "tokens": batch["tokens"][:, 0, :LENGTH],
        "last": torch.tensor([4, 4, 4]),
        "rating": torch.tensor([1.0, -1.0, 0.5]),
    }
    assert reward.losses(rated)["loss"].item() == pytest.approx((1 + 1 + 0.25) / 3)


def test_ties_do_not_count_in_the_accuracy() -> None:
    reward, batch = model(), by_hand(VOCABULARY)
    values = reward.rewards(batch)[0]
    right = (values[:, 0] > values[:, 1]).float()
    tie = torch.tensor([True, False, False])
    assert reward.losses({**batch, "tie": tie})["accuracy"].item() == pytest.approx(right[1:].mean().item())


@pytest.mark.parametrize("tied", [False, True])
def test_all_that_is_trained_has_a_gradient(tied: bool) -> None:
    """The map to logits, which nothing uses, is frozen: several devices would wait for it."""
    reward = model(members=2, tied=tied)
    reward.losses(by_hand(VOCABULARY))["loss"].backward()
    assert all((p.grad is not None) == p.requires_grad for p in reward.parameters())
    frozen = {name for name, p in reward.named_parameters() if not p.requires_grad}
    assert frozen == (set() if tied else {"network.head.weight", "others.0.network.head.weight"})


# --- ensembles --------------------------------------------------------------------------------------------------------


def test_each_member_has_a_resample_of_the_data_of_its_own() -> None:
    reward = model(members=3, seed=5)
    index = torch.arange(20_000)
    times = reward._times(index)
    assert times is not None
    assert times.mean(dim=1).tolist() == pytest.approx([1, 1, 1], abs=0.03)
    for count in range(4):  # Poisson
        assert (times == count).float().mean().item() == pytest.approx(math.exp(-1) / math.factorial(count), abs=0.01)
    assert np.corrcoef(times[0], times[1])[0, 1] == pytest.approx(0, abs=0.03)
    later = reward._times(index[100:103])
    assert later is not None
    assert torch.equal(later, times[:, 100:103])  # whatever else is in the batch
    other = model(members=3, seed=6)._times(index)
    assert other is not None
    assert not torch.equal(other, times)
    assert model()._times(index) is None


def test_an_example_seen_twice_counts_twice() -> None:
    reward, batch = model(members=2), by_hand(VOCABULARY)
    alone = torch.stack([reward.losses({k: v[i : i + 1] for k, v in batch.items()})["loss"] for i in range(3)])
    once = reward._measured(batch, torch.tensor([[1.0, 1, 1], [1, 1, 1]]))["loss"]
    torch.testing.assert_close(once, alone.mean())
    skewed = reward._measured(batch, torch.tensor([[3.0, 0, 0], [3, 0, 0]]))["loss"]
    torch.testing.assert_close(skewed, alone[0])


def test_members_begin_with_heads_of_their_own_and_their_mean_is_judged() -> None:
    reward, batch = model(members=3), by_hand(VOCABULARY)
    values = reward.rewards(batch)
    assert values.shape == (3, 3, 2)
    assert not torch.equal(values[0], values[1])
    difference = values[..., 0] - values[..., 1]
    found = reward.losses(batch)
    assert found["accuracy"].item() == pytest.approx((difference.mean(dim=0) > 0).float().mean().item())
    torch.testing.assert_close(found["disagreement"], difference.std(dim=0).mean())
    with pytest.raises(ValueError, match="members=0"):
        model(members=0)


def test_rewards_are_float32_where_the_network_is_bf16() -> None:
    reward, batch = model(), by_hand(VOCABULARY)
    whole = reward.rewards(batch)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = reward.rewards(batch)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, whole, rtol=0, atol=0.1)

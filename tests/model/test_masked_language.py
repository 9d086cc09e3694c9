"""Masked language models: what is chosen and put in its place, what is learned, pseudo-likelihoods and filling in."""

import math
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import binom
from torch import Tensor, nn

from genlab.model.base import FillsIn, GenerativeModel, HasLikelihood
from genlab.model.draws import Draws
from genlab.model.masked_language import MaskedLanguage
from genlab.model.network.feed_forward import SwiGLU
from genlab.model.network.positions import Learned
from genlab.model.network.token_transformer import TokenTransformer
from genlab.model.schedule import Constant

VOCABULARY, MASK = 50, 50


def network(**sizes: Any) -> TokenTransformer:
    parts: dict[str, Any] = {"positions": Learned, "norm": nn.LayerNorm, "feed_forward": SwiGLU}
    return TokenTransformer(**sizes, **parts, width=16, depth=2, num_heads=2)


def language(length: int = 64, **changes: Any) -> MaskedLanguage:
    arguments: dict[str, Any] = {
        "network": network,
        "optimizer": partial(torch.optim.AdamW, lr=1e-2),
        "schedule": Constant(),
        "shape": (length,),
        "vocab_size": VOCABULARY,
    }
    torch.manual_seed(0)
    model = MaskedLanguage(**{**arguments, **changes})
    model.configure_model()
    for parameter in model.network.parameters():
        nn.init.normal_(parameter, std=0.3)  # far from their start, where all tokens are as likely
    return model.eval()


def draws(seed: int = 1, rank: int = 0, world: int = 1) -> Draws:
    return Draws(seed, rank, world, torch.device("cpu"))


def text(count: int = 3, length: int = 64) -> Tensor:
    return torch.randint(VOCABULARY, (count, length), generator=torch.Generator().manual_seed(2))


# --- what is chosen, and what the network sees of it ------------------------------------------------------------------


def within(found: int, trials: int, chance: float) -> bool:
    """Whether so many successes are no surprise: both tails have a probability of 1e-6."""
    return bool(binom.ppf(1e-6, trials, chance) <= found <= binom.isf(1e-6, trials, chance))


def test_shares_of_what_is_chosen_are_those_of_the_paper() -> None:
    """15 % of each row; of these 80 % are masked, 10 % are any token, of which one in 50 is the token itself."""
    model, tokens = language(), text(2000)
    shown, places = model.corrupted(tokens, draws())
    chosen = torch.zeros_like(tokens, dtype=torch.bool).scatter(1, places, True)
    assert (chosen.sum(dim=1) == round(0.15 * 64)).all(), "no place twice, and as many in each row"
    assert torch.equal(shown[~chosen], tokens[~chosen])
    total, masked = int(chosen.sum()), shown == MASK
    assert not (masked & ~chosen).any()
    assert within(int(masked.sum()), total, 0.8)
    other = chosen & ~masked & (shown != tokens)
    assert within(int(other.sum()), total, 0.1 * 49 / 50)
    each = chosen.sum(dim=0)
    assert all(within(int(count), 2000, 10 / 64) for count in each), "no place is chosen more often than another"
    drawn = torch.bincount(shown[other], minlength=VOCABULARY)
    assert len(drawn) == VOCABULARY
    assert all(within(int(count), int(other.sum()), 1 / 50) for count in drawn)


def test_shares_are_those_of_another_implementation() -> None:
    """DataCollatorForLanguageModeling of transformers 5.24 with its defaults, by its method torch_mask_tokens, of
    torch.randint(50, (2000, 64)) after torch.manual_seed(0): 19,203 tokens chosen, 15,276 of them masked and 1,892
    another token. It chooses each token by chance, and we the nearest number of each row, 10 of 64."""
    theirs, (shown, places) = {"masked": 15_276, "other": 1_892}, language().corrupted(text(2000), draws())
    kept = int((shown.gather(1, places) == text(2000).gather(1, places)).sum())
    masked, total = int((shown == MASK).sum()), places.numel()
    for name, ours in {"masked": masked, "other": total - masked - kept}.items():
        share = theirs[name] / 19_203
        assert abs(ours / total - share) < 4.5 * math.sqrt(share * (1 - share) * (1 / total + 1 / 19_203)), name


@pytest.mark.parametrize(
    ("length", "probability", "count"), [(2, 0.15, 1), (10, 0.001, 1), (10, 0.99, 9), (64, 0.15, 10), (7, 0.5, 4)]
)
def test_some_tokens_are_chosen_and_some_are_not(length: int, probability: float, count: int) -> None:
    """Also where the share of a row rounds to none or to all: there is something to predict, and to predict it from."""
    model = language(length, mlm_probability=probability)
    assert model.chosen_count(length) == count
    _, places = model.corrupted(text(5, length), draws())
    assert places.shape == (5, count)
    assert torch.isfinite(model.losses({"tokens": text(5, length + 1)})["loss"])


@pytest.mark.parametrize(("mask", "random"), [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0)])
def test_all_are_masked_replaced_or_kept(mask: float, random: float) -> None:
    model, tokens = language(mask_replace_prob=mask, random_replace_prob=random), text(50)
    shown, places = model.corrupted(tokens, draws())
    there = shown.gather(1, places)
    if mask:
        assert (there == MASK).all()
    else:
        assert (there < VOCABULARY).all()
        same = int((there == tokens.gather(1, places)).sum())
        assert within(same, there.numel(), 1 / 50) if random else same == there.numel()


def test_a_chosen_token_is_not_seen_but_where_it_stays() -> None:
    """With all chosen tokens exchanged for others, the network sees the same, but for a tenth of them."""
    model, tokens = language(), text(200)
    shown, places = model.corrupted(tokens, draws())
    other = tokens.scatter(1, places, (tokens.gather(1, places) + 7) % VOCABULARY)
    again, same_places = model.corrupted(other, draws())
    assert torch.equal(same_places, places), "what is chosen does not depend on the text"
    differ = again != shown
    kept = shown.gather(1, places) == tokens.gather(1, places)
    assert within(int(differ.sum()), places.numel(), 0.1)
    assert not (differ.gather(1, places) & ~kept).any()


def test_two_ranks_choose_as_one() -> None:
    model, tokens = language(), text(6)
    together = model.corrupted(tokens, draws())
    for rank in range(2):
        alone = model.corrupted(tokens[rank::2], draws(rank=rank, world=2))
        assert all(torch.equal(mine, whole[rank::2]) for mine, whole in zip(alone, together, strict=True))
    assert not torch.equal(model.corrupted(tokens, draws(seed=2))[0], together[0])


# --- the loss ---------------------------------------------------------------------------------------------------------


def test_the_loss_is_that_of_the_chosen_tokens() -> None:
    """As BertForMaskedLM has it: the mean over a batch of the cross-entropy at places with a label, -100 elsewhere."""
    model, tokens = language(), text(5, 65)
    loss, accuracy = model.predicted({"tokens": tokens}, draws())
    shown, places = model.corrupted(tokens[:, :64], draws())
    logits = model.network(shown)  # of all places
    labels = torch.full_like(shown, -100).scatter(1, places, tokens[:, :64].gather(1, places))
    torch.testing.assert_close(loss, F.cross_entropy(logits.flatten(0, 1), labels.flatten()))
    right = (logits.argmax(dim=2) == labels)[labels != -100].float().mean()
    torch.testing.assert_close(accuracy, right)


class Table(nn.Module):
    """Logits by the place alone, (T, V), whatever the tokens are."""

    def __init__(self, logits: Tensor):
        super().__init__()
        self.table = nn.Parameter(logits)

    def forward(self, tokens: Tensor, at: Tensor | None = None) -> Tensor:
        rows = self.table.expand(len(tokens), -1, -1)
        return rows if at is None else rows.take_along_dim(at[:, :, None], dim=1)


def test_only_chosen_places_have_a_loss() -> None:
    """Other targets at the others change nothing, and nothing flows back from there."""
    model, tokens = language(), text(1, 65)
    model.network = Table(torch.randn(64, VOCABULARY))
    loss, _ = model.predicted({"tokens": tokens}, draws())
    _, places = model.corrupted(tokens[:, :64], draws())
    others = torch.ones(1, 65, dtype=torch.bool).scatter(1, places, False)
    changed = torch.where(others, (tokens + 3) % VOCABULARY, tokens)
    assert torch.equal(model.predicted({"tokens": changed}, draws())[0], loss)
    assert not torch.equal(model.predicted({"tokens": (tokens + 3) % VOCABULARY}, draws())[0], loss)
    loss.backward()
    has_gradient = model.network.table.grad.abs().sum(dim=1) > 0
    assert torch.equal(has_gradient, ~others[0, :64])


@torch.no_grad()
def test_a_network_answers_at_some_places_as_at_all() -> None:
    model, tokens, at = language(), text(3), torch.tensor([[5, 0], [63, 62], [7, 7]])
    for hidden in (False, True):
        everywhere = model.network(tokens, hidden=hidden)
        some = model.network(tokens, hidden=hidden, at=at)
        torch.testing.assert_close(some, torch.stack([row[places] for row, places in zip(everywhere, at, strict=True)]))


@torch.no_grad()
def test_both_sides_are_seen() -> None:
    model, tokens = language(), text(1)
    before = model.network(tokens, hidden=True)[0, 30]
    for place in (0, 29, 31, 63):
        changed = tokens.clone()
        changed[0, place] = (changed[0, place] + 1) % VOCABULARY
        assert not torch.allclose(model.network(changed, hidden=True)[0, 30], before, atol=1e-4), place


def test_a_periodic_text_is_learned() -> None:
    """Each token of a text of period 5 follows from any other: the loss falls far below the entropy of one token."""
    model = language(12, vocab_size=5, network=network)
    model.train().log = lambda *_, **__: None  # type: ignore[method-assign]
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    optimizer, periodic = model.configure_optimizers(), (torch.arange(13) + torch.arange(5)[:, None]) % 5
    for step in range(120):
        optimizer.zero_grad()
        loss, _ = model.predicted({"tokens": periodic[torch.arange(32) % 5]}, draws(step))
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        loss, accuracy = model.predicted({"tokens": periodic}, draws(1000))
        assert loss < 0.3 * math.log(5)
        assert accuracy > 0.9
        masked = (torch.arange(12) % 4 == torch.arange(5)[:, None] % 4) & (torch.arange(12) > 0)
        filled, _ = model.fill(periodic[:, :12] * ~masked, masked)
        assert torch.equal(filled, periodic[:, :12])
        assert (-model.pseudo_log_probs(periodic[:, :12])).mean() < 0.1 * math.log(5)


# --- pseudo-likelihoods, and filling in -------------------------------------------------------------------------------


@torch.no_grad()
def test_pseudo_likelihoods_are_those_of_a_loop() -> None:
    model, tokens = language(), text(2, 9)
    found = model.pseudo_log_probs(tokens)
    for row in range(2):
        for place in range(9):
            seen = torch.tensor([[MASK if i == place else int(tokens[row, i]) for i in range(9)]])
            expected = model.network(seen)[0, place].log_softmax(dim=0)[tokens[row, place]]
            torch.testing.assert_close(found[row, place], expected)


class Certain(nn.Module):
    """Of four places: the token is place + 1 where the place before is known to be the place itself, else 0, and the
    less certain the later."""

    def forward(self, tokens: Tensor) -> Tensor:
        logits = torch.zeros(*tokens.shape, 6)
        for place in range(tokens.shape[1]):
            knows = tokens[:, place - 1] == place if place else torch.ones(len(tokens), dtype=torch.bool)
            logits[:, place, :] = torch.where(knows[:, None], F.one_hot(torch.tensor(place + 1), 6) * (9.0 - place), 0)
            logits[~knows, place, 0] = 1.0
        return logits


def test_the_most_certain_comes_first_and_the_others_know_it() -> None:
    model = language(4, vocab_size=5)
    model.network = Certain()
    tokens = torch.tensor([[4, 4, 4, 4], [0, 2, 0, 0]])
    masked = torch.tensor([[True, True, True, True], [False, False, True, False]])
    filled, logits = model.fill(tokens, masked)
    assert filled.tolist() == [[1, 2, 3, 4], [0, 2, 3, 0]]
    assert logits[0].argmax(dim=1).tolist() == [1, 0, 0, 0], "with all of them masked"
    unmasked, _ = model.fill(tokens, torch.zeros_like(masked))
    assert torch.equal(unmasked, tokens)


# --- the contract, and what is refused --------------------------------------------------------------------------------


def test_it_fills_in_and_is_no_generative_model() -> None:
    model = language()
    assert isinstance(model, FillsIn)
    assert not isinstance(model, GenerativeModel | HasLikelihood)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mlm_probability": 0.0}, r"model\.mlm_probability=0 must be above 0 and below 1"),
        ({"mlm_probability": 1.0}, r"model\.mlm_probability=1 must be above 0 and below 1"),
        ({"mlm_probability": float("nan")}, r"model\.mlm_probability=nan must be above 0 and below 1"),
        ({"mask_replace_prob": 0.95}, r"model\.mask_replace_prob=0\.95 and random_replace_prob=0\.1 must be 0 or more"),
        ({"random_replace_prob": -0.1}, r"random_replace_prob=-0\.1 must be 0 or more"),
        ({"random_replace_prob": float("nan")}, r"random_replace_prob=nan must be 0 or more"),
        ({"length": 1}, r"data\.context=1 is a single one\. Use data\.context=64"),
    ],
)
def test_arguments_out_of_range_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        language(**changes)

"""Masked generation against enumeration of all orders, and its sampler against distributions that are known."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import combinations, pairwise, permutations, product
from typing import Any

import pytest
import torch
from test_transformer import EVERY, Codes, blank, network, stream
from torch import Tensor

from genlab.errors import ConfigError
from genlab.metrics.perplexity import Perplexity
from genlab.model.base import Generates, HasLikelihood
from genlab.model.bits_per_dim import bits_per_dim
from genlab.model.guidance.classifier_free import ClassifierFree
from genlab.model.masked import Masked
from genlab.model.network.positions import Learned
from genlab.model.sampler.unmask import Unmask
from genlab.model.schedule import Constant
from genlab.model.tokens import CodeTokens
from genlab.seeding import RandomStream
from given_text import GivenText
from told import classes


def masked(**changes: Any) -> Masked:
    arguments: dict[str, Any] = {
        "network": network(),
        "sampler": Unmask(num_steps=4),
        "optimizer": partial(torch.optim.AdamW, lr=1e-2),
        "schedule": Constant(),
        "shape": (1, 2, 3),
        "vocab_size": None,
        "start_token": None,
        "told": {"label": {"size": 3}},
    }
    model = Masked(**{**arguments, **changes})
    model.configure_model()
    model.log = lambda *_, **__: None  # type: ignore[method-assign]
    return model.eval()


def of_text(context: int = 4, vocab_size: int = 3, **changes: Any) -> Masked:
    return masked(shape=(context,), vocab_size=vocab_size, start_token=1, told={}, **changes)


# --- what is minimized ------------------------------------------------------------------------------------------------


def hidden_by_hand(places: tuple[int, ...]) -> Tensor:
    return torch.tensor([[i in places for i in range(4)]])


@torch.no_grad()
def nats_of_hidden(model: Masked, sequence: Tensor, places: tuple[int, ...]) -> Tensor:
    """Minus log p of each token of one text (1, 5) at ``places`` given the others, from the network alone."""
    seen = sequence.clone()
    seen[:, [1 + place for place in places]] = 3  # of 3 tokens 0 to 2 the one that hides
    log_probs = model.network(seen)[0, 1:].log_softmax(dim=-1)
    return -log_probs[list(places), sequence[0, 1:][list(places)]].double()


def bound(model: Masked, sequence: Tensor) -> float:
    """The mean over all 24 orders of what the tokens cost if they are revealed one by one."""
    costs = {}
    for order in permutations(range(4)):
        for i in range(4):
            hidden = tuple(sorted(order[i:]))
            costs[order[:i], order[i]] = nats_of_hidden(model, sequence, hidden)[hidden.index(order[i])].item()
    total = sum(costs[order[:i], order[i]] for order in permutations(range(4)) for i in range(4))
    return -total / 24


def spread(model: Masked, sequence: Tensor) -> float:
    """Deviation of a hidden token's cost between the sets, of one size, of hidden tokens."""
    of_size = [[nats_of_hidden(model, sequence, c).mean() for c in combinations(range(4), k)] for k in range(1, 5)]
    return math.sqrt(sum(torch.stack(costs).var(correction=0).item() for costs in of_size) / 4)


SEQUENCE = torch.tensor([[1, 0, 2, 2, 1]])


def test_the_weighted_loss_is_the_bound_a_token() -> None:
    model = of_text()
    loss = model.losses({"tokens": SEQUENCE.expand(10_000, -1)})["loss"].item()
    assert loss == pytest.approx(-bound(model, SEQUENCE) / 4, abs=4 * spread(model, SEQUENCE) / 100)


def test_the_loss_of_maskgit_counts_hidden_tokens_alike() -> None:
    """Its share of hidden tokens is the cosine of a uniform angle."""
    model = of_text(likelihood_weighting=False)
    loss = model.losses({"tokens": SEQUENCE.expand(10_000, -1)})["loss"].item()
    nats, tokens = 0.0, 0.0
    for k in range(1, 5):
        chance = 2 / math.pi * (math.acos((k - 1) / 4) - math.acos(k / 4))
        of_k = [nats_of_hidden(model, SEQUENCE, places).sum().item() for places in combinations(range(4), k)]
        nats, tokens = nats + chance * sum(of_k) / len(of_k), tokens + chance * k
    assert loss == pytest.approx(nats / tokens, abs=0.01)
    assert abs(nats / tokens + bound(model, SEQUENCE) / 4) > 0.03, "not the other loss"


@torch.no_grad()
@pytest.mark.parametrize("weighted", [True, False])
def test_shares_of_hidden_tokens(weighted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spread evenly over a batch: with weights, as many sequences have 1, 2, 3 and 4 tokens hidden."""
    model, seen = of_text(likelihood_weighting=weighted), []
    original = model.hidden_nats
    monkeypatch.setattr(model, "hidden_nats", lambda x, hidden: seen.append(hidden) or original(x, hidden))
    model.losses({"tokens": SEQUENCE.expand(400, -1)})
    counts = torch.bincount(seen[0].sum(dim=1), minlength=5) / 400
    cosine = torch.tensor([0, *(2 / math.pi * (math.acos((k - 1) / 4) - math.acos(k / 4)) for k in range(1, 5))])
    expected = torch.tensor([0, 0.25, 0.25, 0.25, 0.25]) if weighted else cosine
    torch.testing.assert_close(counts, expected, rtol=0, atol=1.1 / 400)
    each = seen[0].float().mean(dim=0)  # no place is hidden more often than another
    torch.testing.assert_close(each, each.mean().expand(4), rtol=0, atol=0.1)


# --- likelihood -------------------------------------------------------------------------------------------------------


def test_the_likelihood_is_the_mean_over_all_orders() -> None:
    model = of_text(num_likelihood_samples=1600)
    sequences = torch.tensor([[1, 0, 2, 2, 1], [0, 1, 1, 0, 2]])
    nats = model.log_likelihood(sequences)
    expected = [bound(model, sequence[None]) for sequence in sequences]
    for i in range(2):
        assert nats[i].item() == pytest.approx(expected[i], abs=4 * 4 * spread(model, sequences[i : i + 1]) / 40)
    assert abs(expected[0] - expected[1]) > 0.5


def test_steps_of_the_likelihood_are_evenly_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each number of hidden tokens comes as often; what is hidden is each example's own, and the same the next time."""
    model, seen = of_text(num_likelihood_samples=12), []
    original = model.hidden_nats
    monkeypatch.setattr(model, "hidden_nats", lambda x, hidden: seen.append(hidden) or original(x, hidden))
    sequences = torch.tensor([[0, 1, 2, 0, 1], [2, 2, 1, 0, 0], [0, 1, 2, 0, 1]])
    nats = model.log_likelihood(sequences)
    for row in range(3):
        assert sorted(int(hidden[row].sum()) for hidden in seen) == [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    assert all(torch.equal(hidden[0], hidden[2]) for hidden in seen)
    assert not all(torch.equal(hidden[0], hidden[1]) for hidden in seen)
    assert torch.equal(nats, model.log_likelihood(sequences))
    torch.testing.assert_close(torch.cat([model.log_likelihood(row[None]) for row in sequences]), nats)
    model.seed = 1
    assert not torch.equal(nats, model.log_likelihood(sequences))


def test_bounds_of_all_texts_sum_to_less_than_1() -> None:
    """As bounds of a distribution's logarithm do: of the one that draws an order, then the tokens in that order."""
    model = of_text()
    sequences = torch.cat([torch.ones(81, 1, dtype=torch.long), EVERY], dim=1)
    bounds = torch.zeros(81, dtype=torch.float64)
    chances = torch.zeros(81, dtype=torch.float64)
    nats = {}
    for k in range(1, 5):
        for places in combinations(range(4), k):
            hidden = hidden_by_hand(places).expand(81, -1)
            nats[places] = model.hidden_nats(sequences, hidden).detach().double()
            bounds -= nats[places].sum(dim=1) / (k * math.comb(4, k))
    for order in permutations(range(4)):
        chances += torch.stack([-nats[tuple(sorted(order[i:]))][:, order[i]] for i in range(4)]).sum(dim=0).exp() / 24
    assert chances.sum().item() == pytest.approx(1, abs=1e-6)
    assert (bounds < chances.log()).all()
    assert 0.3 < bounds.exp().sum() < 1
    assert bounds[7].item() == pytest.approx(bound(model, sequences[7:8]), abs=1e-6)


@pytest.mark.parametrize("steps", [1, 3, 32])
def test_a_model_that_knows_nothing_costs_8_bits_per_dim(steps: int) -> None:
    model = masked(network=blank, shape=(3, 4, 4), num_likelihood_samples=steps)
    pixels = torch.randint(256, (5, 3, 4, 4), dtype=torch.uint8)
    bits = bits_per_dim(model, pixels, {"label": torch.tensor([0, 1, 2, -1, 0])}, stream(5))
    torch.testing.assert_close(bits, torch.full((5,), 8.0), rtol=0, atol=5e-6)
    metric = Perplexity()
    metric.measure(of_text(8, 98, network=blank), GivenText(torch.randint(98, (60,)), 8, 98), "val", batch_size=3)
    assert metric.compute()["perplexity"].item() == pytest.approx(98, rel=1e-5)


def test_codes_are_paid_with_their_pixels() -> None:
    model = masked(shape=(1, 2, 2), num_likelihood_samples=7)
    model.view, model.network = (
        CodeTokens(Codes(), classes(3)),
        network()(num_tokens=8, num_outputs=3, max_length=5, causal=False),
    )
    model.network.eval()
    codes, told = EVERY[::5].view(-1, 2, 2), {"label": torch.arange(17) % 4 - 1}
    images = Codes().detokenize(codes).clamp(-1, 1 - 1 / 128)
    nats = model.log_likelihood(images, told)
    model.view = TextOf(model.view)
    text = torch.cat([4 + told["label"][:, None], codes.flatten(1)], dim=1)
    given = -(images - Codes().detokenize(codes)).square().flatten(1).sum(dim=1)
    torch.testing.assert_close(nats, model.log_likelihood(text) + given)


class TextOf:
    """The tokens of another view, as they are."""

    def __init__(self, view: Any):
        self.given_length = view.given_length
        self.length, self.num_outputs, self.num_tokens = view.length, view.num_outputs, view.num_tokens

    def sequences(self, data: Tensor, condition: Any) -> Tensor:
        return data

    def log_density(self, log_prob: Tensor, data: Tensor, sequences: Tensor) -> Tensor:
        return log_prob


# --- the sampler ------------------------------------------------------------------------------------------------------


class Known:
    """Predicts the same independent distributions at every step, and remembers what it was shown."""

    def __init__(self, probabilities: Tensor):  # (L, V)
        self.logits = probabilities.log()
        self.shown: list[tuple[Tensor, Tensor]] = []

    def __call__(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        self.shown.append((tokens.clone(), hidden.clone()))
        return self.logits.expand(len(tokens), -1, -1)


def run(sampler: Unmask, predict: Callable, hidden: Tensor, tokens: Tensor | None = None, seed: int = 0) -> Tensor:
    tokens = torch.zeros_like(hidden, dtype=torch.long) if tokens is None else tokens
    return sampler(predict, hidden, tokens, stream(len(hidden), seed))


def among(*choices: int) -> Tensor:
    """At place i the first ``choices[i]`` of 40 tokens are equally likely: (L, 40)."""
    return ((torch.arange(40) < torch.tensor(choices)[:, None]) / torch.tensor(choices)[:, None]).clamp(min=1e-30)


def hidden_all(rows: int, length: int) -> Tensor:
    return torch.ones(rows, length, dtype=torch.bool)


@pytest.mark.parametrize("num_steps", [1, 2, 5])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_random_order_draws_from_what_is_predicted(num_steps: int, temperature: float) -> None:
    probabilities = torch.rand(6, 5).pow(2)
    probabilities /= probabilities.sum(dim=1, keepdim=True)
    sampler = Unmask(num_steps, temperature, choice_temperature=None)
    tokens = run(sampler, Known(probabilities), hidden_all(4000, 6))
    expected = (probabilities.log() / temperature).softmax(dim=1)
    for place in range(6):
        counts = torch.bincount(tokens[:, place], minlength=5)
        chi_squared = ((counts - 4000 * expected[place]).square() / (4000 * expected[place])).sum()
        assert chi_squared < 4 + 5 * math.sqrt(8)
    first, second = tokens[:, 0], tokens[:, 1]  # and independently
    joint = torch.bincount(first * 5 + second, minlength=25) / 4000
    torch.testing.assert_close(joint, (expected[0][:, None] * expected[1]).flatten(), rtol=0, atol=0.03)


def test_one_by_one_it_draws_from_any_distribution() -> None:
    """Of three tokens of two kinds, with the true conditionals: the joint distribution comes out."""
    joint = torch.tensor([0.30, 0.02, 0.08, 0.10, 0.05, 0.15, 0.01, 0.29]).view(2, 2, 2)

    def predict(tokens: Tensor, hidden: Tensor) -> Tensor:
        logits = torch.zeros(len(tokens), 3, 2)
        for row, (values, unknown) in enumerate(zip(tokens.tolist(), hidden.tolist(), strict=True)):
            known = joint[tuple(slice(None) if h else slice(v, v + 1) for v, h in zip(values, unknown, strict=True))]
            for place in range(3):
                if unknown[place]:
                    logits[row, place] = known.sum(dim=tuple(d for d in range(3) if d != place)).log()
        return logits

    tokens = run(Unmask(20, choice_temperature=None), predict, hidden_all(3000, 3))
    shares = torch.bincount((tokens * torch.tensor([4, 2, 1])).sum(dim=1), minlength=8) / 3000
    chi_squared = 3000 * ((shares - joint.flatten()).square() / joint.flatten()).sum()
    assert chi_squared < 7 + 5 * math.sqrt(14)


@pytest.mark.parametrize("choice_temperature", [None, 0.0, 4.5])
@pytest.mark.parametrize(("num_steps", "length"), [(1, 7), (3, 7), (8, 64), (7, 7), (20, 7), (4, 1)])
def test_every_hidden_token_is_revealed_once(choice_temperature: float | None, num_steps: int, length: int) -> None:
    predict = Known(torch.full((length, 50), 1 / 50))
    hidden = torch.rand(6, length) < torch.tensor([0.0, 0.2, 0.5, 0.8, 1.0, 1.0])[:, None]
    given = torch.randint(100, 200, (6, length))  # no token that could be drawn
    filled = run(Unmask(num_steps, choice_temperature=choice_temperature), predict, hidden, given)
    assert torch.equal(filled[~hidden], given[~hidden])
    assert (filled[hidden] < 50).all()
    shown = [*predict.shown, (filled, torch.zeros_like(hidden))]
    total = hidden.sum(dim=1)
    for step, ((tokens, before), (later, after)) in enumerate(pairwise(shown), start=1):
        assert not (after & ~before).any(), "what is revealed stays so"
        assert torch.equal(tokens[~before], later[~before]), "and stays what it is"
        share = math.cos(math.pi / 2 * step / num_steps)
        scheduled = [min(math.floor(count * share + 1e-5), left - 1) if left else 0
                     for count, left in zip(total.tolist(), before.sum(dim=1).tolist(), strict=True)]  # fmt: skip
        assert after.sum(dim=1).tolist() == scheduled
    assert len(predict.shown) <= num_steps
    assert all(before.any() for _, before in predict.shown), "nothing is asked for when all is there"


def test_the_surest_are_kept() -> None:
    predict = Known(among(4, 1, 8, 2, 40))
    run(Unmask(5, choice_temperature=0.0), predict, hidden_all(3, 5))
    steps = sum(hidden.long() for _, hidden in predict.shown)  # that each was hidden for
    assert steps.argsort(dim=1).tolist() == [[1, 3, 0, 2, 4]] * 3


@pytest.mark.parametrize("choice_temperature", [1.0, 3.0])
def test_noise_of_the_choice_is_gumbels(choice_temperature: float) -> None:
    """Then the first to be kept is i with a chance in proportion to p_i^(1 / temperature): the Gumbel-max trick."""
    predict = Known(among(1, 2, 8, 40))
    run(Unmask(50, choice_temperature=choice_temperature), predict, hidden_all(5000, 4))
    kept = ~predict.shown[1][1]
    assert (kept.sum(dim=1) == 1).all()
    expected = torch.tensor([1.0, 2, 8, 40]).pow(-1 / (choice_temperature * (1 - 1 / 50)))
    expected = 5000 * expected / expected.sum()
    assert ((kept.sum(dim=0) - expected).square() / expected).sum() < 3 + 5 * math.sqrt(6)


def test_in_random_order_all_are_kept_as_often() -> None:
    predict = Known(torch.tensor([[0.999, 0.001], [0.5, 0.5], [0.7, 0.3], [0.01, 0.99]]))
    run(Unmask(50, choice_temperature=None), predict, hidden_all(4000, 4))
    kept = (~predict.shown[1][1]).sum(dim=0).float()
    assert ((kept - 1000).square() / 1000).sum() < 3 + 5 * math.sqrt(6)


@pytest.mark.parametrize("options", [{"num_steps": 0}, {"temperature": 0.0}, {"choice_temperature": -1.0}])
def test_what_is_out_of_range_is_refused(options: dict[str, Any]) -> None:
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"{name}={value} (must be|above|0 or more)"):
        Unmask(**options)


# --- samples of a model -----------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("length", [0, 1, 2, 7, 8, 20])
def test_text_goes_on_from_a_prompt(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network sees the prompt, as much as leaves room for a token, at every step; what comes back is the rest."""
    model = of_text(8, 11)
    prompt = torch.randint(11, (3, length))
    seen = prompt[:, -8:] if length else torch.full((3, 1), 1)
    shown: list[Tensor] = []
    forward = model.network.forward
    monkeypatch.setattr(model.network, "forward", lambda tokens: shown.append(tokens) or forward(tokens))
    text = model.sample(3, {"prompt": prompt}, stream(3))
    assert text.shape == (3, 9 - seen.shape[1])
    assert ((text >= 0) & (text < 11)).all()
    assert all(torch.equal(tokens[:, : seen.shape[1]], seen) for tokens in shown)
    assert (shown[0][:, seen.shape[1] :] == 11).all(), "the rest is hidden at first"
    if length == 0:
        assert torch.equal(text, model.sample(3, None, stream(3)))
    else:
        other = model.sample(3, {"prompt": (prompt + 1) % 11}, stream(3))
        assert length > 6 or not torch.equal(text, other)


@torch.no_grad()
@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_images_are_drawn_from_the_guided_network(guidance: float) -> None:
    model, label = masked(guidance=ClassifierFree(guidance)), torch.tensor([0, 2, -1, 1])

    def predict(tokens: Tensor, hidden: Tensor) -> Tensor:
        shown = tokens.masked_fill(hidden, 260)  # 256 levels, none and three labels; then the one that hides
        told = model.network(torch.cat([257 + label[:, None], shown], dim=1))[:, 1:]
        untold = model.network(torch.cat([torch.full((4, 1), 256), shown], dim=1))[:, 1:]
        return untold + guidance * (told - untold)

    levels = run(model.sampler, predict, hidden_all(4, 6), seed=5)
    images = model.sample(4, {"label": label}, stream(4))
    assert torch.equal(images, levels.view(4, 2, 3, 1).permute(0, 3, 1, 2) / 127.5 - 1)
    model.guidance = ClassifierFree(9.0)
    assert not torch.equal(model.sample(4, {"label": label}, stream(4)), images)


@torch.no_grad()
def test_a_negative_label_stands_in_place_of_none() -> None:
    """At strength 0 samples are those of what guidance leads away from."""
    model, label = masked(guidance=ClassifierFree(0.0)), torch.tensor([0, 2, -1, 1])
    model.avoid({"label": torch.tensor([2])})
    away = model.sample(4, {"label": label}, stream(4))
    model.guidance, model.negative = ClassifierFree(1.0), None
    assert torch.equal(away, model.sample(4, {"label": torch.full((4,), 2)}, stream(4)))
    assert not torch.equal(away, model.sample(4, None, stream(4)))
    with pytest.raises(ConfigError, match="guidance of strength 1 leads away from no condition"):
        model.avoid({"label": torch.tensor([2])})


@torch.no_grad()
def test_a_sample_does_not_depend_on_its_batch() -> None:
    images, label = masked(guidance=ClassifierFree(2.0)), torch.tensor([0, 2, -1, 1])
    text, prompt = of_text(8, 11), torch.randint(11, (4, 3))
    together, told = images.sample(4, {"label": label}, stream(4)), text.sample(4, {"prompt": prompt}, stream(4))
    for i in range(4):
        one = slice(i, i + 1)
        alone = images.sample(1, {"label": label[one]}, RandomStream.for_samples(5, [i]))
        assert torch.equal(alone, together[one])
        assert torch.equal(text.sample(1, {"prompt": prompt[one]}, RandomStream.for_samples(5, [i])), told[one])


@torch.no_grad()
def test_every_label_and_none_count() -> None:
    model, images = masked(), torch.rand(4, 1, 2, 3) * 2 - 1
    nats = [model.log_likelihood(images, {"label": torch.full((4,), label)}) for label in (-1, 0, 1, 2)]
    for i, j in product(range(4), range(4)):
        assert torch.equal(nats[i], nats[j]) == (i == j)
    assert torch.equal(model.log_likelihood(images, None), nats[0])


def test_dropped_labels_are_no_labels() -> None:
    batch = {"image": torch.rand(8, 1, 2, 3) * 2 - 1, "label": torch.arange(8) % 3, "index": torch.arange(8)}
    model = masked(condition_dropout=1.0)
    first: list[Tensor] = []
    original = model.hidden_nats
    model.hidden_nats = lambda x, hidden: first.append(x[:, 0]) or original(x, hidden)  # type: ignore[method-assign]
    model.training_step(batch, 0)
    model.losses(batch)
    assert first[0].tolist() == [256] * 8
    assert torch.equal(first[1], 257 + batch["label"])


# --- learning ---------------------------------------------------------------------------------------------------------


def trained(windows: Iterator[Tensor], steps: int) -> Masked:
    model = of_text(12, 5, network=network(width=32, positions=Learned))
    optimizer = model.configure_optimizers()
    for _ in range(steps):
        optimizer.zero_grad()
        model.training_step({"tokens": next(windows), "index": torch.arange(32)}, 0).backward()
        optimizer.step()
    return model


def test_a_periodic_text_is_learned_by_heart() -> None:
    text = torch.arange(40) % 5  # each token, the first too, says where all others stand

    def windows() -> Iterator[Tensor]:
        while True:
            yield torch.stack([text[start : start + 13] for start in torch.randint(5, (32,))])

    model = trained(windows(), 120)
    assert (-model.log_likelihood(next(windows())) / 12).max() < 0.02
    with torch.no_grad():
        told = model.sample(5, {"prompt": text[:5][:, None]}, stream(5))
    assert torch.equal(told, (torch.arange(5)[:, None] + torch.arange(1, 13)) % 5)


def test_of_tokens_without_any_order_the_entropy_is_learned() -> None:
    shares = torch.tensor([0.5, 0.25, 0.125, 0.0625, 0.0625])

    def windows() -> Iterator[Tensor]:
        while True:
            yield torch.multinomial(shares, 32 * 13, replacement=True).view(32, 13)

    model = trained(windows(), 120)
    fresh = torch.multinomial(shares, 300 * 13, replacement=True).view(300, 13)
    nats = -model.log_likelihood(fresh) / 12
    by_shares = -shares.log()[fresh[:, 1:]].mean(dim=1)
    assert abs((nats - by_shares).mean()) < 0.05


# --- the contract, and what is refused --------------------------------------------------------------------------------


def test_contract() -> None:
    for model in (masked(), of_text()):
        assert isinstance(model, HasLikelihood)
        assert not isinstance(model, Generates)
        assert model.likelihood_kind == "bound"


def test_unknown_labels_and_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the labels \[0, 3\] are not all among the model's\. Use 0 to 2"):
        masked().sample(2, {"label": torch.tensor([0, 3])})
    with pytest.raises(ValueError, match="are not all among the model's"):
        masked().log_likelihood(torch.zeros(2, 1, 2, 3), {"label": torch.tensor([0, 3])})
    for bad in (-1, 11):
        with pytest.raises(ValueError, match=rf"token id {bad} is outside the vocabulary \(11\)"):
            of_text(8, 11).sample(1, {"prompt": torch.tensor([[5, bad]])})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"condition_dropout": -0.5}, r"model\.condition_dropout=-0\.5 is outside \[0, 1\]"),
        (
            {"guidance": ClassifierFree(2.0), "condition_dropout": 0.0},
            r"model\.guidance\.strength=2\.0 needs a model trained with",
        ),
        ({"num_likelihood_samples": 0}, r"model\.num_likelihood_samples=0 must be 1 or more"),
    ],
)
def test_arguments_out_of_range_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        masked(**changes)

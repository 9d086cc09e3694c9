"""Transformers of text and images, against Hugging Face's models, loops without a cache, and enumeration."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.config.build import fits
from genlab.errors import ConfigError
from genlab.metrics.perplexity import Perplexity
from genlab.model.base import Condition, Generates, HasLikelihood, HasTokenLikelihood, HasTokens
from genlab.model.bits_per_dim import bits_per_dim
from genlab.model.guidance.classifier_free import ClassifierFree
from genlab.model.network.feed_forward import SwiGLU
from genlab.model.network.positions import Learned, Rotary
from genlab.model.network.token_transformer import TokenTransformer
from genlab.model.sampler.next_token import NextToken
from genlab.model.schedule import Constant
from genlab.model.tokens import CodeTokens, PixelTokens
from genlab.model.transformer import Transformer
from genlab.seeding import RandomStream
from given_text import GivenText
from hugging_face import LENGTH, VOCABULARY, same_weights, scrambled
from told import classes

GREEDY = NextToken(temperature=0)


def network(**changes: Any) -> Callable[..., TokenTransformer]:
    """A small one, far from its start."""

    def make(**sizes: Any) -> TokenTransformer:
        parts = {"positions": Rotary, "norm": nn.RMSNorm, "feed_forward": SwiGLU, "head_norm": nn.RMSNorm}
        made = TokenTransformer(**sizes, **{**parts, "width": 16, "depth": 2, "num_heads": 2, **changes})
        scrambled(made)
        return made

    return make


def transformer(**changes: Any) -> Transformer:
    arguments: dict[str, Any] = {
        "network": network(),
        "sampler": NextToken(),
        "optimizer": partial(torch.optim.AdamW, lr=1e-2),
        "schedule": Constant(),
        "shape": (1, 2, 3),
        "vocab_size": None,
        "start_token": None,
        "told": {"label": {"size": 3}},
    }
    model = Transformer(**{**arguments, **changes})
    model.configure_model()
    model.log = lambda *_, **__: None  # type: ignore[method-assign]
    return model.eval()


def of_text(context: int = 8, vocab_size: int = 11, **changes: Any) -> Transformer:
    return transformer(shape=(context,), vocab_size=vocab_size, start_token=2, told={}, **changes)


class Codes(nn.Module):
    """A tokenizer of 2 x 2 codes of 3: image i stands for code i."""

    shape, token_shape, num_codes = (1, 2, 2), (2, 2), 3

    def tokenize(self, x: Tensor) -> Tensor:
        return (x[:, 0] + 1).round().long()

    def detokenize(self, tokens: Tensor) -> Tensor:
        return tokens[:, None] - 1.0

    def log_likelihood_given(self, x: Tensor, tokens: Tensor) -> Tensor:
        return -(x - self.detokenize(tokens)).square().flatten(1).sum(dim=1)


def of_codes(**changes: Any) -> Transformer:
    model = transformer(shape=(1, 2, 2), **changes)
    model.view = CodeTokens(Codes(), classes(3))
    model.network = network()(num_tokens=7, num_outputs=3, max_length=4, causal=True)
    return model.eval()


def stream(count: int, seed: int = 5) -> RandomStream:
    return RandomStream.for_samples(seed, range(count))


# --- against Hugging Face's models ------------------------------------------------------------------------------------


@pytest.fixture(params=["gpt2", "llama"])
def pair(request: pytest.FixtureRequest) -> tuple[Any, Transformer]:
    """Theirs, and our model of text around a network of the same weights."""
    theirs, ours = same_weights(request.param)
    return theirs, of_text(LENGTH, VOCABULARY, network=lambda **_: ours, sampler=GREEDY)


@torch.no_grad()
@pytest.mark.parametrize("stride", [None, 5, 1])
def test_perplexity_is_that_of_transformers(pair: tuple[Any, Transformer], stride: int | None) -> None:
    """Their documentation's loop: a window ends ``stride`` later than the one before, and counts what is new in it."""
    theirs, model = pair
    text = torch.randint(VOCABULARY, (150,))
    nats, before = [], 0
    for start in range(0, 149, LENGTH) if stride is None else range(0, 149, stride):
        end = min(start + LENGTH, 149)
        logits = theirs(text[None, start:end]).logits[0].double()
        nats.append(F.cross_entropy(logits, text[start + 1 : end + 1], reduction="none")[before - end :])
        before = end
        if end == 149:
            break
    nats = torch.cat(nats)
    assert len(nats) == 149
    metric = Perplexity(stride)
    metric.measure(model, GivenText(text, LENGTH, VOCABULARY), "val", batch_size=4)
    assert metric.compute()["perplexity"].item() == pytest.approx(nats.mean().exp().item(), rel=1e-5)
    assert nats.mean().exp() > 1.5 * VOCABULARY, "far from the start"


@torch.no_grad()
@pytest.mark.parametrize("lengths", [[9, 9, 9], [9, 2, 5]], ids=["alike", "padded"])
def test_greedy_text_is_that_of_transformers(pair: tuple[Any, Transformer], lengths: list[int]) -> None:
    theirs, model = pair
    prompt = torch.randint(VOCABULARY, (3, 9))
    mask = torch.arange(9) >= 9 - torch.tensor(lengths)[:, None]
    theirs.generation_config.eos_token_id = None
    expected = theirs.generate(prompt, attention_mask=mask.long(), max_new_tokens=LENGTH - 9, do_sample=False,
                               pad_token_id=0)  # fmt: skip
    model.sample_length = LENGTH - 9
    tokens = model.sample(3, {"prompt": prompt.masked_fill(~mask, -1)})
    assert torch.equal(tokens, expected[:, 9:])
    assert len(set(map(tuple, tokens.tolist()))) == 3


# --- generation against loops without a cache -------------------------------------------------------------------------


def without_cache(model: Transformer, prompt: Tensor, padding: Tensor | None, uniform: Tensor) -> Tensor:
    """Every token from one pass over all that is seen of the text, which is the last half of it when it has outgrown
    what can be seen at once."""
    text, start, most = prompt.clamp(min=0), max(0, prompt.shape[1] - model.view.length), model.view.length
    for i in range(uniform.shape[1]):
        if text.shape[1] - start > most:
            start = text.shape[1] - max(1, most // 2)
        unseen = None if padding is None else (padding - start).clamp(min=0)
        logits = model.network(text[:, start:], unseen)[:, -1]
        before = text if padding is None else text.masked_fill(torch.arange(text.shape[1]) < padding[:, None], -1)
        text = torch.cat([text, model.sampler(logits, before, uniform[:, i])[:, None]], dim=1)
    return text[:, prompt.shape[1] :]


@torch.no_grad()
@pytest.mark.parametrize("positions", [Learned, Rotary])
@pytest.mark.parametrize("context", [8, 7, 1])
@pytest.mark.parametrize("length", [1, 5, 8, 9, 30])
def test_text_from_a_cache_is_text_without(positions: Any, context: int, length: int) -> None:
    """A prompt within the context, as long, and longer."""
    sampler = NextToken(repetition_penalty=1.3)
    model = of_text(context, network=network(positions=positions), sampler=sampler, sample_length=40)
    prompt = torch.randint(11, (3, length))
    expected = without_cache(model, prompt, None, stream(3).rand(40))
    assert torch.equal(model.sample(3, {"prompt": prompt}, stream(3)), expected)


@torch.no_grad()
def test_padded_text_from_a_cache_is_text_without() -> None:
    model = of_text(sampler=NextToken(repetition_penalty=1.3), sample_length=40)
    padding = torch.tensor([0, 3, 4])
    prompt = torch.randint(11, (3, 5)).masked_fill(torch.arange(5) < padding[:, None], -1)
    expected = without_cache(model, prompt, padding, stream(3).rand(40))
    assert torch.equal(model.sample(3, {"prompt": prompt}, stream(3)), expected)


@torch.no_grad()
def test_text_is_the_same_by_what_decodes_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the end of the context, where the cache begins anew."""
    from genlab.model.network import one_token, token_transformer

    monkeypatch.setattr(token_transformer, "OneToken", one_token.OneTokenOfFixedShapes)
    test_text_from_a_cache_is_text_without(Rotary, 8, 5)


@torch.no_grad()
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_images_from_a_cache_are_images_without(guidance: float) -> None:
    """With guidance, logits of a label are led away from those of none."""
    model = transformer(guidance=ClassifierFree(guidance))
    uniform, label = stream(4).rand(6), torch.tensor([0, 2, -1, 1])
    told, untold = (257 + label)[:, None], torch.full((4, 1), 256)
    for i in range(6):
        logits, free = model.network(told)[:, -1], model.network(untold)[:, -1]
        token = model.sampler(free + guidance * (logits - free), told, uniform[:, i])[:, None]
        told, untold = torch.cat([told, token], dim=1), torch.cat([untold, token], dim=1)
    expected = told[:, 1:].view(4, 2, 3, 1).permute(0, 3, 1, 2) / 127.5 - 1
    assert torch.equal(model.sample(4, {"label": label}, stream(4)), expected)
    model.guidance = ClassifierFree(7.0)
    assert not torch.equal(model.sample(4, {"label": label}, stream(4)), expected)


@torch.no_grad()
def test_a_negative_label_stands_in_place_of_none() -> None:
    """At strength 0 samples are those of what guidance leads away from."""
    model, label = transformer(guidance=ClassifierFree(0.0)), torch.tensor([0, 2, -1, 1])
    model.avoid({"label": torch.tensor([2])})
    away = model.sample(4, {"label": label}, stream(4))
    model.guidance, model.negative = ClassifierFree(1.0), None
    assert torch.equal(away, model.sample(4, {"label": torch.full((4,), 2)}, stream(4)))
    assert not torch.equal(away, model.sample(4, None, stream(4)))
    with pytest.raises(ConfigError, match="guidance of strength 1 leads away from no condition"):
        model.avoid({"label": torch.tensor([2])})


@torch.no_grad()
def test_a_sample_does_not_depend_on_its_batch() -> None:
    images, label = transformer(guidance=ClassifierFree(2.0)), torch.tensor([0, 2, -1, 1])
    together = images.sample(4, {"label": label}, stream(4))
    text = of_text(24, sample_length=15)
    padding = torch.tensor([0, 3, 8, 5])
    prompt = torch.randint(11, (4, 9)).masked_fill(torch.arange(9) < padding[:, None], -1)
    told = text.sample(4, {"prompt": prompt}, stream(4))
    for i in range(4):
        own = RandomStream.for_samples(5, [i])
        assert torch.equal(images.sample(1, {"label": label[i : i + 1]}, own), together[i : i + 1])
        own = RandomStream.for_samples(5, [i])
        assert torch.equal(text.sample(1, {"prompt": prompt[i : i + 1, padding[i] :]}, own), told[i : i + 1])


@torch.no_grad()
def test_text_begins_with_the_start_token_and_a_longer_sample_with_the_shorter() -> None:
    model = of_text(sample_length=20)
    tokens = model.sample(3, None, stream(3))
    assert torch.equal(tokens, model.sample(3, {"prompt": torch.full((3, 1), 2)}, stream(3)))
    assert torch.equal(tokens, model.sample(3, {"prompt": torch.zeros(3, 0, dtype=torch.long)}, stream(3)))
    assert torch.equal(tokens, torch.stack(list(model.generate(None, stream(3))), dim=1))
    model.sample_length = 50
    assert torch.equal(model.sample(3, None, stream(3))[:, :20], tokens)
    model.sample_length = None
    assert torch.equal(model.sample(3, None, stream(3)), tokens[:, :8])


# --- likelihood -------------------------------------------------------------------------------------------------------

EVERY = torch.tensor(list(product(range(3), repeat=4)))  # all sequences of 4 of 3 tokens


def test_probabilities_of_all_texts_sum_to_1() -> None:
    model = of_text(4, vocab_size=3)
    for first in range(3):
        sequences = torch.cat([torch.full((81, 1), first), EVERY], dim=1)
        nats = model.log_likelihood(sequences)
        assert nats.exp().sum().item() == pytest.approx(1, abs=1e-5)
        torch.testing.assert_close(model.token_log_probs(sequences).sum(dim=1), nats)
        assert nats.std() > 0.5


@torch.no_grad()
def test_samples_come_as_often_as_the_likelihood_says() -> None:
    model = of_text(4, vocab_size=3)
    drawn = model.sample(4000, None, stream(4000))
    shares = torch.bincount((drawn * torch.tensor([27, 9, 3, 1])).sum(dim=1), minlength=81) / 4000
    expected = model.log_likelihood(torch.cat([torch.full((81, 1), 2), EVERY], dim=1)).exp()
    assert (shares - expected).abs().sum() < 0.15
    chi_squared = 4000 * ((shares - expected).square() / expected).sum()
    assert chi_squared < 80 + 5 * math.sqrt(2 * 80)


@pytest.mark.parametrize("label", [None, -1, 0, 2])
def test_probabilities_of_all_images_of_codes_sum_to_1(label: int | None) -> None:
    model, images = of_codes(), Codes().detokenize(EVERY.view(-1, 2, 2))
    told = None if label is None else {"label": torch.full((81,), label)}
    sequences = model.view.sequences(images, told)
    assert sequences[:, 0].unique().tolist() == [3 if label is None else 4 + label]
    assert torch.equal(sequences[:, 1:], EVERY)
    log_prob = model.token_log_probs(sequences).sum(dim=1)
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-5)
    noisy = images.clamp(-1, 1 - 1 / 128) + torch.rand(81, 1, 2, 2) / 128  # what a likelihood gets
    at_levels = ((noisy + 1) * 128).floor() / 127.5 - 1
    nats = model.log_likelihood(noisy, told)
    given = -(noisy - Codes().detokenize(Codes().tokenize(at_levels))).square().flatten(1).sum(dim=1)
    torch.testing.assert_close(nats, log_prob + given)


def blank(**sizes: Any) -> TokenTransformer:
    made = network()(**sizes)
    for parameter in made.parameters():
        nn.init.zeros_(parameter)
    return made


@pytest.mark.parametrize("num_classes", [3, None])
@pytest.mark.parametrize("shape", [(1, 2, 3), (3, 4, 4)])
def test_a_model_that_knows_nothing_costs_8_bits_per_dim(shape: tuple[int, ...], num_classes: int | None) -> None:
    model = transformer(network=blank, shape=shape, told={"label": {"size": num_classes}})
    pixels = torch.randint(256, (5, *shape), dtype=torch.uint8)
    told = {"label": torch.tensor([0, 1, 2, -1, 0])} if num_classes else None
    bits = bits_per_dim(model, pixels, told, stream(5))
    torch.testing.assert_close(bits, torch.full((5,), 8.0), rtol=0, atol=2e-6)


def test_a_model_that_knows_nothing_has_the_vocabulary_as_perplexity() -> None:
    metric = Perplexity()
    metric.measure(of_text(8, 98, network=blank), GivenText(torch.randint(98, (60,)), 8, 98), "val", batch_size=3)
    assert metric.compute()["perplexity"].item() == pytest.approx(98, rel=1e-6)


@torch.no_grad()
def test_each_pixel_is_paid_at_the_density_of_its_bin() -> None:
    """Bits per dimension are the cross-entropy of the levels, whatever the dequantization noise."""
    model = transformer()
    pixels, told = torch.randint(256, (4, 1, 2, 3), dtype=torch.uint8), {"label": torch.tensor([0, 1, 2, -1])}
    tokens = torch.cat([257 + told["label"][:, None], pixels.flatten(1).long()], dim=1)
    expected = -model.token_log_probs(tokens).sum(dim=1) / 6 / math.log(2)
    for seed in range(3):
        torch.testing.assert_close(bits_per_dim(model, pixels, told, stream(4, seed)), expected, rtol=1e-5, atol=1e-5)


# --- data as tokens ---------------------------------------------------------------------------------------------------


def test_pixels_to_tokens_and_back() -> None:
    view = PixelTokens((3, 16, 16), classes(4))
    pixels = torch.randint(256, (2, 3, 16, 16))
    images = pixels / 127.5 - 1
    sequences = view.sequences(images, {"label": torch.tensor([3, -1])})
    assert sequences[:, 0].tolist() == [260, 256]
    assert (view.length, view.num_outputs, view.num_tokens) == (768, 256, 261)
    assert torch.equal(view.data(sequences[:, 1:]), images)
    for at, (row, column, color) in enumerate(product(range(16), range(16), range(3))):
        assert sequences[0, 1 + at] == pixels[0, color, row, column]
    every = torch.arange(256).view(1, 1, 16, 16) / 127.5 - 1
    assert torch.equal(
        PixelTokens((1, 16, 16), classes(None)).sequences(every, None)[0], torch.tensor([256, *range(256)])
    )


def test_codes_to_tokens_and_back() -> None:
    assert isinstance(Codes(), nn.Module)
    assert fits(Codes, HasTokens, partial=False)
    view, codes = CodeTokens(Codes(), classes(3)), EVERY.view(-1, 2, 2)
    sequences = view.sequences(view.data(EVERY), {"label": torch.arange(81) % 4 - 1})
    assert torch.equal(sequences[:, 1:].view(-1, 2, 2), codes)
    assert torch.equal(sequences[:, 0], 3 + torch.arange(81) % 4)
    assert (view.length, view.num_outputs, view.num_tokens) == (4, 3, 7)
    assert CodeTokens(Codes(), classes(None)).num_tokens == 4


@torch.no_grad()
def test_every_label_and_none_count() -> None:
    model = transformer()
    images = torch.rand(4, 1, 2, 3) * 2 - 1
    nats = [model.log_likelihood(images, {"label": torch.full((4,), label)}) for label in (-1, 0, 1, 2)]
    for i, j in product(range(4), range(4)):
        assert torch.equal(nats[i], nats[j]) == (i == j)
    assert torch.equal(model.log_likelihood(images, None), nats[0])


def test_dropped_labels_are_no_labels() -> None:
    batch = {"image": torch.rand(8, 1, 2, 3) * 2 - 1, "label": torch.arange(8) % 3, "index": torch.arange(8)}
    model = transformer(condition_dropout=1.0)
    without = model.loss(batch, {"label": torch.full((8,), -1)})
    assert torch.equal(model.training_step(batch, 0), without)
    assert not torch.equal(model.losses(batch)["loss"], without)
    model.conditions = replace(model.conditions, dropout=0.0)
    assert torch.equal(model.training_step(batch, 0), model.losses(batch)["loss"])
    nats = model.token_log_probs(model.view.sequences(batch["image"], {"label": batch["label"]}))
    torch.testing.assert_close(model.losses(batch)["loss"], -nats.mean())


# --- learning ---------------------------------------------------------------------------------------------------------


def trained(windows: Iterator[Tensor], steps: int, vocab_size: int = 5) -> Transformer:
    model = of_text(12, vocab_size, network=network(width=32))
    optimizer = model.configure_optimizers()
    for _ in range(steps):
        optimizer.zero_grad()
        model.training_step({"tokens": next(windows), "index": torch.arange(16)}, 0).backward()
        optimizer.step()
    return model


def test_a_periodic_text_is_learned_by_heart() -> None:
    text = torch.tensor([0, 3, 1, 4, 4, 2, 0] * 8)  # 0 and 4 do not say what follows: what is before them does

    def windows() -> Iterator[Tensor]:
        while True:
            yield torch.stack([text[start : start + 13] for start in torch.randint(7, (16,))])

    model = trained(windows(), 150)
    nats = -model.token_log_probs(next(windows()))[:, 1:]  # what comes second may be either
    assert nats.mean() < 0.01
    model.sampler, model.sample_length = GREEDY, 28
    with torch.no_grad():
        assert torch.equal(model.sample(1, {"prompt": text[None, :7]}), text[None, 7:35])


def test_of_tokens_without_any_order_the_entropy_is_learned() -> None:
    shares = torch.tensor([0.5, 0.25, 0.125, 0.0625, 0.0625])

    def windows() -> Iterator[Tensor]:
        while True:
            yield torch.multinomial(shares, 16 * 13, replacement=True).view(16, 13)

    model = trained(windows(), 150)
    entropy = -(shares * shares.log()).sum().item()
    fresh = torch.multinomial(shares, 300 * 13, replacement=True).view(300, 13)
    nats = -model.token_log_probs(fresh)
    by_shares = -shares.log()[fresh[:, 1:]]  # what the true distribution pays for the same tokens
    assert entropy == pytest.approx(by_shares.mean().item(), abs=0.05)
    assert 0 <= (nats - by_shares).mean() < 0.03


# --- the contract, and what is refused --------------------------------------------------------------------------------


def test_contract() -> None:
    for model in (transformer(), of_text()):
        assert isinstance(model, HasLikelihood)
        assert isinstance(model, Generates)
        assert isinstance(model, HasTokenLikelihood)
        assert model.likelihood_kind == "exact"


@pytest.mark.parametrize("label", [-2, 3])
def test_an_unknown_label_is_refused(label: int) -> None:
    told: Condition = {"label": torch.tensor([0, label])}
    with pytest.raises(ValueError, match=rf"the labels .*{label}.* are not all among the model's\. Use 0 to 2"):
        transformer().sample(2, told)
    with pytest.raises(ValueError, match="are not all among the model's"):
        transformer().log_likelihood(torch.zeros(2, 1, 2, 3), told)
    with pytest.raises(ValueError, match="this model has no labels"):
        transformer(told={}).sample(2, told)


@pytest.mark.parametrize(("prompt", "bad"), [([[3, 4], [2, 11]], 11), ([[3, 99], [-1, 2]], 99), ([[-2, 3]], -2),
                                             ([[3, -1]], -1), ([[-1, -1]], -1), ([[4, -1, 3]], -1)])  # fmt: skip
def test_an_unknown_token_is_refused(prompt: list[list[int]], bad: int) -> None:
    """-1 may stand before a prompt alone."""
    with pytest.raises(ValueError, match=rf"token id {bad} is outside the vocabulary \(11\)"):
        of_text().sample(len(prompt), {"prompt": torch.tensor(prompt)})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"condition_dropout": 1.5}, r"model\.condition_dropout=1\.5 is outside \[0, 1\]"),
        (
            {"guidance": ClassifierFree(2.0), "condition_dropout": 0.0},
            r"model\.guidance\.strength=2\.0 needs a model trained with",
        ),
        ({"sample_length": 0}, r"model\.sample_length=0 must be 1 or more"),
        ({"tokenizer": Codes(), "shape": (1, 3, 3)}, r"of shape \(1, 2, 2\), the data have \(1, 3, 3\)"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genlab.model.transformer.made", lambda *_: None)  # of a whole model, which Codes is not
    with pytest.raises(ValueError, match=said):
        transformer(**changes)

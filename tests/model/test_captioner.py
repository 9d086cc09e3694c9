"""The captioner: what it is trained on, its likelihood, its decoders with and without a cache, and beam search."""

from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genlab.model.captioner import Captioner
from genlab.model.guidance.classifier_free import ClassifierFree
from genlab.model.network.caption_decoder import CrossAttentionDecoder, PrefixDecoder
from genlab.model.network.feed_forward import FeedForward
from genlab.model.network.positions import Learned
from genlab.model.network.token_transformer import TokenTransformer
from genlab.model.network.vit import ViT
from genlab.model.sampler.beam_search import BeamSearch
from genlab.model.sampler.next_token import NextToken
from genlab.model.schedule import Constant
from genlab.seeding import RandomStream

SHAPE, WORDS, LENGTH = (3, 8, 8), 4, 3  # padding and three words
DECODERS = [PrefixDecoder, CrossAttentionDecoder]
TRANSFORMER = partial(
    TokenTransformer,
    positions=Learned,
    norm=nn.LayerNorm,
    feed_forward=lambda width: FeedForward(width, nn.GELU(), bias=True),
    width=8,
    depth=2,
    num_heads=2,
    tied=False,
)


def captioner(
    decoder: Any = CrossAttentionDecoder, sampler: Any = None, length: int = LENGTH, **more: Any
) -> Captioner:
    """With random weights, large enough that pictures and words matter."""
    model = Captioner(
        encoder=partial(ViT, SHAPE, patch_size=4, width=8, depth=1, num_heads=2),
        decoder=partial(decoder, transformer=TRANSFORMER),
        sampler=sampler or BeamSearch(),
        optimizer=torch.optim.AdamW,
        schedule=Constant(),
        shape=SHAPE,
        told={"caption": {"size": WORDS, "length": length, "names": ["", *"abc"], "examples": []}},
        **more,
    )
    model.configure_model()
    torch.manual_seed(17)  # with which greedy captions differ between pictures
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model.eval()


def pictures(count: int) -> dict[str, Tensor]:
    """One color each, with noise."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 3, 1, 1, generator=generator) + torch.rand(count, *SHAPE, generator=generator)
    return {"image": images - 1}


def every_caption() -> Tensor:
    """All captions of up to LENGTH words, the empty one too, (M, LENGTH)."""
    rows = [(*words, *[0] * (LENGTH - n)) for n in range(LENGTH + 1) for words in product((1, 2, 3), repeat=n)]
    return torch.tensor(rows)


def log_probs(model: Captioner, picture: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Of every caption of one picture, by plain passes over whole captions: nats, and tokens. The likelihood leaves out
    empty ones, the distribution has one."""
    captions = every_caption()
    before = torch.cat([torch.full((len(captions), 1), WORDS), captions[:, :-1]], dim=1)
    with torch.no_grad():
        seen = model.seen({"image": picture["image"].expand(len(captions), -1, -1, -1)}, len(captions))
        each = model.decoder(before, seen).log_softmax(dim=-1).gather(2, captions[..., None])[..., 0]
    counted = (captions != 0).sum(dim=1) + 1
    each[torch.arange(LENGTH) >= counted[:, None]] = 0
    return each.sum(dim=1), counted.clamp(max=LENGTH)


@pytest.mark.parametrize("decoder", DECODERS)
def test_captions_of_a_picture_are_a_distribution(decoder: Any) -> None:
    """The probabilities of all captions there are add up to one, and are those of ``caption_log_probs``."""
    model, picture = captioner(decoder), pictures(1)
    nats, _ = log_probs(model, picture)
    assert nats.exp().sum().item() == pytest.approx(1, abs=1e-5)
    written = every_caption()[1:]
    asked = {"image": picture["image"].expand(len(written), -1, -1, -1)}
    torch.testing.assert_close(model.caption_log_probs(written, asked).sum(dim=1), nats[1:], atol=1e-5, rtol=0)


def test_the_loss_is_the_mean_of_tokens_and_leaves_out_missing_captions() -> None:
    model, images = captioner(), pictures(3)
    captions = torch.tensor([[1, 0, 0], [2, 3, 1], [0, 0, 0]])
    batch = {"index": torch.arange(3), "caption": captions, **images}
    nats = -model.caption_log_probs(captions, images)
    assert model.losses(batch)["loss"].item() == pytest.approx(nats.sum().item() / (2 + 3), rel=1e-5)
    assert (nats[0] > 0).tolist() == [True, True, False]
    assert (nats[2] == 0).all()


@pytest.mark.parametrize("decoder", DECODERS)
def test_greedy_words_are_those_of_whole_passes(decoder: Any) -> None:
    """The cache, and what is made for single tokens, change nothing."""
    model, images = captioner(decoder, NextToken(temperature=0), length=6), pictures(20)
    drawn = model.sample(20, images)
    words = torch.full((20, 7), WORDS)
    with torch.no_grad():
        seen = model.seen(images, 20)
        for place in range(6):
            words[:, place + 1] = model.decoder(words[:, : place + 1], seen)[:, -1].argmax(dim=-1)
    expected = words[:, 1:] * (words[:, 1:] != 0).cumprod(dim=1)
    assert torch.equal(drawn, expected)
    assert len(set(map(tuple, drawn.tolist()))) > 1, "pictures matter"


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
@pytest.mark.parametrize("decoder", DECODERS)
def test_a_wide_beam_is_an_exhaustive_search(decoder: Any, length_penalty: float) -> None:
    """As wide as there are beginnings, it finds the best of all captions; and rows do not depend on each other."""
    model, images = captioner(decoder, BeamSearch(num_beams=3**LENGTH, length_penalty=length_penalty)), pictures(6)
    found = model.sample(6, images)
    for row in range(6):
        one = {"image": images["image"][row : row + 1]}
        nats, tokens = log_probs(model, one)
        best = every_caption()[(nats / tokens**length_penalty).argmax()]
        assert torch.equal(found[row], best)
        assert torch.equal(model.sample(1, one)[0], best)


@pytest.mark.parametrize("sampler", [NextToken(temperature=0), BeamSearch(num_beams=3**LENGTH)])
@pytest.mark.parametrize("decoder", DECODERS)
def test_guided_words_are_those_of_both_whole_passes(decoder: Any, sampler: Any) -> None:
    """p(word | picture)^w / p(word)^(w - 1), word by word, by plain passes with and without the picture."""
    strength = 8.0
    guided = captioner(decoder, sampler, guidance=ClassifierFree(strength), condition_dropout=0.1)
    images = pictures(8)
    with torch.no_grad():
        seen = guided.seen(images, 8)
    nothing = guided.nothing.expand_as(seen)

    @torch.no_grad()
    def next_log_probs(words: Tensor, row: int) -> Tensor:
        told, untold = (
            guided.decoder(words, those[row : row + 1].expand(len(words), -1, -1)).log_softmax(dim=-1)
            for those in (seen, nothing)
        )
        return (strength * told - (strength - 1) * untold).log_softmax(dim=-1)

    found, every = guided.sample(8, images), every_caption()
    before = torch.cat([torch.full((len(every), 1), WORDS), every[:, :-1]], dim=1)
    counted = (every != 0).sum(dim=1) + 1
    for row in range(8):
        if isinstance(sampler, NextToken):
            words = torch.full((1, 1), WORDS)
            for _ in range(LENGTH):
                words = torch.cat([words, next_log_probs(words, row)[:, -1:].argmax(dim=-1)], dim=1)
            expected = words[0, 1:] * (words[0, 1:] != 0).cumprod(dim=0)
        else:
            nats = next_log_probs(before, row).gather(2, every[..., None])[..., 0]
            nats = nats.masked_fill(torch.arange(LENGTH) >= counted[:, None], 0).sum(dim=1)
            expected = every[(nats / counted.clamp(max=LENGTH)).argmax()]
        assert torch.equal(found[row], expected)
    if decoder is CrossAttentionDecoder:  # the random weights of the other write the same either way
        assert not torch.equal(captioner(decoder, sampler).sample(8, images), found), "guidance matters"


def test_a_beam_finds_what_greedy_misses() -> None:
    """The likeliest first word leads into a choice among many; the best sequence begins with another."""
    table = {(): [0.0, 0.55, 0.45], (1,): [0.4, 0.3, 0.3], (2,): [0.9, 0.05, 0.05]}
    words: list[tuple[int, ...]] = [()]

    def logits() -> Tensor:
        return torch.tensor([table.get(w, [1.0, 0.0, 0.0]) for w in words]).clamp_min(1e-9).log()

    def step(tokens: Tensor, rows: Tensor) -> Tensor:
        words[:] = [(*words[row], token) for token, row in zip(tokens.tolist(), rows.tolist(), strict=True)]
        return logits()

    found = {}
    for width in (1, 2):
        words[:] = [()]
        found[width] = BeamSearch(width, length_penalty=0).search(logits(), step, 3, 0, True)[0].tolist()
    assert found == {1: [1, 0, 0], 2: [2, 0, 0]}


def test_sampled_captions_have_their_probabilities() -> None:
    model, picture = captioner(sampler=NextToken()), pictures(1)
    count = 4000
    drawn = model.sample(
        count, {"image": picture["image"].expand(count, -1, -1, -1)}, RandomStream.for_samples(0, range(count))
    )
    nats, _ = log_probs(model, picture)
    shares = (drawn[:, None] == every_caption()).all(dim=2).double().mean(dim=0)
    assert shares.sum().item() == 1, "nothing follows an end"
    assert (shares - nats.exp()).abs().max() < 0.035  # four deviations of the most likely


def test_no_picture_is_another_condition() -> None:
    """Dropped pictures are seen as the learned vector, alone, and gradients reach it; without dropout too, so that no
    parameter is ever unused."""
    model = captioner(condition_dropout=1.0)
    captions, images = torch.tensor([[1, 2, 0], [3, 0, 0]]), pictures(2)
    dropped = model.conditions.dropped(images)
    assert torch.equal(model.seen(dropped, 2), model.nothing.expand(2, 5, -1))
    assert torch.equal(model.seen(None, 2), model.seen(dropped, 2))
    model.loss(captions, dropped).backward()
    assert model.nothing.grad is not None
    assert model.nothing.grad.abs().sum() > 0
    assert all(p.grad is not None for p in model.parameters())
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_word_dropout_hides_the_words_before_in_training_alone() -> None:
    """All of them hidden: what the decoder says at every place after the start, of a caption that it is not told."""
    model, images = captioner(word_dropout=1.0), pictures(2)
    captions = torch.tensor([[1, 2, 3], [3, 0, 0]])
    hidden = model.decoder(torch.full((2, LENGTH), WORDS), model.seen(images, 2)).log_softmax(dim=-1)
    nats = -hidden.gather(2, captions[..., None])[..., 0]
    expected = (nats[0].sum() + nats[1, :2].sum()) / 5
    assert model.loss(captions, images, model.word_dropout).item() == pytest.approx(expected.item(), rel=1e-5)
    batch = {"index": torch.arange(2), "caption": captions, **images}
    assert model.losses(batch)["loss"].item() == pytest.approx(
        -model.caption_log_probs(captions, images).sum().item() / 5, rel=1e-5
    )
    assert model.losses(batch)["loss"].item() != pytest.approx(expected.item(), rel=1e-3)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"word_dropout=1\.5 must be between 0 and 1"):
        captioner(word_dropout=1.5)
    with pytest.raises(ValueError, match=r"strength=3\.0 needs a model trained with model\.condition_dropout above 0"):
        captioner(guidance=ClassifierFree(3.0))
    with pytest.raises(ValueError, match="a captioner needs pictures with captions, and the data have none"):
        Captioner(None, None, BeamSearch(), None, Constant(), SHAPE, {"caption": {"size": None}})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"pictures of shape \(3, 4, 4\): the model was trained on \(3, 8, 8\)"):
        captioner().sample(1, {"image": torch.zeros(1, 3, 4, 4)})
    with pytest.raises(ValueError, match="num_beams=0 must be 1 or more"):
        BeamSearch(num_beams=0)

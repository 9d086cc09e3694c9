"""Quantizers against brute force and closed forms, and the tokenizer around them."""

import math

import pytest
import torch
from torch import Tensor

from genlab.model.base import HasLatent
from genlab.model.likelihood.gaussian import Gaussian
from genlab.model.network.autoencoder_mlp import MLPDecoder, MLPEncoder
from genlab.model.quantizer.fsq import FSQ
from genlab.model.quantizer.vq import VQ
from genlab.model.schedule import Constant
from genlab.model.vq_vae import VQVAE, perplexity
from genlab.seeding import RandomStream
from ranks import on_ranks

SHAPE, LATENT = (1, 4, 4), (3, 2, 2)


def tokenizer(quantizer=None, num_classes: int | None = 3) -> VQVAE:  # type: ignore[no-untyped-def]
    def encoder(out_channels: int) -> MLPEncoder:
        return MLPEncoder(SHAPE, LATENT, {}, out_channels, width=16)

    def decoder(out_channels: int) -> MLPDecoder:
        return MLPDecoder(SHAPE, LATENT, {}, out_channels, width=16)

    model = VQVAE(encoder=encoder, decoder=decoder, quantizer=quantizer or (lambda: VQ(LATENT, 8)),
                  likelihood=Gaussian(0.2), optimizer=torch.optim.Adam, schedule=Constant(), shape=SHAPE,
                  told={"label": {"size": num_classes}}, latent_shape=LATENT, frequency_decay=0.5)  # fmt: skip
    model.configure_model()
    model.log = lambda *_, **__: None  # type: ignore[method-assign]
    return model


# --- a codebook -------------------------------------------------------------------------------------------------------


def test_the_nearest_code() -> None:
    quantizer, z = VQ((5, 4, 4), 20), torch.randn(3, 5, 4, 4)
    codes = quantizer.encode(z)
    distance = (z.movedim(1, -1)[..., None, :] - quantizer.codebook).square().sum(-1)  # (3, 4, 4, 20)
    assert torch.equal(codes, distance.argmin(-1))
    quantized, commitment, again = quantizer(z)
    assert torch.equal(codes, again)
    torch.testing.assert_close(quantized, quantizer.decode(codes))
    assert commitment.item() == pytest.approx(distance.min(-1).values.mean().item() / 5, rel=1e-4)
    every = torch.arange(20).view(1, 4, 5)
    assert torch.equal(quantizer.encode(quantizer.decode(every)), every)


def test_the_gradient_goes_straight_through() -> None:
    quantizer, z = VQ(LATENT, 8), torch.randn(2, *LATENT, requires_grad=True)
    quantized, commitment, codes = quantizer(z)
    weight = torch.randn_like(z)
    (gradient,) = torch.autograd.grad((quantized * weight).sum(), z, retain_graph=True)
    assert torch.equal(gradient, weight)
    (gradient,) = torch.autograd.grad(commitment, z)
    torch.testing.assert_close(gradient, 2 * (z - quantizer.decode(codes)).detach() / z.numel())


def test_moving_averages() -> None:
    """Van den Oord et al. 2017, eq. 6 to 8, unrolled."""
    quantizer = VQ((2, 1, 1), 3, decay=0.9, dead_below=0.0)
    before = quantizer.codebook.clone()
    z = torch.tensor([[1.0, 2.0], [3.0, 4.0], [-1.0, 0.5]])[:, :, None, None]
    quantizer.update(z, torch.tensor([0, 0, 1])[:, None, None])
    torch.testing.assert_close(quantizer.counts, torch.tensor([0.2, 0.1, 0.0]))
    torch.testing.assert_close(quantizer.codebook[0], torch.tensor([2.0, 3.0]))
    assert torch.equal(quantizer.codebook[2], before[2])
    quantizer.update(z[:1], torch.tensor([1])[:, None, None])
    torch.testing.assert_close(quantizer.counts, torch.tensor([0.18, 0.19, 0.0]))
    mean = (0.9 * 0.1 * torch.tensor([-1.0, 0.5]) + 0.1 * torch.tensor([1.0, 2.0])) / 0.19
    torch.testing.assert_close(quantizer.codebook[1], mean)


def test_dead_codes_are_revived() -> None:
    quantizer = VQ((2, 1, 1), 16, decay=0.9)
    quantizer.codebook.fill_(100.0)  # all but one dead: argmin takes the first
    quantizer.codebook[0] = 0.0
    z = torch.randn(256, 2, 1, 1)
    for _ in range(30):
        quantizer.update(z, quantizer.encode(z))
    assert quantizer.codebook.abs().max() < 10
    assert perplexity(quantizer.encode(z), 16) > 10
    rest = (quantizer.counts > 0.05 * quantizer.counts.mean()).all()
    assert rest
    idle = VQ((2, 1, 1), 16, decay=0.9, dead_below=0.0)
    idle.codebook.copy_(torch.cat([torch.zeros(1, 2), torch.full((15, 2), 100.0)]))
    for _ in range(30):
        idle.update(z, idle.encode(z))
    assert perplexity(idle.encode(z), 16) == 1


def test_perplexity() -> None:
    assert perplexity(torch.arange(8).view(2, 2, 2), 16).item() == pytest.approx(8)
    assert perplexity(torch.tensor([[[0, 0], [0, 1]]]), 4).item() == pytest.approx(
        math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    )


def _codebook(rank: int, z: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(0)
    quantizer = VQ((2, 1, 1), 8, decay=0.5, dead_below=0.3)
    torch.manual_seed(rank + 1)
    for step in range(4):
        mine = z[step, rank::2]
        quantizer.update(mine, quantizer.encode(mine))
    return dict(quantizer.state_dict())


def test_two_processes_keep_one_codebook(tmp_path) -> None:  # type: ignore[no-untyped-def]
    z = torch.randn(4, 32, 2, 1, 1)
    one, two = on_ranks(2, tmp_path, _codebook, z)
    assert all(torch.equal(one[name], two[name]) for name in one)
    # counts are of both ranks' vectors: the last three steps of 32, halved each time, and what was revived at first
    assert one["counts"].sum() > 24


# --- rounding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (2, 3, 4), (7,)])
def test_every_code_of_fsq_is_reached_and_comes_back(levels: tuple[int, ...]) -> None:
    quantizer = FSQ((len(levels), 1, 1), levels)
    assert quantizer.num_codes == math.prod(levels)
    every = torch.arange(quantizer.num_codes)[:, None, None]
    vectors = quantizer.decode(every)
    assert vectors.abs().max() <= 1
    assert len(vectors.flatten(1).unique(dim=0)) == quantizer.num_codes
    grid = torch.linspace(-4, 4, 400)
    z = grid.view(-1, 1, 1, 1).expand(-1, len(levels), 1, 1)
    quantized, loss, codes = quantizer(z)
    torch.testing.assert_close(quantized, quantizer.decode(codes))
    assert loss == 0
    for i, count in enumerate(levels):
        assert len(quantized[:, i].unique()) == count  # each level is reached
        assert (quantized[:, i].flatten().diff() >= 0).all()
    digits = [codes.flatten() // math.prod(levels[:i]) % count for i, count in enumerate(levels)]
    for i, count in enumerate(levels):
        assert digits[i].unique().tolist() == list(range(count))
    inverse = torch.stack([grid[(digits[i] == d).nonzero()[len((digits[i] == d).nonzero()) // 2, 0]]
                           for i, count in enumerate(levels) for d in range(count)])  # fmt: skip
    starts = torch.tensor([0, *levels]).cumsum(0)
    z = torch.stack([inverse[starts[i] + every.flatten() // math.prod(levels[:i]) % count]
                     for i, count in enumerate(levels)], dim=1)[:, :, None, None]  # fmt: skip
    assert torch.equal(quantizer.encode(z), every)


def test_fsq_is_symmetric_for_odd_counts_and_starts_at_its_middle() -> None:
    quantizer = FSQ((2, 1, 1), (5, 8))
    zero = torch.zeros(1, 2, 1, 1)
    assert quantizer(zero)[0].flatten().tolist() == [0.0, 0.0]
    assert quantizer(zero + 9)[0].flatten().tolist() == pytest.approx([1.0, 0.75])
    assert quantizer(zero - 9)[0].flatten().tolist() == pytest.approx([-1.0, -1.0])


def test_the_gradient_of_fsq_is_that_of_its_bound() -> None:
    quantizer, z = FSQ((3, 1, 1), (5, 4, 3)), torch.randn(6, 3, 1, 1, requires_grad=True)
    (gradient,) = torch.autograd.grad(quantizer(z)[0].sum(), z)
    bounded = quantizer._scaled(quantizer._bounded(z))
    torch.testing.assert_close(gradient, torch.autograd.grad(bounded.sum(), z)[0])
    assert gradient.min() > 0


def test_levels_that_do_not_fit_the_latent() -> None:
    with pytest.raises(ValueError, match="must be 3 whole numbers >= 2"):
        FSQ(LATENT, (8, 5))


# --- the tokenizer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quantizer", [lambda: VQ(LATENT, 8), lambda: FSQ(LATENT, (4, 3, 3))], ids=["vq", "fsq"])
def test_images_to_tokens_and_back(quantizer) -> None:  # type: ignore[no-untyped-def]
    model = tokenizer(quantizer)
    assert isinstance(model, HasLatent)
    x = torch.rand(5, *SHAPE) * 2 - 1
    tokens = model.tokenize(x)
    assert tokens.shape == (5, 2, 2)
    assert tokens.dtype == torch.int64
    z = model.encode(x, {"label": torch.zeros(5, dtype=torch.long)})
    assert z.shape == (5, *LATENT)
    images = model.detokenize(tokens)
    assert torch.equal(model.decode(z), images)
    assert torch.equal(model.decode(model.quantizer.decode(tokens)), images)
    loss = model.losses({"image": x})
    nats = model.likelihood.log_prob(x, images).mean() / 16  # the mean is all there is to a fixed scale
    torch.testing.assert_close(loss["reconstruction"], -nats)
    torch.testing.assert_close(loss["loss"], loss["reconstruction"] + 0.25 * loss["commitment"])


def test_samples_are_of_counted_tokens() -> None:
    model = tokenizer()
    codes = torch.tensor([[[0, 1], [2, 3]], [[4, 5], [6, 7]], [[0, 0], [0, 0]]])
    model.count(codes, torch.tensor([1, 3, 0]))
    assert model.frequencies.shape == (4, 4, 8)
    assert model.frequencies[0, 0].tolist() == [1.0, 0, 0, 0, 0.5, 0, 0, 0]  # half of the counts: decay 0.5
    assert model.frequencies[2].sum() == 0
    drawn: list[Tensor] = []
    decode = model.quantizer.decode
    model.quantizer.decode = lambda tokens: drawn.append(tokens) or decode(tokens)
    model.sample(2, {"label": torch.tensor([0, 2])}, RandomStream([1, 2]))
    assert torch.equal(drawn[0], codes[:2])  # one image of each label: nothing to choose
    model.sample(600, None, RandomStream(range(600)))
    first = torch.bincount(drawn[1][:, 0, 0], minlength=8) / 600
    torch.testing.assert_close(first, torch.tensor([2 / 3, 0, 0, 0, 1 / 3, 0, 0, 0]), rtol=0, atol=0.08)
    with pytest.raises(ValueError, match="Use 0 to 2"):
        model.sample(1, {"label": torch.tensor([7])})


def test_a_sample_does_not_know_its_batch() -> None:
    model = tokenizer(num_classes=None)
    together = model.sample(5, None, RandomStream.for_samples(1, range(5)))
    alone = [model.sample(1, None, RandomStream.for_samples(1, [i])) for i in range(5)]
    torch.testing.assert_close(torch.cat(alone), together, rtol=0, atol=1e-5)
    assert together.std(dim=0).max() > 1e-4


def test_only_training_steps_move_the_codebook_which_is_averaged_with_the_weights() -> None:
    model = tokenizer()
    batch = {"image": torch.rand(8, *SHAPE) * 2 - 1, "label": torch.arange(8) % 3}
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.losses(batch)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    model.training_step(batch, 0)
    assert not any(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    averaged = dict(model.averaged())
    assert averaged["quantizer.codebook"] is model.quantizer.codebook
    assert averaged.keys() - {"quantizer.codebook"} == dict(model.named_parameters()).keys()
    assert "quantizer.codebook" not in dict(tokenizer(lambda: FSQ(LATENT, (4, 3, 3))).averaged())

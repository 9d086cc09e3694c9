"""The bound against closed forms: probabilistic PCA is a VAE whose likelihood is known."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from linear_vae import SHAPE, SIZE, Z, linear_hierarchy, linear_vae
from torch.distributions import Normal as TorchNormal
from torch.distributions import kl_divergence

from genlab.model.base import HasLatent, HasLikelihood, HasPrior
from genlab.model.bits_per_dim import as_density, on_batch_scale, quantized
from genlab.model.elbo import Normal, importance_weighted, kl_weight, with_free_bits
from genlab.model.hierarchical_vae import HierarchicalVAE
from genlab.model.likelihood.bernoulli import Bernoulli
from genlab.model.likelihood.gaussian import Gaussian
from genlab.model.likelihood.logistic_mixture import LogisticMixture
from genlab.model.network.autoencoder_conv import ConvDecoder, ConvEncoder, sizes_between
from genlab.model.network.autoencoder_mlp import MLPEncoder
from genlab.model.network.ladder import ConvLadder
from genlab.model.schedule import Constant
from genlab.model.vae import VAE
from genlab.seeding import RandomStream
from told import labels

TOGETHER = 512  # examples


def data(model: VAE, count: int = TOGETHER) -> torch.Tensor:
    return model.decoder.marginal().sample((count,)).unflatten(1, SHAPE)


def likelihood_of(model: VAE, x: torch.Tensor) -> torch.Tensor:
    """The closed form of ``log_likelihood``: cells 1/128 wide are stretched to where training has levels."""
    return model.decoder.marginal().log_prob(x.flatten(1) * 256 / 255) + SIZE * math.log(256 / 255)


# --- pieces -----------------------------------------------------------------------------------------------------------


def test_kl_of_normals_is_that_of_torch_and_of_monte_carlo() -> None:
    torch.manual_seed(1)
    a, b, c, d = (0.5 * torch.randn(3, 4, 2, 2) for _ in range(4))
    q, p = Normal(a, b), Normal(c, d)
    torch.testing.assert_close(q.kl(p), kl_divergence(TorchNormal(a, b.exp()), TorchNormal(c, d.exp())))
    z = q.at(torch.randn(100_000, 3, 4, 2, 2))
    torch.testing.assert_close(z.mean(dim=0), a, rtol=0, atol=0.05)
    torch.testing.assert_close(q.log_prob(z), TorchNormal(a, b.exp()).log_prob(z))
    difference = q.log_prob(z) - p.log_prob(z)
    error = 5 * difference.std(dim=0) / len(z) ** 0.5
    assert ((difference.mean(dim=0) - q.kl(p)).abs() < error).all()


def test_a_posterior_relative_to_its_prior() -> None:
    prior, by = Normal.of(torch.randn(2, 6, 1, 1)), Normal.of(torch.randn(2, 6, 1, 1))
    posterior = prior.shifted(by)
    # NVAE, eq. 2
    expected = 0.5 * ((by.mean / prior.log_std.exp()) ** 2 + by.log_std.exp() ** 2 - 2 * by.log_std - 1)
    torch.testing.assert_close(posterior.kl(prior), expected)


def test_free_bits() -> None:
    kl = torch.tensor([[0.0, 2.0, 0.4], [0.2, 4.0, 0.8]], requires_grad=True)  # means 0.1, 3, 0.6
    cost = with_free_bits(kl, 0.5)
    assert cost.item() == pytest.approx(0.5 + 3.0 + 0.6)
    cost.backward()
    assert kl.grad is not None
    assert kl.grad.tolist() == [[0.0, 0.5, 0.5], [0.0, 0.5, 0.5]]  # what is free is not pushed down
    assert with_free_bits(kl, 0.0).item() == pytest.approx(3.7)


def test_warm_up() -> None:
    assert [kl_weight(fraction, 0.4) for fraction in (0, 0.1, 0.4, 1)] == pytest.approx([0, 0.25, 1, 1])
    assert kl_weight(0.0, 0.0) == 1


def test_the_loss_is_what_it_says() -> None:
    model = linear_vae(beta=0.5, free_nats=1.5, kl_warmup=0.5)
    x = torch.randn(8, *SHAPE)
    model.progress.fraction = 0.1
    torch.manual_seed(3)
    losses = model.losses({"image": x})
    posterior = model.posterior(x, None)
    kl = kl_divergence(TorchNormal(posterior.mean, posterior.log_std.exp()), TorchNormal(0, 1)).mean(0).flatten()
    assert losses["kl"].item() == pytest.approx(kl.sum().item() / SIZE, rel=1e-5)
    expected = losses["reconstruction"] + 0.5 * 0.2 * kl.clamp(min=1.5).sum() / SIZE
    assert losses["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_importance_weighting() -> None:
    log_weights = torch.log(torch.tensor([[1.0, 3.0], [3.0, 5.0]]))
    torch.testing.assert_close(importance_weighted(log_weights), torch.log(torch.tensor([2.0, 4.0])))


def test_discrete_likelihoods_as_densities() -> None:
    log_prob = torch.tensor([-10.0])
    assert as_density(log_prob, None, 6).item() == pytest.approx(-10 + 6 * math.log(256 / 255), rel=1e-6)
    assert as_density(log_prob, 2, 6).item() == -10  # bins of width 1
    assert as_density(log_prob, 256, 6).item() == pytest.approx(-10 + 6 * math.log(128), rel=1e-6)


def test_pixels_find_their_level() -> None:
    pixels = torch.arange(256.0)
    exact = pixels / 127.5 - 1
    assert torch.equal(quantized(exact), exact)
    for share in (0.0, 0.5, 0.999):
        assert torch.equal(quantized((pixels + share) / 128 - 1), exact)
        assert torch.equal(on_batch_scale((pixels + share) / 128 - 1, 256), exact)
    torch.testing.assert_close(on_batch_scale((pixels + 0.5) / 128 - 1, None), exact)  # middles of cells


# --- the bound --------------------------------------------------------------------------------------------------------


def test_with_the_exact_posterior_the_bound_is_the_likelihood() -> None:
    for samples in (1, 3):
        model = linear_vae(num_importance_samples=samples)
        model.encoder.be_exact(model.decoder)
        x = data(model)
        exact = likelihood_of(model, x)
        torch.testing.assert_close(model.log_likelihood(x), exact, rtol=0, atol=1e-3)
    with torch.no_grad():
        expected = -model.decoder.marginal().log_prob(x.flatten(1)).mean() / SIZE
        draws = [model.losses({"image": x})["loss"] for _ in range(200)]
    # log p = reconstruction - KL holds on average over the noise alone
    assert torch.stack(draws).mean().item() == pytest.approx(expected.item(), abs=0.01)


def test_training_the_encoder_reaches_the_likelihood() -> None:
    model = linear_vae()
    x = data(model, 256)
    exact = model.decoder.marginal().log_prob(x.flatten(1)).mean().item()
    optimizer = torch.optim.Adam(model.encoder.parameters(), lr=0.02)

    def bound() -> float:
        with torch.no_grad():
            return -SIZE * sum(model.losses({"image": x})["loss"].item() for _ in range(50)) / 50

    before = bound()
    for step in range(600):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / 600)
        optimizer.zero_grad()
        model.losses({"image": x})["loss"].backward()
        optimizer.step()
    assert before < exact - 0.5
    assert bound() == pytest.approx(exact, abs=0.05)


def test_the_importance_weighted_bound_rises_towards_the_likelihood() -> None:
    model = linear_vae()  # of an encoder that knows nothing
    x = data(model)
    exact = likelihood_of(model, x).mean().item()
    bounds = []
    for samples in (1, 10, 100, 3000):
        model.num_importance_samples = samples
        bounds.append(model.log_likelihood(x).mean().item())
    assert bounds == sorted(bounds)
    assert bounds[0] < exact - 1
    assert bounds[-1] == pytest.approx(exact, abs=0.1)


@pytest.mark.parametrize("make", [linear_vae, linear_hierarchy])
def test_importance_noise_is_independent_from_image_to_image(make: Any) -> None:
    """Of N copies of an image, told apart by a change too small to matter, the mean scatters as 1 / sqrt(N)."""
    means, singles = [], []
    for seed in range(12):
        torch.manual_seed(0)
        model = make(num_importance_samples=1, seed=seed)
        x = torch.randn(1, *SHAPE) + 1e-6 * torch.arange(256)[:, None, None, None]
        nats = model.log_likelihood(x)
        means.append(nats.mean().item())
        singles.append(nats.std().item())
    expected = np.mean(singles) / 16
    assert 0.5 * expected < np.std(means, ddof=1) < 2 * expected
    order = torch.randperm(256)
    assert torch.equal(model.log_likelihood(x[order]), nats[order])


def test_training_the_importance_weighted_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its gradient is that of the log weights, weighted by their normalized weights (Burda et al. 2016, eq. 14)."""
    model = linear_vae(num_training_samples=5)
    x = data(model, 3)
    noise = torch.randn(15, Z, 1, 1)
    monkeypatch.setattr(torch, "randn_like", lambda mean: noise)
    loss = model.losses({"image": x})["loss"]
    loss.backward()
    found = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    total = torch.zeros(())
    for i in range(3):  # image by image, sample by sample
        posterior = model.posterior(x[[i]], None)
        log_weights = torch.stack(
            [model.log_weight(x[[i]], posterior.at(noise[[5 * i + k]]), posterior, None) for k in range(5)]
        )
        total = total - (log_weights.detach().softmax(dim=0) * log_weights).sum() / 3 / SIZE
    total.backward()
    for gradient, p in zip(found, model.parameters(), strict=True):
        torch.testing.assert_close(gradient, p.grad)
    exact = -model.decoder.marginal().log_prob(x.flatten(1)).mean().item() / SIZE
    monkeypatch.undo()
    with torch.no_grad():
        bounds = []
        for model.num_training_samples in (1, 5, 100):
            bounds.append(sum(model.losses({"image": x})["loss"].item() for _ in range(200)) / 200)
    assert bounds[0] > bounds[1] > bounds[2] > exact - 0.01
    assert bounds[2] == pytest.approx(exact, abs=0.2)


def test_the_importance_weighted_bound_has_no_kl_cost_to_weigh() -> None:
    for arguments in ({"beta": 2.0}, {"free_nats": 1.0}, {"kl_warmup": 0.1}):
        with pytest.raises(ValueError, match=r"use model\.beta=1 model\.free_nats=0 model\.kl_warmup=0, or "):
            linear_vae(num_training_samples=5, **arguments)


def test_a_hierarchy_of_one_layer_is_a_vae() -> None:
    flat, ladder = linear_vae(free_nats=1.0), linear_hierarchy(free_nats=2.0)
    ladder.ladder.encoder.load_state_dict(flat.encoder.state_dict())
    ladder.ladder.decoder.load_state_dict(flat.decoder.state_dict())
    x = torch.randn(8, *SHAPE)
    torch.testing.assert_close(ladder.log_likelihood(x), flat.log_likelihood(x))
    values = []
    for model in (flat, ladder):
        torch.manual_seed(5)
        values.append(model.losses({"image": x}))
    for name in ("reconstruction", "kl"):
        torch.testing.assert_close(values[0][name], values[1][name])
    stream = [RandomStream.for_samples(2, range(3)) for _ in range(2)]
    torch.testing.assert_close(flat.sample(3, None, stream[0]), ladder.sample(3, None, stream[1]))
    torch.testing.assert_close(flat.encode(x), ladder.encode(x))
    torch.testing.assert_close(flat.decode(flat.encode(x)), ladder.decode(ladder.encode(x)))


# --- the families with real networks ----------------------------------------------------------------------------------

CONV = {"channels": 8, "max_channels": 8, "patch_size": 2}


def conv_vae(likelihood=None, shape=(1, 8, 8), latent_shape=(3, 2, 2), **arguments) -> VAE:  # type: ignore[no-untyped-def]
    def encoder(out_channels: int) -> ConvEncoder:
        return ConvEncoder(shape, latent_shape, labels(3), out_channels, **CONV)

    def decoder(out_channels: int) -> ConvDecoder:
        return ConvDecoder(shape, latent_shape, labels(3), out_channels, **CONV)

    model = VAE(encoder=encoder, decoder=decoder, likelihood=likelihood or LogisticMixture(2), shape=shape,
                optimizer=torch.optim.Adam, schedule=Constant(), told={"label": {"size": 3}}, latent_shape=latent_shape,
                num_importance_samples=2, **arguments)  # fmt: skip
    model.configure_model()
    return scrambled(model)


def conv_hierarchy(likelihood=None, shape=(1, 8, 8), **arguments) -> HierarchicalVAE:  # type: ignore[no-untyped-def]
    latents = [(4, 1, 1), (2, 4, 4), (2, 4, 4)]

    def ladder(out_channels: int) -> ConvLadder:
        return ConvLadder(shape, latents, labels(3), out_channels, **CONV)

    model = HierarchicalVAE(ladder=ladder, likelihood=likelihood or LogisticMixture(2), optimizer=torch.optim.Adam,
                            schedule=Constant(), shape=shape, told={"label": {"size": 3}}, latent_shapes=latents,
                            num_importance_samples=2, **arguments)  # fmt: skip
    model.configure_model()
    return scrambled(model)


def scrambled(model):  # type: ignore[no-untyped-def]
    """Nothing is zero, so that everything counts."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


MODELS = {"vector": lambda **a: conv_vae(latent_shape=(3, 1, 1), **a), "spatial": conv_vae, "ladder": conv_hierarchy}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("sample_pixels", [False, True])
def test_a_sample_does_not_know_its_batch(make, sample_pixels: bool) -> None:  # type: ignore[no-untyped-def]
    model = make(sample_pixels=sample_pixels)
    label = torch.tensor([0, 1, 2, -1, 0])
    together = model.sample(5, {"label": label}, RandomStream.for_samples(1, range(5)))
    alone = [model.sample(1, {"label": label[[i]]}, RandomStream.for_samples(1, [i])) for i in range(5)]
    torch.testing.assert_close(torch.cat(alone), together, rtol=0, atol=1e-5)
    assert together.std(dim=0).max() > 1e-4
    x = together.clamp(-1, 1)
    bound = model.log_likelihood(x, {"label": label})
    alone = [model.log_likelihood(x[[i]], {"label": label[[i]]}) for i in range(5)]
    torch.testing.assert_close(torch.cat(alone), bound, rtol=1e-5, atol=1e-3)


def test_a_sample_is_its_latent_decoded() -> None:
    model, label = conv_vae(), {"label": torch.tensor([0, 1])}
    assert isinstance(model, HasPrior)
    z = RandomStream.for_samples(1, range(2)).randn(*model.latent_shape)
    torch.testing.assert_close(model.decode(z, label), model.sample(2, label, RandomStream.for_samples(1, range(2))))
    assert not isinstance(conv_hierarchy(), HasPrior)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_labels_and_latents_count(make) -> None:  # type: ignore[no-untyped-def]
    model = make()
    assert isinstance(model, HasLatent)
    assert isinstance(model, HasLikelihood)
    x = torch.rand(2, 1, 8, 8) * 2 - 1
    zero, one, none = ({"label": torch.full((2,), label)} for label in (0, 1, -1))
    z = model.encode(x, zero)
    assert z.shape == (2, *model.latent_shape)
    assert not torch.equal(z, model.encode(x, one))
    images = model.decode(z, zero)
    assert images.shape == x.shape
    assert not torch.equal(images, model.decode(z, one))
    assert not torch.equal(images, model.decode(z + 1, zero))
    torch.testing.assert_close(model.decode(z, none), model.decode(z, None))  # -1 is no label
    with pytest.raises(ValueError, match="Use 0 to 2"):
        model.sample(1, {"label": torch.tensor([3])})


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_temperature_0_always_draws_the_same(make) -> None:  # type: ignore[no-untyped-def]
    samples = make(temperature=0.0).sample(2, None, RandomStream([1, 2]))
    assert torch.equal(samples[0], samples[1])


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("likelihood", [Bernoulli(), LogisticMixture(2), Gaussian()])
def test_a_discrete_bound_is_constant_on_a_bin(make, likelihood) -> None:  # type: ignore[no-untyped-def]
    model = make(likelihood=likelihood)
    pixels = torch.randint(256, (2, 1, 8, 8))
    low, high = (model.log_likelihood((pixels + share) / 128 - 1) for share in (0.001, 0.99))
    assert torch.equal(low, high) == (likelihood.levels is not None)
    assert model.num_levels == (likelihood.levels or 256)


def test_condition_dropout_hides_labels() -> None:
    model = conv_vae(condition_dropout=1.0)
    model.log = lambda *_, **__: None  # type: ignore[method-assign]
    seen = []
    model.decoder.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[1]["label"]))
    model.training_step({"image": torch.zeros(2, 1, 8, 8), "label": torch.tensor([1, 2])}, 0)
    model.losses({"image": torch.zeros(2, 1, 8, 8), "label": torch.tensor([1, 2])})
    assert [label.tolist() for label in seen] == [[-1, -1], [1, 2]]


def test_sizes_of_feature_maps() -> None:
    assert sizes_between((1, 28, 28), (8, 1, 1)) == [(28, 28), (14, 14), (7, 7), (4, 4)]
    assert sizes_between((1, 32, 16), (8, 8, 4)) == [(32, 16), (16, 8), (8, 4)]
    assert sizes_between((1, 2, 2), (8, 1, 1)) == [(2, 2)]
    with pytest.raises(ValueError, match="larger than the image"):
        sizes_between((1, 8, 8), (3, 16, 16))


@pytest.mark.parametrize(
    "arguments", [{"beta": -1.0}, {"kl_warmup": 2.0}, {"condition_dropout": -0.1}, {"free_nats": -1.0}]
)
def test_what_cannot_be_is_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        linear_vae(**arguments)
    with pytest.raises(ValueError, match=next(iter(arguments))):
        linear_hierarchy(**arguments)


def test_layers_come_coarsest_first() -> None:
    with pytest.raises(ValueError, match="coarsest first"):
        ConvLadder((1, 8, 8), [(2, 4, 4), (2, 2, 2)], {}, 1, **CONV)


def test_an_encoder_may_see_pixels_from_0_to_1() -> None:
    def encoder(nonnegative: bool) -> MLPEncoder:
        torch.manual_seed(0)
        return MLPEncoder((1, 4, 4), (2, 1, 1), {}, out_channels=4, width=8, nonnegative=nonnegative)

    x = torch.rand(3, 1, 4, 4) * 2 - 1
    assert torch.equal(encoder(True)(x, None), encoder(False)((x + 1) / 2, None))

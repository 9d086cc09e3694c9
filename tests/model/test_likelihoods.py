"""Distributions of pixels against torch's, slow loops and closed forms."""

import math

import pytest
import torch
from torch import Tensor

from genlab.model.bits_per_dim import as_density, bits_per_dim, bits_to_nats
from genlab.model.likelihood.bernoulli import Bernoulli
from genlab.model.likelihood.gaussian import Gaussian
from genlab.model.likelihood.logistic_mixture import LogisticMixture
from genlab.seeding import RandomStream


def levels(*pixels: float) -> Tensor:
    return torch.tensor(pixels) / 127.5 - 1


def slow_log_prob(x: Tensor, parameters: Tensor, components: int) -> float:
    """One pixel (C,) given its parameters (K * (1 + 2 C + pairs),), in float64 and in plain loops."""
    channels = len(x)
    rows = parameters.double().view(components, -1)
    weights = rows[:, 0].softmax(0)
    total = 0.0
    for k in range(components):
        means, log_scales, coefficients = rows[k, 1:].split([channels, channels, channels * (channels - 1) // 2])
        probability, pair = 1.0, 0
        for c in range(channels):
            mean = float(means[c])
            for before in range(c):
                mean += math.tanh(coefficients[pair]) * float(x[before])
                pair += 1
            scale = math.exp(max(float(log_scales[c]), -7.0))

            def cdf(value: float, mean: float = mean, scale: float = scale) -> float:
                return 1 / (1 + math.exp(-(value - mean) / scale))

            pixel = round((float(x[c]) + 1) * 127.5)
            below = 0.0 if pixel == 0 else cdf(float(x[c]) - 1 / 255)
            above = 1.0 if pixel == 255 else cdf(float(x[c]) + 1 / 255)
            probability *= above - below
        total += float(weights[k]) * probability
    return math.log(total)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_logistic_mixture_is_that_of_a_slow_loop(channels: int) -> None:
    mixture = LogisticMixture(4)
    parameters = torch.randn(5, mixture.num_parameters(channels), 2, 3)
    x = levels(*torch.randint(256, (5 * channels * 6,)).tolist()).view(5, channels, 2, 3)
    x[0], x[1] = -1.0, 1.0  # the edges
    nats = mixture.log_prob(x, parameters)
    for i in range(5):
        pixels = [(x[i, :, r, c], parameters[i, :, r, c]) for r in range(2) for c in range(3)]
        assert nats[i].item() == pytest.approx(sum(slow_log_prob(*p, 4) for p in pixels), rel=1e-4)


def test_numbers_of_parameters() -> None:
    assert [LogisticMixture(10).num_parameters(c) for c in (1, 3)] == [30, 100]  # PixelCNN++
    assert [Gaussian().num_parameters(3), Gaussian(0.1).num_parameters(3), Bernoulli().num_parameters(3)] == [6, 3, 3]


@pytest.mark.parametrize("spread", [0.3, 3.0])  # 3: some scales far below a bin, some far above the range
def test_a_gray_mixture_sums_to_1(spread: float) -> None:
    mixture = LogisticMixture(5)
    parameters = spread * torch.randn(1, 15, 1, 20)
    x = levels(*range(256)).view(256, 1, 1, 1)
    total = torch.stack([mixture.log_prob(x, parameters[..., [i]].expand(256, -1, -1, -1)) for i in range(20)])
    torch.testing.assert_close(total.exp().sum(dim=1), torch.ones(20), rtol=0, atol=1e-4)


def all_pairs(mixture: LogisticMixture, parameters: Tensor) -> Tensor:
    """The probabilities of all 256 x 256 pixels of two channels, given (D,)."""
    x = torch.cartesian_prod(levels(*range(256)), levels(*range(256)))[:, :, None, None]
    return mixture.log_prob(x, parameters.view(1, -1, 1, 1).expand(len(x), -1, -1, -1)).exp().view(256, 256)


def test_a_mixture_of_two_channels_sums_to_1() -> None:
    mixture = LogisticMixture(3)
    assert all_pairs(mixture, torch.randn(mixture.num_parameters(2))).sum().item() == pytest.approx(1, abs=1e-3)


def test_the_third_channel_sums_to_1_given_the_others() -> None:
    """So three channels sum to what the first two have, and with the test above to 1 in all."""
    mixture = LogisticMixture(3)
    parameters = torch.randn(3, 10)  # of each component: weight, 3 means, 3 log scales, 3 coefficients
    x = torch.stack([levels(200.0).expand(256), levels(0.0).expand(256), levels(*range(256))], dim=1)[:, :, None, None]
    total = mixture.log_prob(x, parameters.view(1, 30, 1, 1).expand(256, -1, -1, -1)).logsumexp(dim=0)
    first_two = parameters[:, [0, 1, 2, 4, 5, 7]].reshape(1, 18, 1, 1)
    torch.testing.assert_close(total, mixture.log_prob(x[:1, :2], first_two)[0], rtol=1e-4, atol=1e-4)


def test_draws_follow_the_probabilities() -> None:
    mixture = LogisticMixture(2)
    parameters = torch.randn(mixture.num_parameters(2))
    drawn = mixture.sample(parameters.view(1, -1, 1, 1).expand(-1, -1, 200, 200), RandomStream([3]))
    pixels = ((drawn + 1) * 127.5).round()
    assert torch.equal(drawn, pixels / 127.5 - 1)
    coarse = (pixels // 32)[0].long()  # (2, 200, 200), 8 levels
    share = torch.bincount((8 * coarse[0] + coarse[1]).flatten(), minlength=64) / 200**2
    expected = all_pairs(mixture, parameters).view(8, 32, 8, 32).sum(dim=(1, 3)).flatten()
    error = (expected * (1 - expected) / 200**2).sqrt()
    assert ((share - expected).abs() < 4.5 * error + 1e-4).all()
    assert (expected > 0.01).sum() > 10


def test_gradients_are_finite_far_from_the_data() -> None:
    mixture = LogisticMixture(2)
    parameters = torch.tensor([0.0, 50.0, -9.0, 0.0, -50.0, -9.0]).view(1, 6, 1, 1).requires_grad_()
    for x in (-1.0, 0.0, 1.0):
        (gradient,) = torch.autograd.grad(mixture.log_prob(torch.full((1, 1, 1, 1), x), parameters).sum(), parameters)
        assert torch.isfinite(gradient).all()
        assert gradient.abs().max() > 0 or x != 0


def test_the_mean_of_a_sharp_mixture() -> None:
    mixture = LogisticMixture(2)
    parameters = torch.tensor([0.0, 0.5, -7.0, math.log(3.0), -3.0, -7.0]).view(1, 6, 1, 1)  # weights 1/4 and 3/4
    assert mixture.mean(parameters).item() == pytest.approx(0.25 * 0.5 - 0.75)
    drawn = mixture.sample(parameters.expand(-1, -1, 100, 100), RandomStream([0])).mean().item()
    assert drawn == pytest.approx(mixture.mean(parameters).item(), abs=0.03)


def test_bernoulli() -> None:
    x, logits = torch.rand(3, 2, 4, 4) * 2 - 1, 3 * torch.randn(3, 2, 4, 4)
    torch_nats = torch.distributions.Bernoulli(logits=logits).log_prob((x > 0).float()).flatten(1).sum(1)
    torch.testing.assert_close(Bernoulli().log_prob(x, logits), torch_nats)
    assert Bernoulli().log_prob(levels(127.0, 128.0).view(2, 1, 1, 1), torch.full((2, 1, 1, 1), 5.0)).diff() > 4
    drawn = Bernoulli().sample(logits[:1].repeat(1, 1, 100, 100), RandomStream([0])).unflatten(2, (100, 4))
    share = drawn.unflatten(4, (100, 4)).mean(dim=(2, 4))
    torch.testing.assert_close(share, Bernoulli().mean(logits[:1]), rtol=0, atol=0.06)


@pytest.mark.parametrize("scale", [None, 0.3])
def test_gaussian(scale: float | None) -> None:
    gaussian = Gaussian(scale, min_scale=0.02)
    x, parameters = torch.randn(3, 2, 4, 4), torch.randn(3, gaussian.num_parameters(2), 4, 4)
    std = torch.full_like(x, 0.3) if scale else parameters[:, 2:].exp() + 0.02
    normal = torch.distributions.Normal(parameters[:, :2], std)
    torch.testing.assert_close(gaussian.log_prob(x, parameters), normal.log_prob(x).flatten(1).sum(1))
    assert torch.equal(gaussian.mean(parameters), parameters[:, :2])
    drawn = gaussian.sample(parameters[:1].repeat(1, 1, 50, 50), RandomStream([0]))
    z = (drawn - normal.mean[:1].repeat(1, 1, 50, 50)) / std[:1].repeat(1, 1, 50, 50)
    assert (z.mean().item(), z.std().item()) == pytest.approx((0, 1), abs=0.02)
    with pytest.raises(ValueError, match="above 0"):
        Gaussian(scale=0.0)


class Fixed:
    """A model of pixels that does not learn: the likelihood alone."""

    likelihood_kind = "bound"

    def __init__(self, likelihood, parameters: Tensor):  # type: ignore[no-untyped-def]
        self.likelihood, self.parameters = likelihood, parameters

    def log_likelihood(self, x: Tensor, condition: None = None) -> Tensor:
        log_prob = self.likelihood.log_prob(x, self.parameters.expand(len(x), -1, *x.shape[2:]))
        return as_density(log_prob, self.likelihood.levels, x[0].numel())


def test_bits_of_a_uniform_model() -> None:
    """A coin of two gray levels, and a mixture with one narrow logistic on every level."""
    pixels = torch.randint(256, (4, 1, 5, 5), dtype=torch.uint8)
    noise = RandomStream.for_samples(0, range(4))
    coin = Fixed(Bernoulli(), torch.zeros(1, 1, 1, 1))
    bits = bits_per_dim(coin, pixels, None, noise)  # type: ignore[arg-type]
    torch.testing.assert_close(bits, torch.full((4,), 8.0))
    assert bits_to_nats(8.0, 25, 2) == pytest.approx(25 * math.log(2))
    assert bits_to_nats(8.0, 25, 256) == pytest.approx(25 * math.log(256))
    comb = LogisticMixture(256)
    parameters = torch.stack([torch.zeros(256), levels(*range(256)), torch.full((256,), -7.0)], dim=1)
    bits = bits_per_dim(Fixed(comb, parameters.view(1, -1, 1, 1)), pixels, None, noise)  # type: ignore[arg-type]
    torch.testing.assert_close(bits, torch.full((4,), 8.0), rtol=0, atol=0.02)

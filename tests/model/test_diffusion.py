"""The family: guidance, label dropout, sampling and likelihood, against closed forms."""

import functools
import math
from typing import Any

import pytest
import torch
from gaussian import MEAN, STD, Function, ideal, log_density
from torch import Tensor, nn

from genlab.model.base import GenerativeModel, HasLikelihood
from genlab.model.bits_per_dim import bits_per_dim, dequantize, nats_to_bits_per_dim
from genlab.model.diffusion import Diffusion
from genlab.model.guidance.classifier_free import ClassifierFree
from genlab.model.guidance.interval import Interval
from genlab.model.network.mlp import MLP
from genlab.model.network.unet import UNet
from genlab.model.objective.edm import EDM
from genlab.model.probability_flow import ExactTrace, Hutchinson, log_likelihood
from genlab.model.sampler.ancestral import Ancestral
from genlab.model.sampler.dpm_solver import DPMSolver2M
from genlab.model.sampler.grid import Karras
from genlab.model.schedule import Constant
from genlab.seeding import RandomStream


def diffusion(**changes: Any) -> Diffusion:
    arguments: dict[str, Any] = {
        "network": functools.partial(MLP, (1, 2, 2), width=32),
        "objective": EDM(),
        "sampler": DPMSolver2M(5, Karras()),
        "optimizer": functools.partial(torch.optim.AdamW, lr=1e-3),
        "schedule": Constant(),
        "shape": (1, 2, 2),
        "told": {"label": {"size": 3}},
    }
    model = Diffusion(**{**arguments, **changes})
    model.configure_model()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


class Direct:
    """An objective whose network is the denoiser."""

    def loss(self, network: nn.Module, x: Tensor, condition: Any, progress: float) -> Tensor:
        return network(x, x.new_zeros(len(x)), condition).mean()

    def denoise(self, network: nn.Module, x: Tensor, sigma: Tensor, condition: Any) -> Tensor:
        return network(x, sigma, condition)


def gaussian_diffusion(**changes: Any) -> Diffusion:
    return diffusion(network=lambda: Function(ideal), objective=Direct(), told={}, **changes)


def test_contract() -> None:
    model = diffusion()
    assert isinstance(model, GenerativeModel)
    assert isinstance(model, HasLikelihood)
    network = model.network
    model.configure_model()
    assert model.network is network
    assert isinstance(model.configure_optimizers(), torch.optim.AdamW)


def test_guidance_extrapolates_and_calls_the_network_once() -> None:
    model, x, sigma = diffusion(), torch.randn(4, 1, 2, 2), torch.full((4,), 0.7)
    condition = {"label": torch.tensor([0, 1, 2, -1])}
    calls: list[int] = []
    model.network.register_forward_pre_hook(lambda module, inputs: calls.append(len(inputs[0])))
    with torch.no_grad():
        conditional, unconditional = model.denoiser(condition)(x, sigma), model.denoiser(None)(x, sigma)
        assert calls == [4, 4]
        for weight in (0.0, 0.5, 3.0):
            model.guidance = ClassifierFree(weight)
            guided = model.denoiser(condition)(x, sigma)
            expected = unconditional + weight * (conditional - unconditional)
            torch.testing.assert_close(guided, expected, rtol=1e-4, atol=1e-5)
            assert calls.pop() == 8
    assert not torch.allclose(conditional[:3], unconditional[:3], atol=1e-3)
    torch.testing.assert_close(conditional[3], unconditional[3])


def test_guidance_keeps_to_its_interval() -> None:
    model = diffusion(guidance=Interval(4.0, 0.5, 2.0))
    plain = diffusion()
    plain.load_state_dict(model.state_dict())
    everywhere = diffusion(guidance=ClassifierFree(4.0))
    everywhere.load_state_dict(model.state_dict())
    x, sigma = torch.randn(3, 1, 2, 2), torch.tensor([0.4, 1.0, 2.1])
    condition = {"label": torch.tensor([0, 1, 2])}
    with torch.no_grad():
        guided, none, full = (m.denoiser(condition)(x, sigma) for m in (model, plain, everywhere))
    torch.testing.assert_close(guided[[0, 2]], none[[0, 2]], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(guided[1], full[1], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(guided[1], none[1], atol=1e-3)


def test_labels_are_dropped_in_training_only(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Function(lambda x, noise_level: x)
    model = diffusion(network=lambda: network, condition_dropout=0.3)
    monkeypatch.setattr(model, "log", lambda *args, **kwargs: None)
    batch = {"image": torch.randn(20_000, 1, 2, 2), "label": torch.ones(20_000, dtype=torch.long)}
    model.training_step(batch, 0)
    model.losses(batch)
    trained, validated = (condition["label"] for _, _, condition in network.calls if condition is not None)
    assert set(trained.tolist()) == {-1, 1}
    assert (trained == -1).float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert (validated == 1).all()
    assert (batch["label"] == 1).all()


def test_a_model_without_classes_never_sees_a_label() -> None:
    network = Function(lambda x, noise_level: x)
    model = diffusion(network=lambda: network, told={})
    model.losses({"image": torch.randn(2, 1, 2, 2), "label": torch.tensor([0, 1])})
    assert network.calls[0][2] is None
    with pytest.raises(ValueError, match="no labels"):
        model.sample(1, {"label": torch.tensor([0])})
    with pytest.raises(ValueError, match="0 to 2"):
        diffusion().sample(1, {"label": torch.tensor([3])})
    with pytest.raises(ValueError, match="condition_dropout"):
        diffusion(condition_dropout=2)


@pytest.mark.parametrize("sampler", [DPMSolver2M(5, Karras()), Ancestral(5, Karras())], ids=["ode", "sde"])
def test_a_sample_is_the_same_in_any_batch(sampler: Any) -> None:
    network = functools.partial(UNet, (1, 8, 8), channels=16, channel_mult=(1, 2), attention_resolutions=(8,))
    model = diffusion(network=network, sampler=sampler, shape=(1, 8, 8), guidance=ClassifierFree(2.0))
    for parameter in model.parameters():
        parameter.data *= 0.25
    labels = torch.tensor([0, 1, 2, -1, 0, 1, 2])

    def rows(indices: list[int]) -> Tensor:
        generator = RandomStream.for_samples(5, indices)
        return model.sample(len(indices), {"label": labels[indices]}, generator)

    everything = rows(list(range(7)))
    assert everything.shape == (7, 1, 8, 8)
    torch.testing.assert_close(torch.cat([rows([i]) for i in range(7)]), everything, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.cat([rows([0, 1, 2, 3, 4]), rows([5, 6])]), everything, rtol=1e-5, atol=1e-5)


def test_sampling_follows_the_global_seed_by_default() -> None:
    model = diffusion()
    torch.manual_seed(3)
    first = model.sample(2)
    second = model.sample(2)
    torch.manual_seed(3)
    assert torch.equal(model.sample(2), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("trace", [ExactTrace(), Hutchinson()], ids=["exact", "hutchinson"])
def test_likelihood_of_a_gaussian(trace: Any) -> None:
    """Hutchinson's estimate is exact here: the Jacobian of the ideal denoiser is a multiple of the identity."""
    model = gaussian_diffusion()
    x = MEAN + STD * torch.randn(16, 1, 2, 2)
    expected = log_density(x * 256 / 255) + 4 * math.log(256 / 255)
    torch.testing.assert_close(model.log_likelihood(x, trace=trace), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("level", [0, 100, 255])
def test_bits_per_dim_are_measured_where_training_had_the_levels(level: int) -> None:
    """Batches hold level p at p / 127.5 - 1, and a model has its mode there: noise must lie evenly around that."""
    mode, std = level / 127.5 - 1, 1 / 127.5  # one level

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return mode + std**2 / (std**2 + sigma**2)[:, None, None, None] * (x - mode)

    model = diffusion(network=lambda: Function(denoise), objective=Direct(), told={})
    pixels = torch.full((500, 1, 2, 2), level, dtype=torch.uint8)
    bits = bits_per_dim(model, pixels, None, RandomStream.for_samples(0, range(500)))
    variance = 1 + (0.002 * 127.5) ** 2  # in levels; the density is that at the lowest noise level
    expected = 0.5 * math.log(2 * math.pi * variance) + 0.5 * (1 / 12) / variance  # 1 / 12: of uniform noise, one wide
    assert bits.mean().item() == pytest.approx(expected / math.log(2), abs=0.005)


def test_likelihood_under_inference_mode_and_label() -> None:
    model, x = diffusion(), torch.randn(2, 1, 2, 2)
    condition = {"label": torch.tensor([0, 1])}
    expected = model.log_likelihood(x, condition)
    with torch.inference_mode():
        inside = model.log_likelihood(x + 0, {"label": condition["label"] + 0})
    torch.testing.assert_close(inside, expected)
    assert not torch.allclose(model.log_likelihood(x), expected, atol=1e-3)


def test_hutchinson_is_unbiased_and_independent_of_the_batch() -> None:
    torch.manual_seed(0)
    mix = torch.randn(4, 4, dtype=torch.float64)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        gain = STD**2 / (STD**2 + sigma**2)
        return gain[:, None, None, None] * (x.flatten(1) + 0.2 * torch.tanh(x.flatten(1) @ mix)).view_as(x)

    x = torch.randn(3, 1, 2, 2, dtype=torch.float64)
    exact = log_likelihood(denoise, x, ExactTrace(), num_steps=5)
    estimate = log_likelihood(denoise, x, Hutchinson(num_probes=1000), num_steps=5)
    torch.testing.assert_close(estimate, exact, rtol=0, atol=0.1)
    few = Hutchinson(num_probes=1)
    alone = torch.cat([log_likelihood(denoise, x[i : i + 1], few, num_steps=20) for i in range(3)])
    torch.testing.assert_close(alone, log_likelihood(denoise, x, few, num_steps=20))
    other = log_likelihood(denoise, x, Hutchinson(num_probes=1, seed=1), num_steps=20)
    assert not torch.allclose(alone, other)


def test_bits_per_dim_of_the_uniform_model_are_eight() -> None:
    class Uniform:
        def log_likelihood(self, x: Tensor, condition: None = None) -> Tensor:
            assert x.min() >= -1
            assert x.max() < 1
            return -x[0].numel() * math.log(2) * torch.ones(len(x))

    pixels = torch.randint(256, (5, 3, 4, 4), dtype=torch.uint8)
    bits = bits_per_dim(Uniform(), pixels, None, RandomStream(range(5)))
    torch.testing.assert_close(bits, torch.full((5,), 8.0))


def test_bits_per_dim_of_a_known_density() -> None:
    """A discretized Gaussian that is wide against a level: the density's bits are those of the probabilities."""
    pixels = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1)
    normal = torch.distributions.Normal(127.5, 50.0)
    levels = torch.arange(256.0)
    exact = -torch.log2(normal.cdf(levels + 1) - normal.cdf(levels))
    x = dequantize(pixels, RandomStream(range(256)))
    assert torch.equal(((x + 1) * 128).floor().flatten(), levels)
    nats = normal.log_prob((x + 1) * 128).flatten() + math.log(128)  # as a density on [-1, 1]
    torch.testing.assert_close(nats_to_bits_per_dim(nats, 1), exact, rtol=0, atol=0.04)


def test_compile_is_in_place() -> None:
    compiled = []

    class Recorder(Function):
        def compile(self, *args: Any, **kwargs: Any) -> None:
            compiled.append(self)

    model = diffusion(network=lambda: Recorder(ideal), compile=True)
    assert compiled == [model.network]

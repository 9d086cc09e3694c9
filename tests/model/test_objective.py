"""Objectives against closed forms: exact targets, ideal networks, round trips between parameterisations."""

import math

import pytest
import torch
from gaussian import MEAN, STD, Function, column, ideal
from torch import Tensor, nn

from genlab.model.objective.ddpm import DDPM
from genlab.model.objective.edm import EDM
from genlab.model.objective.flow_matching import FlowMatching
from genlab.model.objective.noise_schedule import Cosine, LinearBeta
from genlab.model.objective.prediction import CleanImage, Epsilon, Velocity
from genlab.model.objective.time_distribution import LogitNormal, Uniform
from genlab.model.parts import DenoisingObjective

SIGMAS = torch.tensor([0.02, 0.1, 0.5, 2.0, 10.0, 60.0], dtype=torch.float64)


def exact_network(objective: DenoisingObjective, denoise=ideal) -> Function:  # type: ignore[no-untyped-def]
    """The network that makes ``objective`` the denoiser given, solved from the published parameterisations."""

    def from_ddpm(x_t: Tensor, noise_level: Tensor) -> Tensor:
        assert isinstance(objective, DDPM)
        step, steps = noise_level * objective.num_steps, torch.arange(objective.num_steps).double()
        sigma = _interpolate(step.double(), steps, objective.log_sigmas.double()).exp()
        alpha = column((1 + sigma**2).rsqrt()).to(x_t)
        sigma_t = alpha * column(sigma).to(x_t)
        clean = denoise(x_t / alpha, sigma.to(x_t))
        noise = (x_t - alpha * clean) / sigma_t
        return objective.prediction.target(clean, noise, alpha, sigma_t)

    def from_edm(x: Tensor, noise_level: Tensor) -> Tensor:
        assert isinstance(objective, EDM)
        sigma, size = (4 * noise_level).exp(), objective.sigma_data
        total = (sigma**2 + size**2).sqrt()
        noisy = x * column(total)
        skip, out = size**2 / total**2, sigma * size / total
        return (denoise(noisy, sigma) - column(skip) * noisy) / column(out)

    def from_flow(x_t: Tensor, t: Tensor) -> Tensor:
        clean = denoise(x_t / column(t), (1 - t) / t)
        return (clean - x_t) / column(1 - t)

    return Function({DDPM: from_ddpm, EDM: from_edm, FlowMatching: from_flow}[type(objective)])


def _interpolate(x: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    upper = torch.searchsorted(xs, x).clamp(1, len(xs) - 1)
    share = (x - xs[upper - 1]) / (xs[upper] - xs[upper - 1])
    return torch.lerp(ys[upper - 1], ys[upper], share)


OBJECTIVES: dict[str, DenoisingObjective] = {
    f"{type(prediction).__name__}-{type(schedule).__name__}": DDPM(schedule, prediction)
    for prediction in (Epsilon(), Velocity(), CleanImage())
    for schedule in (LinearBeta(), Cosine())
}
OBJECTIVES |= {"edm": EDM(), "flow": FlowMatching(Uniform()), "flow-logit-normal": FlowMatching(LogitNormal())}
all_objectives = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)


@all_objectives
def test_ideal_network_is_read_as_the_closed_form(objective: DenoisingObjective) -> None:
    x = MEAN + column((STD**2 + SIGMAS**2).sqrt()) * torch.randn(len(SIGMAS), 3, 4, 4, dtype=torch.float64)
    denoised = objective.denoise(exact_network(objective), x, SIGMAS, None)
    # a float32 noise level, and 60 * 1e-6 of what the network says of the noise
    torch.testing.assert_close(denoised, ideal(x, SIGMAS), rtol=1e-3, atol=1e-3)


@all_objectives
def test_exact_target_gives_zero_loss(objective: DenoisingObjective) -> None:
    """Data that are one known point have a perfect denoiser."""
    point = torch.randn(3, 4, 4, dtype=torch.float64)
    network = exact_network(objective, lambda x, sigma: point.expand_as(x))
    x = point.expand(256, 3, 4, 4)
    assert objective.loss(network, x, None, 0.0) < 1e-4
    far = exact_network(objective, lambda x, sigma: point.expand_as(x) + 0.1)
    assert objective.loss(far, x, None, 0.0) > 5e-3


@all_objectives
def test_closed_form_minimizes_the_loss(objective: DenoisingObjective) -> None:
    x = MEAN + STD * torch.randn(4000, 1, 4, 4, dtype=torch.float64)

    def loss(shift: float, gain: float) -> float:
        torch.manual_seed(1)
        network = exact_network(objective, lambda x, sigma: MEAN + shift + gain * (ideal(x, sigma) - MEAN))
        return objective.loss(network, x, None, 0.0).item()

    best = loss(0.0, 1.0)
    for shift, gain in [(0.05, 1.0), (-0.05, 1.0), (0.0, 1.1), (0.0, 0.9)]:
        assert loss(shift, gain) > best


@pytest.mark.parametrize("schedule", [LinearBeta(), Cosine()])
def test_predictions_round_trip(schedule: LinearBeta | Cosine) -> None:
    x, noise = torch.randn(2, 1000, 3, 2, 2, dtype=torch.float64)
    alpha, sigma = column(schedule.alphas_bar.sqrt()), column((1 - schedule.alphas_bar).sqrt())
    for prediction in (Epsilon(), Velocity(), CleanImage()):
        output = prediction.target(x, noise, alpha, sigma)
        clean = prediction.clean(alpha * x + sigma * noise, output, alpha, sigma)
        torch.testing.assert_close(clean, x, rtol=0, atol=1e-9)


def test_schedules_match_the_papers() -> None:
    linear, cosine = LinearBeta().alphas_bar, Cosine().alphas_bar
    assert linear[0].item() == pytest.approx(1 - 1e-4)
    assert linear[-1].item() == pytest.approx(4.036e-5, rel=1e-3)  # "~ 0", Ho et al. 2020: KL 1e-5 bits a dimension
    half = math.cos((0.5 + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    assert cosine[499].item() == pytest.approx(half)
    assert (1 - cosine[-1] / cosine[-2]).item() == pytest.approx(0.999)


def test_ddpm_tells_the_published_time_step() -> None:
    objective = DDPM(LinearBeta(), Epsilon())
    sigmas = objective.log_sigmas.exp()
    torch.testing.assert_close(objective.step_at(sigmas), torch.arange(1000.0), rtol=0, atol=1e-2)
    beyond = objective.step_at(torch.tensor([1e-4, 1e4]))
    torch.testing.assert_close(beyond, torch.tensor([0.0, 999.0]))


def test_epsilon_loss_of_zero_output_is_the_variance_of_noise() -> None:
    class Zero(nn.Module):
        def forward(self, x: Tensor, noise_level: Tensor, condition: None) -> Tensor:
            return torch.zeros_like(x)

    x = torch.randn(2000, 1, 4, 4)
    assert DDPM(LinearBeta(), Epsilon()).loss(Zero(), x, None, 0.0).item() == pytest.approx(1.0, abs=0.03)
    assert FlowMatching(Uniform()).loss(Zero(), x, None, 0.0).item() == pytest.approx(2.0, abs=0.06)
    assert EDM().loss(Zero(), 0.5 * x, None, 0.0).item() == pytest.approx(1.0, abs=0.03)


def test_time_distributions() -> None:
    device = torch.device("cpu")
    uniform, logit_normal = Uniform()(100_000, device), LogitNormal(0.5, 2.0)(100_000, device)
    assert uniform.mean().item() == pytest.approx(0.5, abs=0.01)
    assert uniform.var().item() == pytest.approx(1 / 12, abs=0.01)
    assert torch.logit(logit_normal).mean().item() == pytest.approx(0.5, abs=0.03)
    assert torch.logit(logit_normal).std().item() == pytest.approx(2.0, abs=0.03)

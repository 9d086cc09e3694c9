"""Consistency models: the boundary, the fixed point of their training, few-step sampling, and what goes with what."""

import copy
import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from gaussian import MEAN, STD, Function, column, flowed, ideal
from test_mixture import NUM_DRAWS, NUM_SAMPLES, mean_distance, ring
from torch import Tensor, nn

from genlab.errors import ConfigError
from genlab.model.diffusion import Diffusion
from genlab.model.network.mlp import MLP
from genlab.model.objective.consistency import Consistency
from genlab.model.objective.edm import EDM
from genlab.model.sampler.consistency import Consistency as ConsistencySampler
from genlab.model.sampler.dpm_solver import DPMSolver2M
from genlab.model.sampler.grid import Karras, Power
from genlab.model.schedule import Constant
from genlab.seeding import RandomStream


def end(x: Tensor, sigma: Tensor) -> Tensor:
    """The consistency function of the Gaussian: where its ODE takes (N, C, H, W) from (N,)."""
    return MEAN + (x - MEAN) * STD * column((STD**2 + sigma**2).rsqrt())


def network_of(denoise: Callable[[Tensor, Tensor], Tensor]) -> Function:
    """The network that EDM's preconditioning makes into ``denoise``."""

    def network(x: Tensor, level: Tensor) -> Tensor:
        sigma = (4 * level).exp()
        variance = sigma**2 + 0.25
        noisy = x * column(variance.sqrt())
        return (denoise(noisy, sigma) - column(0.25 / variance) * noisy) / column(0.5 * sigma * variance.rsqrt())

    return Function(network)


def test_the_boundary_is_exact_whatever_the_network_is() -> None:
    x = torch.randn(5, 2, 3, 3)
    wild = Function(lambda x, level: 100 * torch.randn_like(x))
    assert torch.equal(Consistency().denoise(wild, x, torch.zeros(5), None), x)
    assert not torch.allclose(Consistency().denoise(wild, x, torch.full((5,), 1e-2), None), x, atol=1e-2)


def test_it_starts_as_denoising_and_tightens() -> None:
    t = torch.logspace(-3, 2, 50, dtype=torch.float64)
    objective = Consistency(denoising=0.2, halvings=8)
    assert (objective.earlier(t, 0.0) == 0).all()
    assert (objective.earlier(t, 0.2) == 0).all()
    gaps = torch.stack([t - objective.earlier(t, progress) for progress in (0.2, 0.4, 0.6, 0.8, 1.0)])
    assert (gaps.diff(dim=0) <= 0).all()
    assert (gaps > 0).all()
    last = gaps[-1] / t
    assert last[-1].item() == pytest.approx(2**-8)  # at high noise
    assert last[0].item() == pytest.approx(5 * 2**-8, rel=1e-3)  # n(0) = 1 + 8 / 2


def test_the_loss_of_one_pair_by_hand() -> None:
    """At the start the target is the data: a D that is off by 0.1 everywhere costs 0.1 over t."""
    torch.manual_seed(3)
    t = torch.exp(-1.1 + 2.0 * torch.randn(64, dtype=torch.float64))
    torch.manual_seed(3)
    x = torch.full((64, 1, 4, 4), 0.2, dtype=torch.float64)
    network = network_of(lambda noisy, sigma: torch.full_like(noisy, 0.3))
    c = 0.00054
    expected = (math.sqrt(0.1**2 + c**2) - c) * (1 / t).mean().item()
    assert Consistency().loss(network, x, None, 0.0).item() == pytest.approx(expected, rel=1e-6)


def test_the_exact_consistency_function_is_the_fixed_point_in_the_limit() -> None:
    """The expected denoiser is what the first stage learns; the end of the ODE is what the last stage leaves alone."""
    x = MEAN + STD * torch.randn(4000, 1, 1, 1, dtype=torch.float64)

    def pull(denoise: Callable[[Tensor, Tensor], Tensor], halvings: float) -> float:
        """How much the loss falls if D is mixed with a little of its opposite number: 0 at a fixed point."""
        objective = Consistency(denoising=0.0, halvings=halvings, huber=10.0)  # quadratic: its minimum is a mean
        share = torch.zeros((), dtype=torch.float64, requires_grad=True)
        other = ideal if denoise is end else end
        mixed = network_of(lambda x, s: torch.lerp(denoise(x, s), other(x, s), share))
        torch.manual_seed(1)
        (slope,) = torch.autograd.grad(objective.loss(mixed, x, None, 1.0), share)
        return abs(slope.item())

    assert pull(end, 12.0) < 0.05 * pull(ideal, 12.0)
    assert pull(ideal, 0.0) < 0.05 * pull(end, 0.0)


def test_student_and_teacher_share_their_dropout_and_only_the_student_learns() -> None:
    torch.manual_seed(0)
    network = nn.Module()
    seen: list[tuple[Tensor, bool]] = []

    def forward(x: Tensor, noise_level: Tensor, condition: Any) -> Tensor:
        seen.append((torch.rand(3), torch.is_grad_enabled()))
        return x

    network.forward = forward  # type: ignore[method-assign]
    Consistency().loss(network, torch.randn(8, 1, 2, 2), None, 1.0)
    (student, learns), (teacher, follows) = seen
    assert torch.equal(student, teacher)
    assert (learns, follows) == (True, False)
    after = torch.rand(3)
    assert not torch.equal(after, student)  # the next draw is new


def test_one_step_draws_the_exact_gaussian() -> None:
    noise = torch.randn(20_000, 1, 1, 1, dtype=torch.float64)
    stream = RandomStream([0])
    one = ConsistencySampler(1, Power())(end, noise, stream)
    torch.testing.assert_close(one, flowed(80.0 * noise, 80.0))
    assert one.mean().item() == pytest.approx(MEAN, abs=0.015)
    assert one.std().item() == pytest.approx(STD, rel=0.02)
    blurred = ConsistencySampler(1, Power())(ideal, noise, stream)
    assert blurred.std().item() < 0.1 * STD  # the expected image of pure noise is the mean


def test_further_steps_keep_the_gaussian() -> None:
    stream = RandomStream(range(20))
    samples = ConsistencySampler(4, Power())(end, stream.randn(10, 10, 10), stream)
    assert samples.mean().item() == pytest.approx(MEAN, abs=0.015)
    assert samples.std().item() == pytest.approx(STD, rel=0.02)


@pytest.fixture(scope="module")
def trained_on_the_ring() -> tuple[Consistency, nn.Module]:
    objective = Consistency(halvings=6.0, huber=0.03)
    torch.manual_seed(0)
    points, steps, lr = torch.Generator().manual_seed(0), 2000, 3e-3
    network = MLP((2, 1, 1), {}, width=64)
    average = copy.deepcopy(network).requires_grad_(False)
    optimizer = torch.optim.Adam(network.parameters(), lr=lr, betas=(0.9, 0.99), fused=True)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * min(1.0, 2 * (1 - step / steps))
        loss = objective.loss(network, ring(256, points)[:, :, None, None], None, step / steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        torch._foreach_lerp_(
            [*average.parameters()], [p.detach() for p in network.parameters()], 0.01 if step > 200 else 1.0
        )
    return objective, average


@pytest.mark.parametrize(("num_steps", "bar"), [(1, 4.0), (2, 2.0), (4, 2.0)])
def test_few_steps_draw_the_ring(trained_on_the_ring: Any, num_steps: int, bar: float) -> None:
    """``bar``: in distances of true points to true points; the long samplers of test_mixture stay below 2."""
    objective, network = trained_on_the_ring
    points = torch.Generator().manual_seed(1)
    truths = [ring(NUM_SAMPLES, points) for _ in range(NUM_DRAWS)]
    yardstick = mean_distance(lambda: ring(NUM_SAMPLES, points), truths)
    stream = RandomStream([2])

    class Generator(RandomStream):
        def randn_like(self, x: Tensor) -> Tensor:
            return stream.randn(*x.shape)[0]

    sampler = ConsistencySampler(num_steps, Power())
    with torch.no_grad():
        noise = stream.randn(NUM_DRAWS * NUM_SAMPLES, 2, 1, 1)[0]
        samples = sampler(lambda x, s: objective.denoise(network, x, s, None), noise, Generator([]))
    draws = iter(samples.flatten(1).split(NUM_SAMPLES))
    assert mean_distance(lambda: next(draws), truths) < bar * yardstick
    collapsed = mean_distance(lambda: torch.zeros(NUM_SAMPLES, 2), truths)  # a mean of all points in one step
    assert collapsed > 4 * bar * yardstick


def diffusion(objective: Any, sampler: Any) -> Diffusion:
    optimizer = functools.partial(torch.optim.Adam, lr=1e-3)
    network = functools.partial(MLP, (1, 2, 2), None, width=8)
    model = Diffusion(network, objective, sampler, optimizer, Constant(), (1, 2, 2), {})
    model.configure_model()
    return model.eval()


def test_it_goes_with_its_own_sampler_alone_and_has_no_likelihood() -> None:
    model = diffusion(Consistency(), ConsistencySampler(2, Power()))
    assert model.sample(3).shape == (3, 1, 2, 2)
    with pytest.raises(ConfigError, match="no likelihood"):
        model.log_likelihood(torch.zeros(1, 1, 2, 2))
    for objective, sampler in [(Consistency(), DPMSolver2M(5, Karras())), (EDM(), ConsistencySampler(2, Power()))]:
        with pytest.raises(ValueError, match="need each other"):
            diffusion(objective, sampler)


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="denoising"):
        Consistency(denoising=1.0)
    with pytest.raises(ValueError, match="huber"):
        Consistency(huber=0.0)

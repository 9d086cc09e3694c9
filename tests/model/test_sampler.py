"""Samplers on a Gaussian, whose ODE has a closed-form solution: orders of convergence, moments, costs."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from gaussian import MEAN, STD, flowed, ideal
from torch import Tensor

from genlab.model.sampler.ancestral import Ancestral
from genlab.model.sampler.ddim import DDIM
from genlab.model.sampler.dpm_solver import DPMSolver2M
from genlab.model.sampler.euler import Euler
from genlab.model.sampler.grid import CosineGrid, FlowGrid, Karras, LogUniform, Power, VariancePreserving
from genlab.model.sampler.heun import Heun
from genlab.seeding import RandomStream

GRID = Karras(sigma_min=1e-5, sigma_max=20.0)  # what the last step, to 0, gets wrong is below 1e-9
GRIDS = [Karras(), LogUniform(), VariancePreserving(), CosineGrid(), FlowGrid(), Power()]
ALL = [Ancestral, DDIM, DPMSolver2M, Euler, Heun]


def noise_of(num: int) -> tuple[Tensor, RandomStream]:
    stream = RandomStream(range(num))
    return stream.randn(1, 2, 2), stream


@pytest.mark.parametrize(
    ("make", "order"), [(Euler, 1), (DDIM, 1), (Heun, 2), (DPMSolver2M, 2)], ids=["euler", "ddim", "heun", "dpm-solver"]
)
def test_order_of_convergence(make: Callable, order: int) -> None:
    noise, stream = noise_of(4)
    noise = noise.double()
    exact = flowed(20.0 * noise, 20.0)
    steps = [64, 128, 256]
    errors = [(make(num, GRID)(ideal, noise, stream) - exact).abs().max().item() for num in steps]
    slope = math.log(errors[0] / errors[-1]) / math.log(steps[-1] / steps[0])
    assert slope == pytest.approx(order, abs=0.2)


def test_ddim_without_noise_is_euler_and_with_all_of_it_ancestral() -> None:
    grid = VariancePreserving()
    noise, _ = noise_of(3)
    draws = [RandomStream(range(3)) for _ in range(4)]
    euler, ddim = Euler(20, grid)(ideal, noise, draws[0]), DDIM(20, grid, eta=0.0)(ideal, noise, draws[1])
    torch.testing.assert_close(euler, ddim, rtol=1e-4, atol=1e-5)
    ancestral, ddim = Ancestral(20, grid)(ideal, noise, draws[2]), DDIM(20, grid, eta=1.0)(ideal, noise, draws[3])
    torch.testing.assert_close(ancestral, ddim, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="eta"):
        DDIM(20, grid, eta=1.5)


@pytest.mark.parametrize(
    "sampler",
    [
        Ancestral(1000, VariancePreserving()),
        DDIM(500, VariancePreserving(), eta=0.5),
        Heun(100, Karras(), s_churn=40.0),
    ],
    ids=["ancestral", "ddim-half", "heun-churn"],
)
def test_stochastic_samplers_match_mean_and_variance(sampler: Callable) -> None:
    stream = RandomStream(range(20))
    samples = sampler(ideal, stream.randn(10, 10, 10), stream)  # 20000 numbers
    assert samples.mean().item() == pytest.approx(MEAN, abs=0.015)  # 4 standard errors
    assert samples.std().item() == pytest.approx(STD, rel=0.03)  # 4 standard errors and the steps' 1 %


def test_ancestral_has_the_variance_of_its_recursion() -> None:
    """With few steps the sampler is too narrow by a known amount: D is linear here, so variances follow by hand."""

    def std_after(num_steps: int) -> float:
        sigmas = VariancePreserving()(num_steps).tolist()
        variance = sigmas[0] ** 2
        for t, s in pairwise(sigmas):
            gain = STD**2 / (STD**2 + t**2)
            variance = (gain + (s / t) ** 2 * (1 - gain)) ** 2 * variance + s**2 * (t**2 - s**2) / t**2
        return math.sqrt(variance)

    stream = RandomStream(range(20))
    samples = Ancestral(50, VariancePreserving())(ideal, stream.randn(10, 10, 10), stream)
    assert samples.std().item() == pytest.approx(std_after(50), rel=0.02)  # 4 standard errors
    assert std_after(50) < 0.9 * STD
    assert std_after(5000) == pytest.approx(STD, rel=0.002)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("make", ALL)
def test_every_sampler_on_every_grid(make: Callable, grid: Callable[[int], Tensor]) -> None:
    calls = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        assert sigma.shape == (3,)
        calls.append(sigma)
        return ideal(x, sigma)

    sampler = make(40, grid)
    noise, stream = noise_of(3)
    samples = sampler(denoise, noise, stream)
    assert samples.shape == noise.shape
    assert (samples - MEAN).abs().max() < 5 * STD
    assert len(calls) == sampler.evaluations


def test_churn_costs_no_evaluations_and_is_limited_to_its_interval() -> None:
    noise, _ = noise_of(2)
    plain = Heun(10, Karras())(ideal, noise, RandomStream([0, 1]))
    outside = Heun(10, Karras(), s_churn=5.0, s_min=100.0)(ideal, noise, RandomStream([0, 1]))
    inside = Heun(10, Karras(), s_churn=5.0)(ideal, noise, RandomStream([0, 1]))
    assert torch.equal(plain, outside)
    assert not torch.equal(plain, inside)


@pytest.mark.parametrize("grid", GRIDS)
def test_grids_fall_to_zero(grid: Callable[[int], Tensor]) -> None:
    sigmas = grid(10)
    assert sigmas.shape == (11,)
    assert sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()
    assert grid(1).tolist() == [sigmas[0].item(), 0]  # one step is all the way
    with pytest.raises(ValueError, match="num_steps"):
        Euler(0, grid)


def test_grids_match_the_papers() -> None:
    karras = Karras()(18)
    assert karras[0].item() == pytest.approx(80.0)
    assert karras[17].item() == pytest.approx(0.002)
    assert karras[8].item() == pytest.approx((80 ** (1 / 7) + 8 / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7)
    assert VariancePreserving()(2)[0].item() == pytest.approx(152.17, abs=0.01)  # sqrt(e^10.05 - 1)
    assert CosineGrid()(5)[0].item() == pytest.approx(80.0)
    power = Power()(2)
    assert power[1].item() == pytest.approx(80 / 2**7)
    assert Power()(1).tolist() == pytest.approx([80.0, 0.0])
    flow = FlowGrid()(10)
    assert flow[0].item() == pytest.approx(80.0)
    assert (1 / (1 + flow)).diff().std().item() < 1e-12  # equal steps of time

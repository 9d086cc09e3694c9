"""Operators against their matrices, and DDRM and DPS against what a Gaussian of independent pixels makes exact."""

import itertools
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from genlab.editing.ddrm import ddrm
from genlab.editing.dps import agreeing, posterior
from genlab.editing.operators import LUMA, Blur, Gray, Known, Operator, SuperResolution
from genlab.model.sampler.ancestral import Ancestral
from genlab.model.sampler.grid import Karras
from genlab.model.sampler.heun import Heun
from genlab.seeding import RandomStream

STD, MEAN = 0.5, 0.3
SHAPE = (3, 4, 4)
UNKNOWN = (torch.arange(16) % 3 == 0).view(1, 1, 4, 4)
OPERATORS = [SuperResolution(2), Gray(), Known(UNKNOWN), Blur(0.7, 4, 4)]
NAMED = pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: type(operator).__name__)


def gaussian(x: Tensor, sigma: Tensor) -> Tensor:
    """D(x; sigma) of N(MEAN, STD^2)."""
    gain = STD**2 / (STD**2 + sigma[:, None, None, None] ** 2)
    return MEAN + gain * (x - MEAN)


def matrix(function: Any, *shape: int) -> Tensor:
    """Of a linear function of images (N, *shape), float64."""
    basis = torch.eye(torch.Size(shape).numel(), dtype=torch.float64).view(-1, *shape)
    return function(basis).flatten(1).T  # type: ignore[no-any-return]


@NAMED
def test_operators_are_what_their_decomposition_says(operator: Operator) -> None:
    a = matrix(operator.measure, *SHAPE)
    y_shape = operator.measure(torch.zeros(1, *SHAPE)).shape[1:]
    inverse = matrix(operator.pseudo_inverse, *y_shape)
    torch.testing.assert_close(inverse, torch.linalg.pinv(a, rtol=1e-6), rtol=1e-6, atol=1e-9)
    for f in (lambda s: 3.0 + s, lambda s: torch.where(s > 0, 1.0 / s.clamp(min=1e-3), 0.0)):
        values, vectors = torch.linalg.eigh(a.T @ a)
        expected = vectors @ torch.diag(f(values.clamp(min=0).sqrt().where(values > 1e-9, 0.0))) @ vectors.T
        torch.testing.assert_close(matrix(partial(operator.spectral, f=f), *SHAPE), expected, rtol=1e-5, atol=1e-6)
    assert operator.largest == pytest.approx(float(torch.linalg.svdvals(a)[0]))


def test_a_blur_is_a_gaussian_one() -> None:
    point = torch.zeros(1, 1, 64, 64)
    point[0, 0, 5, 60] = 1.0
    blurred = Blur(0.7, 64, 64).measure(point)[0, 0]
    places = torch.arange(64)
    rows, columns = (torch.minimum((places - at) % 64, (at - places) % 64) for at in (5, 60))
    weights = torch.exp(-0.5 * (rows[:, None] ** 2 + columns**2) / 0.7**2)
    torch.testing.assert_close(blurred, weights / weights.sum(), rtol=0, atol=2e-3)  # waves below 3 % are left out
    assert sum(LUMA) == pytest.approx(1)
    with pytest.raises(ValueError, match=r"deblur=0 must be above 0"):
        Blur(0, 8, 8)
    with pytest.raises(ValueError, match=r"super_resolution=1 must be 2 or more"):
        SuperResolution(1)


def measured(operator: Operator, rows: int) -> Tensor:
    """The same picture for each row."""
    image = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return operator.measure(image.expand(rows, -1, -1, -1))


def streamed(rows: int) -> RandomStream:
    return RandomStream.for_samples(0, range(rows))


@NAMED
def test_results_have_the_measurement(operator: Operator) -> None:
    y = measured(operator, 3)
    sampler = Ancestral(20, Karras())
    x = ddrm(gaussian, sampler, operator, y, SHAPE, streamed(3))
    torch.testing.assert_close(operator.measure(x), y, rtol=0, atol=1e-4)
    assert (x[0] - x[1]).abs().max() > 0.1 or isinstance(operator, Blur)
    for steps in (sampler, Heun(8, Karras())):
        stream = streamed(3)
        drawn = steps(posterior(gaussian, operator, y), stream.randn(*SHAPE), stream)
        torch.testing.assert_close(operator.measure(agreeing(operator, y, drawn)), y, rtol=0, atol=1e-4)


@pytest.mark.parametrize("operator", [SuperResolution(2), Known(UNKNOWN)], ids=lambda operator: type(operator).__name__)
def test_what_is_not_measured_is_the_models(operator: Operator) -> None:
    """Of independent pixels: the directions that A does not see are N(MEAN, STD^2), whatever y is."""
    rows = 200
    y = measured(operator, rows)
    stream = streamed(rows)
    sampler = Heun(20, Karras())
    of_ddrm = ddrm(gaussian, Ancestral(60, Karras()), operator, y, SHAPE, streamed(rows), eta=0.0)
    of_dps = sampler(posterior(gaussian, operator, y), stream.randn(*SHAPE), stream)
    for x, error in ((of_ddrm, 0.15), (of_dps, 0.12)):  # by few steps
        rest = x - operator.pseudo_inverse(operator.measure(x))
        expected = MEAN - operator.pseudo_inverse(operator.measure(torch.full((1, *SHAPE), MEAN)))
        torch.testing.assert_close(rest.mean(dim=0), expected[0], rtol=0, atol=0.15)  # 4 standard errors
        share = 12 / 48 if isinstance(operator, SuperResolution) else float((~UNKNOWN).float().mean())
        assert float((rest - expected).square().mean()) == pytest.approx((1 - share) * STD**2, rel=error)


@pytest.mark.parametrize("method", ["ddrm", "dps"])
def test_a_noisy_measurement_of_independent_pixels(method: str) -> None:
    """The posterior has variance 1 / (1 / STD^2 + 1 / noise^2). DPS of such a model is exact; DDRM's mean is between
    the measurement and that."""
    rows, noise = 200, 0.4
    operator = Known(torch.zeros(1, 1, 4, 4, dtype=torch.bool))
    y = measured(operator, rows)
    stream = streamed(rows)
    gain = STD**2 / (STD**2 + noise**2)
    exact = MEAN + gain * (y[0] - MEAN)
    if method == "dps":
        x = Heun(40, Karras())(posterior(gaussian, operator, y, noise), stream.randn(*SHAPE), stream)
        torch.testing.assert_close(x.mean(dim=0), exact, rtol=0, atol=0.1)
        assert float((x - exact).square().mean()) == pytest.approx(gain * noise**2, rel=0.08)
    else:
        x = ddrm(gaussian, Ancestral(60, Karras()), operator, y, SHAPE, stream, noise)
        between = (x.mean(dim=0) - y[0]) / (MEAN - y[0])
        assert 0.1 < float(between.median()) < 1 - 0.1
        assert float((x - y).square().mean()) < float((MEAN - y).square().mean()) + STD**2


def test_the_moments_of_ddrm_are_those_of_its_equations() -> None:
    """One pixel, one step of two levels after another: eq. 4 and 5 by hand."""
    noise, eta, eta_b, levels = 0.4, 0.6, 0.9, [3.0, 1.0, 0.1, 0.0]
    mean, variance, y = 0.7, levels[0] ** 2 - noise**2, 0.7
    for t, s in itertools.pairwise(levels):
        gain = STD**2 / (STD**2 + t**2)  # D = MEAN + gain (x - MEAN), linear in x
        if s >= noise:
            a, b, new = (1 - eta_b) * gain, eta_b * y + (1 - eta_b) * (1 - gain) * MEAN, s**2 - (noise * eta_b) ** 2
        else:
            c = (1 - eta**2) ** 0.5 * s / noise
            a, b, new = (1 - c) * gain, c * y + (1 - c) * (1 - gain) * MEAN, (eta * s) ** 2
        mean, variance = a * mean + b, a**2 * variance + new
    operator, rows = Known(torch.zeros(1, 1, 4, 4, dtype=torch.bool)), 300
    sampler = Ancestral(3, lambda num_steps: torch.tensor(levels, dtype=torch.float64))
    target = torch.full((rows, *SHAPE), y)
    x = ddrm(gaussian, sampler, operator, target, SHAPE, streamed(rows), noise, eta, eta_b)
    assert float(x.mean()) == pytest.approx(mean, abs=4 * (variance / x.numel()) ** 0.5)
    assert float(x.var()) == pytest.approx(variance, rel=0.05)
    for wrong in ({"noise": -1.0}, {"eta": 2.0}, {"eta_b": -0.1}):
        with pytest.raises(ValueError, match="must be 0 or more, eta="):
            ddrm(gaussian, sampler, operator, target, SHAPE, streamed(rows), **wrong)

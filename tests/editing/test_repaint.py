"""Inpainting by a denoiser: a correlated Gaussian, whose D, conditionals and the moments of the algorithm are known."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from genlab.editing.repaint import evaluated_steps, repaint, walk
from genlab.editing.steps import levels_of, through
from genlab.model.sampler.ancestral import Ancestral
from genlab.model.sampler.ddim import DDIM
from genlab.model.sampler.dpm_solver import DPMSolver2M
from genlab.model.sampler.euler import Euler
from genlab.model.sampler.grid import Karras
from genlab.model.sampler.heun import Heun
from genlab.seeding import RandomStream

MEAN = 0.3
PLACES = torch.arange(4)
COVARIANCE = 0.25 * 0.7 ** (PLACES[:, None] - PLACES).abs().double()
UNKNOWN = torch.tensor([True, False, True, False])
IMAGE = torch.tensor([0.0, 0.9, 0.0, -0.5])
GRID = Karras(0.02, 5.0, 3.0)


def gain(sigma: float) -> Tensor:
    return COVARIANCE @ torch.linalg.inv(COVARIANCE + sigma**2 * torch.eye(4).double())


def ideal(x: Tensor, sigma: Tensor) -> Tensor:
    """D(x; sigma) of N(MEAN, COVARIANCE): (N, 1, 1, 4)."""
    return (MEAN + (x.flatten(1).double() - MEAN) @ gain(float(sigma[0])).T).view_as(x).to(x.dtype)


class Many(RandomStream):
    """As many rows as one likes, from one generator: quick, where rows need no numbers of their own."""

    def __init__(self, rows: int):
        super().__init__([])
        self.rows, self.generator = rows, torch.Generator().manual_seed(0)

    def __len__(self) -> int:
        return self.rows

    def randn(self, *shape: int) -> Tensor:
        return torch.randn(self.rows, *shape, generator=self.generator)


def inpainted(sampler: Any, rows: int, denoise: Any = ideal, **settings: Any) -> Tensor:
    image = IMAGE.view(1, 1, 1, 4).expand(rows, -1, -1, -1)
    return repaint(denoise, sampler, image, UNKNOWN.view(1, 1, 1, 4), Many(rows), **settings).flatten(1)


def moments(levels: list[float], resamplings: int, begun: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean and covariance of x in the end, by algorithm 1 in matrices: the posterior of Ho et al. (2020), eq. 6 and 7,
    known pixels from q(x_t | x_0), and noise again. ``begun``: what noise is added to in the beginning."""
    known, eye = (~UNKNOWN).double(), torch.eye(4).double()
    image = IMAGE.double()

    def with_known(mean: Tensor, covariance: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        of_rest = torch.outer(1 - known, 1 - known) * covariance
        return torch.where(UNKNOWN, mean, image), of_rest + sigma**2 * torch.diag(known)

    begun = torch.zeros(4) if begun is None else begun
    mean, covariance = with_known(begun.double(), levels[0] ** 2 * eye, levels[0])
    for t, s in pairwise(levels):
        kept = (s / t) ** 2 * eye + (1 - (s / t) ** 2) * gain(t)
        offset = (1 - (s / t) ** 2) * (eye - gain(t)) @ torch.full((4,), MEAN).double()
        for again in range(resamplings if s > 0 else 1):
            if again:
                covariance = covariance + (t**2 - s**2) * eye
            mean, covariance = kept @ mean + offset, kept @ covariance @ kept.T + s**2 * (1 - (s / t) ** 2) * eye
            mean, covariance = with_known(mean, covariance, s)
    return mean, covariance


def conditional() -> tuple[Tensor, Tensor]:
    """Mean and covariance of the unknown given the known."""
    within, across = COVARIANCE[UNKNOWN][:, UNKNOWN], COVARIANCE[UNKNOWN][:, ~UNKNOWN]
    weights = across @ torch.linalg.inv(COVARIANCE[~UNKNOWN][:, ~UNKNOWN])
    return MEAN + weights @ (IMAGE[~UNKNOWN].double() - MEAN), within - weights @ across.T


def test_the_way_back_and_forth() -> None:
    assert walk(3, 1, 1) == [0, 1, 2, 3]
    assert walk(3, 2, 1) == [0, 1, 0, 1, 2, 1, 2, 3]
    assert walk(5, 3, 2) == [0, 1, 2, 0, 1, 2, 0, 1, 2, 3, 4, 2, 3, 4, 2, 3, 4, 5]
    assert evaluated_steps(5, 3, 2) == 13
    for way in (walk(20, 5, 1), walk(20, 5, 7)):
        assert {there - here for here, there in pairwise(way)} == {1, -1 if way[2] == 0 else -7}
        assert way[-1] == 20
    for wrong in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="must be 1 or more"):
            walk(3, *wrong)


@pytest.mark.parametrize("jump_length", [1, 3])
def test_known_pixels_have_the_noise_of_their_level(jump_length: int) -> None:
    seen: dict[float, list[Tensor]] = {}

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        seen.setdefault(float(sigma[0]), []).append((x.flatten(1) - IMAGE)[:, ~UNKNOWN])
        return ideal(x, sigma)

    sampler = Ancestral(7, GRID)
    result = inpainted(sampler, 3000, denoise, resamplings=3, jump_length=jump_length)
    assert torch.equal(result[:, ~UNKNOWN], IMAGE[~UNKNOWN].expand(3000, -1))
    assert sorted(seen, reverse=True) == pytest.approx(levels_of(sampler)[:-1])
    assert sum(map(len, seen.values())) == evaluated_steps(7, 3, jump_length)
    for sigma, errors in seen.items():
        for error in errors:
            assert float(error.std()) == pytest.approx(sigma, rel=0.035)  # neighbors differ by a fifth or more


@pytest.mark.parametrize(("resamplings", "strength"), [(1, 1.0), (8, 1.0), (2, 0.6)])
def test_results_have_the_moments_of_the_algorithm(resamplings: int, strength: float) -> None:
    sampler, rows = Ancestral(20, GRID), 4000
    found = inpainted(sampler, rows, resamplings=resamplings, strength=strength).double()
    levels = levels_of(sampler)[round(20 * (1 - strength)) :]
    mean, covariance = moments(levels, resamplings, None if strength == 1 else IMAGE)
    assert (found.mean(dim=0) - mean).abs().max() < 4 * (covariance.diag().max() / rows) ** 0.5
    torch.testing.assert_close(torch.cov(found.T), covariance, rtol=0, atol=4 * 0.25 * (2 / rows) ** 0.5)


def test_below_a_strength_of_1_the_picture_is_begun_with() -> None:
    far, image = {}, IMAGE.clone()
    for value in (0.0, 2.0):
        image[UNKNOWN] = value
        for strength in (0.0, 0.4, 1.0):
            picture = image.view(1, 1, 1, 4).expand(500, -1, -1, -1)
            found = repaint(ideal, Euler(10, GRID), picture, UNKNOWN.view(1, 1, 1, 4), Many(500), 1, 1, strength)
            far[value, strength] = found.flatten(1)[:, UNKNOWN].mean()
            assert torch.equal(found.flatten(1)[:, ~UNKNOWN], IMAGE[~UNKNOWN].expand(500, -1))
    assert (far[0.0, 0.0], far[2.0, 0.0]) == (0, 2)
    assert 0.3 < far[2.0, 0.4] - far[0.0, 0.4] < 1.7
    assert far[0.0, 1.0] == far[2.0, 1.0]


def test_the_algorithm_comes_near_to_the_conditional() -> None:
    """Closer with more steps and repetitions; without any, known pixels are hardly heeded."""
    expected, spread = conditional()
    distances = []
    for steps, resamplings in ((40, 1), (40, 8), (100, 30)):
        mean, covariance = moments(Ancestral(steps, GRID).grid(steps).tolist(), resamplings)
        distances.append(float((mean[UNKNOWN] - expected).abs().max()))
    assert distances[0] > 0.15
    assert distances[1] < distances[0] / 2
    assert distances[2] < 0.02
    torch.testing.assert_close(covariance[UNKNOWN][:, UNKNOWN], spread, rtol=0.15, atol=0.01)


@pytest.mark.parametrize("sampler", [Euler, Heun, DDIM, DPMSolver2M])
def test_steps_of_any_sampler_come_near_to_it(sampler: Any) -> None:
    rows = 600
    found = inpainted(sampler(30, GRID), rows, resamplings=10).double()[:, UNKNOWN]
    expected, spread = conditional()
    assert (found.mean(dim=0) - expected).abs().max() < 0.13  # 0.3 without repetitions
    assert (found.var(dim=0) / spread.diag() - 1).abs().max() < 0.25


def test_a_part_of_a_sampler_is_the_end_of_its_way() -> None:
    noise, stream = torch.randn(3, 1, 1, 4, generator=torch.Generator().manual_seed(0)), Many(3)
    for sampler in (Euler(6, GRID), DDIM(6, GRID), Heun(6, GRID)):
        levels = levels_of(sampler)
        whole = sampler(ideal, noise, stream)
        x = through(sampler, levels[:4], ideal, levels[0] * noise, stream)
        torch.testing.assert_close(through(sampler, levels[3:], ideal, x, stream), whole)
        assert levels_of(sampler) == levels
    churning = Heun(6, GRID, s_churn=3.0)  # a share of all its steps, in a part too
    whole = churning(ideal, noise, Many(3))
    stream = Many(3)
    x = through(churning, levels[:4], ideal, levels[0] * noise, stream)
    torch.testing.assert_close(through(churning, levels[3:], ideal, x, stream), whole)

"""SDEdit, inversion and interpolation by a denoiser: an exact mixture of Gaussians, and the closed form of one."""

from functools import partial

import pytest
import torch
from torch import Tensor

from genlab.editing.inversion import STEPS, follow, ode_levels, of_noise, to_noise, way
from genlab.editing.sdedit import sdedit
from genlab.editing.steps import levels_of, steps_made
from genlab.model.sampler.ancestral import Ancestral
from genlab.model.sampler.euler import Euler
from genlab.model.sampler.grid import FlowGrid, Karras, VariancePreserving
from genlab.model.sampler.heun import Heun
from genlab.seeding import RandomStream

STD, MEAN = 0.5, 0.3
SHAPE = (1, 6, 6)


def gaussian(x: Tensor, sigma: Tensor) -> Tensor:
    """D(x; sigma) of N(MEAN, STD^2)."""
    gain = STD**2 / (STD**2 + sigma[:, None, None, None] ** 2)
    return MEAN + gain * (x - MEAN)


CENTERS = torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(0)) * 2 - 1
NARROW = 0.2


def mixture(x: Tensor, sigma: Tensor, centers: Tensor = CENTERS) -> Tensor:
    """D(x; sigma) of five Gaussians of standard deviation 0.2."""
    variance = NARROW**2 + sigma[:, None, None, None] ** 2
    distance = (x[:, None] - centers).square().flatten(2).sum(dim=2)  # (N, K)
    shares = (-0.5 * distance / variance[:, :, 0, 0]).softmax(dim=1)
    posteriors = centers + NARROW**2 / variance[:, None] * (x[:, None] - centers)
    return (shares[:, :, None, None, None] * posteriors).sum(dim=1)


def pictures(count: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return CENTERS[torch.arange(count) % 5] + NARROW * torch.randn(count, *SHAPE, generator=generator)


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Decibels of each row, whose values span 2."""
    return 10 * torch.log10(4 / (a - b).square().flatten(1).mean(dim=1))


@pytest.mark.parametrize("grid", [Karras(), FlowGrid(), VariancePreserving()])
def test_a_picture_comes_back_from_its_noise(grid: object) -> None:
    """Whatever levels a sampler has: only the highest of them counts."""
    levels = ode_levels(Heun(18, grid))  # type: ignore[arg-type]
    assert len(levels) == STEPS + 1
    image = pictures()
    noise = to_noise(mixture, image, levels)
    assert psnr(of_noise(mixture, noise, levels), image).min() >= 35
    assert abs(float(noise.std()) - 1) < 0.15  # in-distribution, as far as 288 numbers can tell
    assert torch.equal(to_noise(mixture, image[2:3], levels)[0], noise[2])


def test_the_error_is_of_second_order() -> None:
    image = pictures()
    errors = []
    for steps in (40, 80):
        levels = ode_levels(Heun(18, Karras()), steps)
        errors.append(float((of_noise(mixture, to_noise(mixture, image, levels), levels) - image).abs().max()))
    assert errors[1] < errors[0] / 3.5
    with pytest.raises(ValueError, match="steps=0 must be 1 or more"):
        ode_levels(Heun(18, Karras()), 0)


def test_of_a_part_of_the_way_a_picture_comes_back_and_another_stays_nearer() -> None:
    image, whole = pictures(), ode_levels(Heun(18, Karras()))
    moved = []
    for strength in (0.3, 0.5, 1.0):
        levels = ode_levels(Heun(18, Karras()), STEPS, strength)
        assert levels == whole[: round(strength * STEPS) + 1]
        noise = to_noise(mixture, image, levels)
        assert psnr(of_noise(mixture, noise, levels), image).min() >= 35
        other = partial(mixture, centers=CENTERS + 0.5)
        moved.append(float((of_noise(other, noise, levels) - image).abs().mean()))
    assert moved == sorted(moved)
    assert moved[0] < moved[-1] / 2
    assert len(ode_levels(Heun(18, Karras()), STEPS, 0.0)) == 1


def test_the_noise_of_a_gaussian_is_known() -> None:
    """Its ODE scales the distance from the mean by the standard deviation at each level."""
    image, levels = pictures(), ode_levels(Euler(18, Karras(sigma_max=20.0)), 200)
    assert levels == sorted(levels)
    assert levels[-1] == pytest.approx(20)
    expected = MEAN + (image - MEAN) * ((STD**2 + 20**2) / (STD**2 + levels[0] ** 2)) ** 0.5
    torch.testing.assert_close(follow(gaussian, image, levels), expected, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(20 * to_noise(gaussian, image, levels), expected, rtol=2e-3, atol=2e-3)


def test_with_a_mask_the_rest_stays_on_its_way() -> None:
    """Under another model: known pixels are the picture's to the last bit, and at each level what they were on the way
    there. Where all is unknown there is no mask."""
    image, levels = pictures(), ode_levels(Heun(18, Karras()), 12)
    other, passed = partial(mixture, centers=CENTERS + 0.5), way(mixture, image, levels)
    unknown = torch.zeros(1, 1, 6, 6, dtype=torch.bool)
    unknown[..., 2:5] = True
    noise = to_noise(mixture, image, levels)
    seen: list[Tensor] = []

    def watched(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append(x)
        return other(x, sigma)

    found = of_noise(watched, noise, levels, unknown, passed)
    known = ~unknown.expand(8, *SHAPE)
    assert torch.equal(found[known], image[known])
    assert (found - image)[~known].abs().mean() > 0.2
    assert len(seen) == 24  # of two evaluations a step, the first is where it begins
    for here, x in zip(range(12, 0, -1), seen[::2], strict=True):
        assert torch.equal(x[known], passed[here][known])
    everywhere = of_noise(other, noise, levels, torch.ones_like(unknown), passed)
    assert torch.equal(everywhere, of_noise(other, noise, levels))


def test_another_model_makes_another_picture_of_the_noise() -> None:
    image, levels = pictures(), ode_levels(Heun(18, Karras()))
    other = partial(mixture, centers=CENTERS + 0.5)
    moved = of_noise(other, to_noise(mixture, image, levels), levels) - image
    torch.testing.assert_close(moved.mean(), torch.tensor(0.5), rtol=0, atol=0.15)


def test_sdedit_keeps_what_the_strength_says() -> None:
    sampler = Ancestral(40, Karras())
    image = CENTERS[:1].expand(64, -1, -1, -1)
    stream = partial(RandomStream.for_samples, 0, range(64))
    assert torch.equal(sdedit(mixture, sampler, image, 0.0, stream()), image)
    distances = [
        float((sdedit(mixture, sampler, image, strength, stream()) - image).square().mean().sqrt())
        for strength in (0.1, 0.3, 0.5, 1.0)
    ]
    assert distances == sorted(distances)
    assert distances[0] < 0.05
    far = float((sampler(mixture, stream().randn(*SHAPE), stream()) - image).square().mean().sqrt())
    assert distances[-1] == pytest.approx(far, rel=0.15)  # nothing of it is left


def test_sdedit_of_a_gaussian_is_known() -> None:
    """Noise of level s, and the ODE back: what is left of the picture is STD / (STD^2 + s^2)^(1/2)."""
    sampler = Heun(60, Karras(sigma_max=20.0))
    image = torch.full((200, 1, 4, 4), -0.4)
    found = sdedit(gaussian, sampler, image, 0.5, RandomStream.for_samples(0, range(200)))
    sigma = levels_of(sampler)[30]
    scale = STD / (STD**2 + sigma**2) ** 0.5
    assert float(found.mean()) == pytest.approx(MEAN + scale * (-0.4 - MEAN), abs=0.02)
    assert float(found.std()) == pytest.approx(scale * sigma, rel=0.04)


def test_a_strength_is_a_share_of_the_steps() -> None:
    assert [steps_made(strength, 8) for strength in (0, 0.001, 0.5, 1)] == [0, 1, 4, 8]
    for wrong in (-0.1, 1.1):
        with pytest.raises(ValueError, match=r"is outside \[0, 1\]"):
            steps_made(wrong, 8)

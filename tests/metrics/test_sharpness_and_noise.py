"""Blur and noise of pictures for which both are known."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import chi2, norm

from genlab.metrics import noise_level
from genlab.metrics.noise_level import NoiseLevel, flattest_deviation
from genlab.metrics.sharpness import Sharpness, steepness


def steps(low: int = 0, high: int = 255) -> np.ndarray:
    image = np.full((1, 1, 32, 32), low, dtype=np.uint8)
    image[..., 16:] = high
    return image


def blurred(images: np.ndarray, sigma: float) -> np.ndarray:
    return np.rint(gaussian_filter(images.astype(float), (0, 0, sigma, sigma))).astype(np.uint8)


def test_a_step_is_as_steep_as_can_be_whatever_its_contrast() -> None:
    for image in (steps(), steps(100, 120), steps(255, 0), np.repeat(steps(), 3, axis=1)):
        assert steepness(torch.from_numpy(image)).item() == 1.0
    assert steepness(torch.full((1, 3, 8, 8), 9, dtype=torch.uint8)).item() == 0.0


@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_a_blurred_step_rises_by_what_the_normal_distribution_says(sigma: float) -> None:
    expected = 1 - 2 * norm.cdf(-0.5 / sigma)  # between the pixels on either side of the edge
    assert steepness(torch.from_numpy(blurred(steps(), sigma))).item() == pytest.approx(expected, abs=0.02)


def test_sharpness_is_of_the_median_sample_beside_the_tenth_blurriest_real_one() -> None:
    metric = Sharpness()
    real = np.concatenate([blurred(steps(), sigma) for sigma in [1.0] * 2 + [0.5] * 8])
    metric.update({"image": torch.from_numpy(real)}, real=True)
    metric.update({"image": torch.from_numpy(blurred(steps(), 2.0)).expand(3, -1, -1, -1)}, real=False)
    metric.update({"image": torch.from_numpy(steps())}, real=False)  # one sharp one does not help
    two, one = (steepness(torch.from_numpy(blurred(steps(), sigma))).item() for sigma in (2.0, 1.0))
    assert metric.compute()["sharpness"].item() == pytest.approx(two / one)


def test_noise_is_told_in_flat_parts_and_edges_are_none() -> None:
    rng = np.random.default_rng(0)
    assert pytest.approx(np.sqrt(chi2.ppf(0.1, 8) / 8), abs=1e-5) == noise_level._OF_NOISE
    for sigma in (0.02, 0.05):
        noisy = np.rint(steps(100, 150).repeat(50, axis=0) + rng.normal(0, 255 * sigma, (50, 1, 32, 32)))
        found = flattest_deviation(torch.from_numpy(noisy.clip(0, 255).astype(np.uint8))).mean().item()
        assert found == pytest.approx(sigma, rel=0.05)
    clean = torch.from_numpy(np.concatenate([steps(), steps(3, 77), blurred(steps(), 1.0)]))
    assert flattest_deviation(clean).tolist() == [0.0, 0.0, 0.0]


def test_noise_level_is_what_samples_have_beyond_the_data() -> None:
    rng = np.random.default_rng(0)
    metric = NoiseLevel()
    for real, sigma in ((True, 0.03), (False, 0.05)):
        noisy = np.rint(128 + rng.normal(0, 255 * sigma, (60, 3, 32, 32))).astype(np.uint8)
        metric.update({"image": torch.from_numpy(noisy)}, real=real)
    assert metric.compute()["noise_level"].item() == pytest.approx(0.04, rel=0.05)
    metric.update({"image": torch.full((200, 3, 32, 32), 9, dtype=torch.uint8)}, real=False)
    assert metric.compute()["noise_level"].item() == 0.0  # less noise than data is none

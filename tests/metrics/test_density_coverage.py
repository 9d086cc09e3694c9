"""Density and coverage, against brute force, closed cases and their expectation."""

import numpy as np
import pytest
import torch
from torch import Tensor

from genlab.errors import ConfigError, DataError
from genlab.metrics import density_coverage
from genlab.metrics.density_coverage import DensityCoverage, density_and_coverage, expected_coverage

GENERATOR = torch.Generator().manual_seed(0)
REAL = torch.randn(83, 12, generator=GENERATOR)
FAKE = 0.8 * torch.randn(61, 12, generator=GENERATOR) + 0.1


def brute_force(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[float, float]:
    """The definitions, one distance at a time."""
    among = np.array([[np.linalg.norm(a - b) for b in real] for a in real])
    radii = [sorted(np.delete(row, i))[k - 1] for i, row in enumerate(among)]
    inside = np.array([[np.linalg.norm(a - b) < radius for b in fake] for a, radius in zip(real, radii, strict=True)])
    return inside.sum() / (k * len(fake)), inside.any(axis=1).mean()


def measured(real: Tensor, fake: Tensor, k: int = 5) -> list[float]:
    metric = DensityCoverage(k)
    metric.update({"features": real}, real=True)
    for rows in fake.split(17):
        metric.update({"features": rows}, real=False)
    return [float(value) for value in metric.compute().values()]


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("chunk", [7, 1000])
def test_equals_brute_force(k: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(density_coverage, "_CHUNK", chunk)
    expected = brute_force(REAL.double().numpy(), FAKE.double().numpy(), k)
    assert min(expected) > 0.1
    assert measured(REAL, FAKE, k) == pytest.approx(expected, rel=1e-12)


def test_the_data_themselves_and_others_far_from_them() -> None:
    """Also where a large mean would leave float32 distances nothing: they are taken about the data's mean."""
    for shift in (0.0, 1000.0):
        assert measured(REAL + shift, REAL + shift) == [1.0, 1.0]
        assert measured(REAL + shift, REAL[torch.randperm(83)] + shift) == [1.0, 1.0]
        assert measured(REAL, REAL + 50 + shift) == [0.0, 0.0]


def test_one_dense_spot_has_density_and_no_coverage() -> None:
    """All samples in the one place that k + 1 examples are nearest to."""
    line = torch.arange(20.0)[:, None]
    density, coverage = measured(line, torch.full((30, 1), 10.2), k=2)
    # radii are 1, 2 at both ends: 10 and 11 reach 10.2
    assert (density, coverage) == (1.0, 0.1)


def test_expectations_for_samples_of_the_same_distribution() -> None:
    """Density 1, coverage by counting orders, over 300 draws; within 4 standard errors."""
    generator = torch.Generator().manual_seed(1)
    draws = []
    for _ in range(300):
        real, fake = torch.randn(40, 3, generator=generator), torch.randn(30, 3, generator=generator)
        draws.append([float(value) for value in density_and_coverage(real, fake, 3)])
    mean, error = np.mean(draws, axis=0), np.std(draws, axis=0) / 300**0.5
    expected = np.array([1.0, expected_coverage(40, 30, 3)])
    assert (error < 0.02).all()
    assert (abs(mean - expected) < 4 * error).all()
    assert expected_coverage(10**6, 10**6, 5) == pytest.approx(1 - 2**-5, abs=1e-5)


def test_refusals() -> None:
    with pytest.raises(DataError, match="more than 5 real examples and a generated one, got 5 and 61"):
        measured(REAL[:5], FAKE)
    with pytest.raises(ConfigError, match="neighborhood must be a whole number >= 1, got 0"):
        DensityCoverage(0)

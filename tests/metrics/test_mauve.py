"""The divergence frontier: closed cases, its integral by quadrature, and the way from features to histograms."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from genlab.errors import ConfigError, DataError
from genlab.metrics.mauve import Mauve, frontier_area


def by_quadrature(p: np.ndarray, q: np.ndarray, c: float) -> float:
    """The area below y(x) as an integral over the weight w of p in the mixture, from the derivative of KL(q | r)."""

    def kl(a: np.ndarray, b: np.ndarray) -> float:
        return sum(x * math.log(x / y) if y > 0 else math.inf for x, y in zip(a, b, strict=True) if x > 0)

    def slice_of_area(w: float) -> float:
        r = w * p + (1 - w) * q
        slope = -sum(b * (a - b) / m for a, b, m in zip(p, q, r, strict=True) if b > 0)  # of KL(q | r)
        return math.exp(-c * kl(p, r)) * c * slope * math.exp(-c * kl(q, r))

    return quad(slice_of_area, 0, 1, epsabs=1e-12)[0] + math.exp(-c * kl(q, p))  # and the level part, of height 1


@pytest.mark.parametrize("c", [0.5, 1.0, 5.0])
def test_the_area_is_the_integral(c: float) -> None:
    rng = np.random.default_rng(0)
    for size, concentration in ((2, 1.0), (5, 0.3), (50, 0.5)):
        p, q = rng.dirichlet(np.full(size, concentration), size=2)
        assert frontier_area(p, q, c) == pytest.approx(by_quadrature(p, q, c), abs=1e-6)
        assert frontier_area(p, q, c) == pytest.approx(frontier_area(q, p, c), abs=1e-8)
    p, q = np.array([0.7, 0.2, 0.1, 0.0]), np.array([0.1, 0.3, 0.0, 0.6])  # each has what the other lacks
    assert frontier_area(p, q, c) == pytest.approx(by_quadrature(p, q, c), abs=1e-6)


def test_closed_cases() -> None:
    p = np.array([0.2, 0.0, 0.8])
    assert frontier_area(p, p, 5.0) == 1.0
    for c in (1.0, 2.0, 5.0):  # nothing in common: y = (1 - x^(1/c))^c, whose area is c B(c, c + 1)
        expected = math.gamma(c + 1) ** 2 / math.gamma(2 * c + 1)
        assert frontier_area(np.array([1.0, 0.0]), np.array([0.0, 1.0]), c) == pytest.approx(expected, abs=1e-6)


def measured(metric: Mauve, real: Tensor, fake: Tensor) -> float:
    metric.reset()
    for side, rows in ((True, real), (False, fake)):
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(3))
        for part in order.split(17):
            metric.update({"features": rows[part], "index": part}, real=side)
    return float(metric.compute()["mauve"])


def groups(counts: list[int], seed: int = 0) -> Tensor:
    """So many points near each of some unit vectors of 8 dimensions."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.cat([torch.eye(8)[i].expand(n, 8) for i, n in enumerate(counts)])
    return (3 + seed) * (places + 0.001 * torch.randn(places.shape, generator=generator))  # length does not count


def test_clusters_of_features_become_the_histograms() -> None:
    p, q = [30, 10, 0, 20], [10, 10, 40, 0]
    expected = by_quadrature(np.array(p) / 60, np.array(q) / 60, 5.0)
    assert measured(Mauve(4), groups(p), groups(q, 1)) == pytest.approx(expected, abs=1e-6)
    assert measured(Mauve(3), groups(p), groups(p, 1)) == 1.0
    assert measured(Mauve(2), groups([30, 0]), groups([0, 50])) == pytest.approx(14400 / 3628800, abs=1e-6)


def test_near_one_source_is_better_than_another() -> None:
    def draw(seed: int, shift: float = 0.0, count: int = 300) -> Tensor:
        points = torch.randn(count, 16, generator=torch.Generator().manual_seed(seed))
        points[:, 0] += shift
        return points

    values = [measured(Mauve(), draw(0), draw(1, shift)) for shift in (0.0, 1.0, 3.0)]
    assert values[0] > 0.85
    assert values[0] > values[1] + 0.05
    assert values[1] > values[2] + 0.2
    assert measured(Mauve(), draw(0), draw(1, 1.0)) == values[1], "k-means begins from a seed"
    narrow = draw(1)
    narrow[:] = narrow[:1]
    assert measured(Mauve(), draw(0), narrow) < 0.3, "one text said three hundred times"


def test_components_hold_the_variance_asked_for() -> None:
    """What has little variance has no part in the clusters; all of it, when all is asked for."""
    features = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([10.0, 10.0, 0.01])
    metric = Mauve(explained=0.9)
    changed = features.clone()
    changed[:, 2] = changed[:, 2].flip(0)
    assert np.array_equal(metric.clusters(features.numpy(), 5), metric.clusters(changed.numpy(), 5))
    assert len(set(metric.clusters(np.ones((6, 3)), 2))) == 1, "no variance at all"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_clusters": 1}, "num_clusters must be a whole number >= 2 or null, got 1"),
        ({"scale": 0.0}, "scale=0.0 must be above 0"),
        ({"explained": 1.5}, r"explained=1.5 in \(0, 1\]"),
        ({"restarts": 0}, "restarts=0 >= 1"),
    ],
)
def test_options_are_checked(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Mauve(**options)


def test_more_clusters_than_texts_are_refused() -> None:
    with pytest.raises(DataError, match="num_clusters=50 needs as many texts of each side, got 60 and 40"):
        measured(Mauve(50), groups([60]), groups([40]))

"""KID and precision/recall are torch-fidelity's numbers; what is ours is order, sizes and dtype."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from genlab.errors import DataError
from genlab.metrics import kid
from genlab.metrics.kid import KID, jackknife_variance
from genlab.metrics.precision_recall import PrecisionRecall

GENERATOR = torch.Generator().manual_seed(0)
REAL = torch.randn(90, 16, generator=GENERATOR)
FAKE = 1.2 * torch.randn(70, 16, generator=GENERATOR) + 0.2


def measure(metric, real=REAL, fake=FAKE, batch_size=32, shuffled=False) -> dict[str, float]:
    for features, is_real in ((real, True), (fake, False)):
        order = torch.randperm(len(features)) if shuffled else torch.arange(len(features))
        for rows in order.split(batch_size):
            metric.update({"features": features[rows], "index": rows}, real=is_real)
    return {name: float(value) for name, value in metric.compute().items()}


def test_kid_equals_torch_fidelity() -> None:
    ours = measure(KID(subset_size=50, num_subsets=20))
    theirs = kid_features_to_metric(FAKE, REAL, kid_subset_size=50, kid_subsets=20, verbose=False)
    assert ours["kid"] == pytest.approx(theirs[KEY_METRIC_KID_MEAN], rel=1e-5)  # theirs is float32
    assert ours["kid_std"] == pytest.approx(theirs[KEY_METRIC_KID_STD], rel=1e-4)


def test_kid_closed_form_on_one_subset() -> None:
    """With every example in the subset KID is the unbiased estimate of Gretton et al. (2012, eq. 3)."""
    real, fake = REAL[:70].double(), FAKE.double()
    kernel = lambda x, y: (x @ y.T / 16 + 1) ** 3  # noqa: E731
    off_diagonal = lambda k: (k.sum() - k.trace()) / (70 * 69)  # noqa: E731
    expected = off_diagonal(kernel(real, real)) + off_diagonal(kernel(fake, fake)) - 2 * kernel(real, fake).mean()
    metric = KID()
    assert measure(metric, real=REAL[:70])["kid"] == pytest.approx(float(expected), rel=1e-9)
    assert metric.settings() == {"subset_size": 70, "num_subsets": 1, "seed": 2020}


def test_kid_subsets_are_never_larger_than_a_side_and_say_so() -> None:
    metric = KID(subset_size=1000, num_subsets=5)
    measure(metric)
    assert metric.settings() == {"subset_size": 70, "num_subsets": 5, "seed": 2020}


# --- the standard error -----------------------------------------------------------------------------------------------


def mmd2(x: Tensor, y: Tensor) -> float:
    """The unbiased estimate (Gretton et al. 2012, eq. 3), pair by pair."""
    x, y = x.double(), y.double()
    k = lambda a, b: ((a @ b) / len(a) + 1) ** 3  # noqa: E731
    within = [
        sum(k(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j) / (len(s) * (len(s) - 1))
        for s in (x, y)
    ]
    return float(within[0] + within[1] - 2 * sum(k(a, b) for a in x for b in y) / (len(x) * len(y)))


def test_standard_error_equals_leaving_out_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kid, "_CHUNK", 4)
    x, y = REAL[:9], FAKE[:7]
    variance = 0.0
    for side, other in ((x, y), (y, x)):
        left_out = [mmd2(torch.cat([side[:i], side[i + 1 :]]), other) for i in range(len(side))]
        variance += (len(side) - 1) * np.var(left_out)
    assert jackknife_variance(x, y, most=9) == pytest.approx(variance, rel=1e-9)
    assert measure(KID(subset_size=7, num_subsets=1), x[:7], y)["kid_se"] == pytest.approx(
        jackknife_variance(x[:7], y, 7) ** 0.5, rel=1e-9
    )


@pytest.mark.parametrize("subset_size", [1000, 40])
def test_standard_error_is_the_spread_over_independent_draws(subset_size: int) -> None:
    """Of Gaussians with a shift, 200 times: that of the number as it is, from all examples or a few subsets; and the
    jackknife of the first examples is scaled to all."""
    generator = torch.Generator().manual_seed(3)
    draws = []
    for _ in range(200):
        x, y = torch.randn(120, 8, generator=generator), torch.randn(100, 8, generator=generator) + 0.7
        draws.append(measure(KID(subset_size, num_subsets=3), x, y, batch_size=200))
    errors = [draw["kid_se"] for draw in draws]
    spread = float(np.std([draw["kid"] for draw in draws], ddof=1))
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(spread, rel=0.2)
    x, y = (torch.randn(n, 8, generator=generator) + shift for n, shift in ((2000, 0.0), (1000, 0.7)))
    assert jackknife_variance(x, y, most=500) == pytest.approx(jackknife_variance(x, y, most=2000), rel=0.3)


@pytest.mark.parametrize("make", [lambda: KID(subset_size=50, num_subsets=5), PrecisionRecall])
def test_batches_and_their_order_do_not_matter(make) -> None:
    assert measure(make(), batch_size=7, shuffled=True) == pytest.approx(measure(make()), rel=1e-9)


def test_precision_and_recall_equal_torch_fidelity() -> None:
    ours = measure(PrecisionRecall())
    theirs = prc_features_to_metric(FAKE, REAL, prc_neighborhood=3, save_cpu_ram=False, verbose=False)
    assert ours == pytest.approx({name: theirs[name] for name in ("precision", "recall")}, rel=1e-6)


def test_collapsed_samples_lower_recall_and_wild_ones_precision() -> None:
    perfect = torch.randn(90, 16, generator=torch.Generator().manual_seed(1))
    good, collapsed = measure(PrecisionRecall(), fake=perfect), measure(PrecisionRecall(), fake=0.1 * perfect)
    wild = measure(PrecisionRecall(), fake=10 * perfect)
    assert min(good.values()) > 0.7
    assert collapsed["recall"] < 0.1 < 0.9 < collapsed["precision"]
    assert wild["precision"] < 0.1


def test_too_few_examples() -> None:
    with pytest.raises(DataError, match="at least 3 examples"):
        measure(KID(), fake=FAKE[:2])
    with pytest.raises(DataError, match="more than 3 examples on each side, got 90 real, 3 generated"):
        measure(PrecisionRecall(), fake=FAKE[:3])

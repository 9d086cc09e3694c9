"""KID and precision/recall are torch-fidelity's numbers; what is ours is order, sizes and dtype."""

import pytest
import torch
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from genlab.errors import DataError
from genlab.metrics.kid import KID
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
    with pytest.raises(DataError, match="at least 2 examples"):
        measure(KID(), fake=FAKE[:1])
    with pytest.raises(DataError, match="more than 3 examples on each side, got 90 real, 3 generated"):
        measure(PrecisionRecall(), fake=FAKE[:3])

"""The inception score against its definition, its extremes and torch-fidelity; sFID against FID."""

import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_isc import isc_features_to_metric

from genlab.errors import ConfigError, DataError
from genlab.metrics.fid import FID
from genlab.metrics.inception_score import InceptionScore
from genlab.metrics.sfid import SpatialFID

LOGITS = 3 * torch.randn(103, 12, generator=torch.Generator().manual_seed(0))


def score(logits: Tensor, splits: int = 10, batch_size: int = 16, shuffled: bool = False) -> dict[str, float]:
    metric = InceptionScore(splits)
    order = torch.randperm(len(logits)) if shuffled else torch.arange(len(logits))
    metric.update({"logits": 100 * torch.eye(12), "index": torch.arange(12)}, real=True)  # has no say
    for rows in order.split(batch_size):
        metric.update({"logits": logits[rows], "index": rows}, real=False)
    return {name: float(value) for name, value in metric.compute().items()}


@pytest.mark.parametrize(("logits", "expected"), [
    (100 * torch.eye(12), 12.0),  # sure, and each class once
    (100 * torch.eye(12)[:1].repeat(12, 1), 1.0),  # sure, always of the same
    (torch.zeros(12, 12), 1.0),  # never sure
    (100 * torch.eye(12).repeat_interleave(2, dim=0)[:12], 6.0),  # half of the classes
])  # fmt: skip
def test_extremes(logits: Tensor, expected: float) -> None:
    assert score(logits, splits=1) == pytest.approx(
        {"inception_score": expected, "inception_score_std": 0.0}, rel=1e-9, abs=1e-9
    )


def test_is_the_exponential_of_the_information_that_an_image_gives_of_its_class() -> None:
    """H(y) - H(y|x) in nats (Salimans et al. 2016, section 4)."""
    p = LOGITS.double().softmax(dim=1)
    entropy = lambda q: -(q * q.log()).sum(dim=-1)  # noqa: E731
    expected = (entropy(p.mean(dim=0)) - entropy(p).mean()).exp()
    assert score(LOGITS, splits=1)["inception_score"] == pytest.approx(float(expected), rel=1e-9)


def test_equals_torch_fidelity_and_knows_no_order_of_arrival() -> None:
    theirs = isc_features_to_metric(LOGITS, splits=10, shuffle=False)
    expected = {"inception_score": theirs["inception_score_mean"], "inception_score_std": theirs["inception_score_std"]}
    assert score(LOGITS) == pytest.approx(expected, rel=1e-9)
    assert score(LOGITS, batch_size=7, shuffled=True) == pytest.approx(expected, rel=1e-9)


def test_too_few_samples_for_the_splits() -> None:
    with pytest.raises(DataError, match=r"at least 10 samples.*got 9.*metrics.inception_score.splits=1"):
        score(LOGITS[:9])
    assert score(LOGITS[:9], splits=1)["inception_score"] > 1
    with pytest.raises(ConfigError, match="splits=0"):
        InceptionScore(splits=0)


def test_sfid_is_fid_of_what_is_spatial() -> None:
    real, fake = torch.randn(2, 40, 6, generator=torch.Generator().manual_seed(1))
    spatial, plain = SpatialFID(), FID()
    for rows, is_real in ((real, True), (fake, False)):
        spatial.update({"spatial": rows, "features": torch.zeros(40, 2)}, real=is_real)
        plain.update({"features": rows}, real=is_real)
    assert spatial.compute() == {"sfid": plain.compute()["fid"]}
    assert spatial.reads == {"spatial"}
    assert set(spatial.directions) == {"sfid"}

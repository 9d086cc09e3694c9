"""FID within classes: a mean of FIDs, which sees what one FID does not."""

import pytest
import torch
from torch import Tensor

from genlab.errors import DataError
from genlab.metrics.fid import FID
from genlab.metrics.intra_class_fid import IntraClassFID

GENERATOR = torch.Generator().manual_seed(0)
LABELS = torch.arange(90) % 3
REAL = torch.randn(90, 8, generator=GENERATOR) + 5 * LABELS[:, None]
FAKE = 1.1 * torch.randn(90, 8, generator=GENERATOR) + 5 * LABELS[:, None]


def fid(real: Tensor, fake: Tensor) -> float:
    metric = FID()
    metric.update({"features": real}, real=True)
    metric.update({"features": fake}, real=False)
    return float(metric.compute()["fid"])


def measured(fake: Tensor = FAKE, labels: Tensor = LABELS, real: Tensor = REAL, order: Tensor | None = None) -> float:
    metric = IntraClassFID()
    for x, y, is_real in ((real, LABELS, True), (fake, labels, False)):
        rows = torch.arange(len(x)) if order is None else order
        for part in rows.split(32):
            metric.update({"features": x[part], "label": y[part], "index": part}, real=is_real)
    return float(metric.compute()["intra_fid"])


def test_is_the_mean_of_the_classes_fids() -> None:
    expected = sum(fid(REAL[c == LABELS], FAKE[c == LABELS]) for c in range(3)) / 3
    assert measured() == pytest.approx(expected, rel=1e-12)
    assert measured(order=torch.randperm(90, generator=GENERATOR)) == measured()


def test_one_class_is_fid() -> None:
    metric = IntraClassFID()
    for x, is_real in ((REAL, True), (FAKE, False)):
        none = torch.tensor([-1, -1])  # who has no label is left out
        metric.update({"features": x[:2] + 99, "label": none, "index": torch.arange(2)}, is_real)
        metric.update({"features": x, "label": torch.full((90,), 4), "index": torch.arange(2, 92)}, is_real)
    assert float(metric.compute()["intra_fid"]) == pytest.approx(fid(REAL, FAKE), rel=1e-12)


def test_sees_swapped_classes_where_fid_does_not() -> None:
    swapped = (LABELS + 1) % 3
    assert measured(REAL, LABELS) == pytest.approx(0.0, abs=1e-9)
    assert measured(REAL, swapped) > 100  # 8 * 5^2 between neighbors


def test_refusals() -> None:
    lonely = torch.where(torch.arange(90) == 5, 7, LABELS)
    with pytest.raises(DataError, match="at least 2 examples of each class: class 7 has 0 real, 1 generated"):
        measured(labels=lonely)
    metric = IntraClassFID()
    for real in (True, False):
        metric.update({"features": REAL, "label": torch.full((90,), -1), "index": torch.arange(90)}, real)
    with pytest.raises(DataError, match="intra_fid needs labels; all are -1"):
        metric.compute()
    with pytest.raises(DataError, match="intra_fid needs labels and the data have none"):
        IntraClassFID().update({"features": REAL, "index": torch.arange(90)}, real=True)

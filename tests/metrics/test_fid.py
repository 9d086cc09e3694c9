"""FID against closed forms, torch-fidelity, and itself in other orders, batches and numbers of ranks."""

import copy

import numpy as np
import pytest
import torch
from pytorch_fid.fid_score import calculate_frechet_distance
from torch import Tensor
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

from genlab.errors import DataError
from genlab.metrics.fid import FID
from genlab.metrics.frechet import frechet_distance


def normal(n: int, d: int, seed: int) -> Tensor:
    """Correlated, off-center vectors with a decaying spectrum."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=generator) / torch.arange(1, d + 1).sqrt()
    return torch.randn(n, d, generator=generator) @ mixing + torch.randn(d, generator=generator)


def fid(real: Tensor, fake: Tensor, batch_size: int = 10**6) -> float:
    metric = FID()
    for side, is_real in ((real, True), (fake, False)):
        for features in side.split(batch_size):
            metric.update({"features": features}, real=is_real)
    return float(metric.compute()["fid"])


def torch_fidelity_fid(real: Tensor, fake: Tensor) -> float:
    statistics = [fid_features_to_statistics(features.double()) for features in (real, fake)]
    return fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID]


def reflected(variances: Tensor, axes: Tensor) -> Tensor:
    """Q diag(variances) Q^T with Q a product of reflections: without the cost of a general one."""
    cov = variances.diag()
    for axis in axes:
        cov = cov - 2 * axis.outer(axis @ cov)
        cov = cov - 2 * (cov @ axis).outer(axis)
    return cov


@pytest.mark.parametrize("d", [2, 64, 2048])
def test_closed_form_of_commuting_covariances(d: int) -> None:
    """With C1 = Q diag(a) Q^T, C2 = Q diag(b) Q^T the distance is |m1 - m2|^2 + sum (sqrt a - sqrt b)^2."""
    generator = torch.Generator().manual_seed(d)
    axes = torch.nn.functional.normalize(torch.randn(3, d, generator=generator, dtype=torch.float64))
    a, b = (torch.rand(d, generator=generator, dtype=torch.float64) * 3 + 0.01 for _ in range(2))
    mean1, mean2 = (torch.randn(d, generator=generator, dtype=torch.float64) for _ in range(2))
    expected = (mean1 - mean2).square().sum() + (a.sqrt() - b.sqrt()).square().sum()
    distance = frechet_distance(mean1, reflected(a, axes), mean2, reflected(b, axes))
    assert distance == pytest.approx(float(expected), rel=1e-8)


def test_closed_form_in_two_dimensions_without_commuting() -> None:
    """tr (C1 C2)^(1/2) of 2x2 matrices is sqrt(tr C1 C2 + 2 sqrt(det C1 C2))."""
    cov1 = torch.tensor([[2.0, 0.7], [0.7, 1.0]], dtype=torch.float64)
    cov2 = torch.tensor([[0.5, -0.3], [-0.3, 3.0]], dtype=torch.float64)
    product = cov1 @ cov2
    expected = cov1.trace() + cov2.trace() - 2 * (product.trace() + 2 * product.det().sqrt()).sqrt()
    assert frechet_distance(torch.zeros(2), cov1, torch.zeros(2), cov2) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("small", [1e-8, 0.0])
def test_closed_form_where_half_of_the_variances_are_tiny(small: float) -> None:
    """Condition 1e8 in both, at random angles to the axes: a plain root of the eigenvalues of C1 C2 is off by 1e-8."""
    generator = torch.Generator().manual_seed(0)
    q = torch.linalg.qr(torch.randn(256, 256, generator=generator, dtype=torch.float64)).Q
    a, b = (torch.tensor([large, small * large], dtype=torch.float64).repeat(128) for large in (1.0, 2.0))
    expected = (a.sqrt() - b.sqrt()).square().sum()
    distance = frechet_distance(torch.zeros(256), q @ a.diag() @ q.T, torch.zeros(256), q @ b.diag() @ q.T)
    assert distance == pytest.approx(float(expected), rel=1e-10)


@pytest.mark.parametrize("still", [True, False])
def test_features_that_never_change(still: bool) -> None:
    """Zero covariances, of one side or of both: what is left is the means' distance and the other's variance."""
    real, fake = torch.ones(9, 4), torch.ones(9, 4) if still else normal(9, 4, seed=0)
    expected = (fake.double().mean(dim=0) - 1).square().sum() + fake.double().var(dim=0).sum()
    assert fid(real, fake) == pytest.approx(float(expected), abs=1e-12)
    assert fid(fake, real) == pytest.approx(float(expected), abs=1e-12)


def test_equal_sets_are_at_zero() -> None:
    x = normal(300, 64, seed=0)
    assert abs(fid(x, x)) < 1e-9


@pytest.mark.parametrize(("n", "d"), [(400, 64), (50, 64), (40, 128)])
def test_equals_torch_fidelity_on_the_same_features(n: int, d: int) -> None:
    real, fake = normal(n, d, seed=1), normal(n + 3, d, seed=2)
    assert fid(real, fake) == pytest.approx(torch_fidelity_fid(real, fake), rel=1e-6)


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")
def test_equals_pytorch_fid_on_the_same_features() -> None:
    real, fake = normal(400, 64, seed=1), normal(403, 64, seed=2)
    moments = [moment for x in (real.double().numpy(), fake.double().numpy()) for moment in (x.mean(0), np.cov(x.T))]
    assert fid(real, fake) == pytest.approx(float(calculate_frechet_distance(*moments)), rel=1e-4)


def test_fewer_examples_than_dimensions_is_exact() -> None:
    """The thin factors give what the singular values of the data themselves give; the dense route agrees to 1e-6."""
    real, fake = normal(40, 200, seed=3).double(), normal(60, 200, seed=4).double()
    x, y = ((z - z.mean(dim=0)) / (len(z) - 1) ** 0.5 for z in (real, fake))
    exact = (real.mean(dim=0) - fake.mean(dim=0)).square().sum() + x.square().sum() + y.square().sum()
    exact -= 2 * torch.linalg.svdvals(x @ y.T).sum()
    assert fid(real, fake) == pytest.approx(float(exact), rel=1e-11)
    dense = frechet_distance(real.mean(dim=0), real.T.cov(), fake.mean(dim=0), fake.T.cov())
    assert float(dense) == pytest.approx(float(exact), rel=1e-6)


@pytest.mark.parametrize(("few", "many"), [(30, 40), (30, 300), (300, 30), (100, 101), (101, 100), (2, 2), (2, 500)])
def test_few_examples_have_the_distance_of_the_dense_eigenproblem(few: int, many: int) -> None:
    """100 dimensions, with fewer examples than that on one side or both, against the roots of eigenvalues of C1 C2."""
    real, fake = normal(few, 100, seed=3).double(), normal(many, 100, seed=4).double()
    cov1, cov2 = real.T.cov(), fake.T.cov()
    values = torch.linalg.eigvals(cov1 @ cov2).real
    values = values.where(values > 1e-14 * values.max(), 0.0)  # a root of rounding is not small
    expected = (real.mean(dim=0) - fake.mean(dim=0)).square().sum() + cov1.trace() + cov2.trace()
    assert fid(real, fake, 16) == pytest.approx(float(expected - 2 * values.sqrt().sum()), rel=1e-6)


def test_no_covariance_is_made_of_few_examples() -> None:
    """Of 20 and 30 examples of 10^5 dimensions it would take 80 GB."""
    x = torch.zeros(30, 10**5)
    x[:, :5] = normal(30, 5, seed=1)
    assert fid(x[:20], x, 7) == pytest.approx(fid(x[:20, :5], x[:, :5]), rel=1e-9)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batch_size_does_not_matter(batch_size: int) -> None:
    real, fake = normal(101, 16, seed=5), normal(101, 16, seed=6)
    assert fid(real, fake, batch_size) == pytest.approx(fid(real, fake), rel=1e-9)


def test_order_does_not_matter_and_a_large_mean_does_not_hurt() -> None:
    real, fake = normal(101, 16, seed=5).double() + 1e6, normal(101, 16, seed=6).double() + 1e6
    shuffled = fake[torch.randperm(101, generator=torch.Generator().manual_seed(0))]
    assert fid(real, shuffled, 10) == pytest.approx(fid(real - 1e6, fake - 1e6), rel=1e-8)


@pytest.mark.parametrize("dims", [16, 50, 120])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_merge_exactly(ranks: int, dims: int) -> None:
    """n = 101 does not divide: rank r holds examples r, r + ranks, ... and nothing is padded. With 50 dimensions and 2
    ranks the first has moments, and the other features still; with 120 all have features."""
    real, fake = normal(101, dims, seed=5), normal(101, dims, seed=6)
    parts = [FID() for _ in range(ranks)]
    for rank, part in enumerate(parts):
        part.update({"features": real[rank::ranks]}, real=True)
        part.update({"features": fake[rank::ranks]}, real=False)
    merged = copy.deepcopy(parts[0])
    for state in merged._defaults:  # as torchmetrics does: every rank's state, then reduce
        setattr(merged, state, merged._reductions[state]([x for part in parts for x in getattr(part, state)]))
    assert float(merged.compute()["fid"]) == pytest.approx(fid(real, fake), rel=1e-9)


@pytest.mark.parametrize(
    "convert", [lambda m: m.half(), lambda m: m.set_dtype(torch.float16), lambda m: m.to(torch.bfloat16)]
)
def test_no_dtype_conversion_touches_the_moments(convert) -> None:
    real, fake = normal(101, 16, seed=5), normal(101, 16, seed=6)
    metric = FID()
    metric.update({"features": real}, real=True)
    metric = convert(metric)
    metric.update({"features": fake}, real=False)
    assert metric.compute()["fid"].dtype == torch.float64
    assert float(metric.compute()["fid"]) == fid(real, fake)
    metric.reset()
    for features, is_real in ((fake, True), (real, False)):
        metric.update({"features": features}, real=is_real)
    assert metric.real_mean[0].dtype == torch.float64
    assert float(metric.compute()["fid"]) == fid(fake, real), "what comes after a reset, too"


def test_too_few_examples() -> None:
    metric = FID()
    metric.update({"features": torch.zeros(2, 4)}, real=True)
    metric.update({"features": torch.zeros(1, 4)}, real=False)
    with pytest.raises(DataError, match="at least 2 generated examples, got 1"):
        metric.compute()


def test_biased_by_the_sample_count_as_the_documentation_says() -> None:
    """Two sets from one 64-d standard normal: about +1.8 at n = 1000."""
    x = torch.randn(2, 1000, 64, generator=torch.Generator().manual_seed(0))
    assert 1.0 < fid(x[0], x[1]) < 3.0

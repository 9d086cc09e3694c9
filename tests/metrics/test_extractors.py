"""Extractors: the same features everywhere, and a hash that says when they are not."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from genlab.data.digits import Digits
from genlab.errors import DataError
from genlab.metrics.base import FeatureExtractor
from genlab.metrics.extractor.digits import WEIGHTS, DigitsFeatures
from genlab.metrics.extractor.random_conv import RandomConv
from genlab.metrics.fid import FID


def noise(n: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8))


def features_of(extractor: FeatureExtractor, images: Tensor) -> Tensor:
    return extractor.extract(images, frozenset({"features"}))["features"]


@pytest.mark.parametrize(("make", "shape"), [(RandomConv, (3, 32, 32)), (DigitsFeatures, (1, 16, 16))])
def test_features_are_float32_named_by_their_number_and_reproducible(make, shape) -> None:
    images = noise(10, *shape)
    features = features_of(make(), images)
    assert features.dtype == torch.float32
    assert features.shape == (10, int(re.sub(r"\D", "", make().name)))
    assert not features.requires_grad
    assert torch.equal(features, features_of(make(), images))
    assert make().fingerprint() == make().fingerprint()
    apart = torch.cat([features_of(make(), x) for x in images.split(3)])
    torch.testing.assert_close(features, apart, rtol=1e-4, atol=1e-5)


def test_autocast_and_training_elsewhere_do_not_touch_features() -> None:
    images, extractor = noise(4, 3, 16, 16), RandomConv()
    plain = features_of(extractor, images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(features_of(extractor, images), plain)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 33, 47), (1, 64, 64)])
def test_random_features_of_any_size_are_of_order_one(shape) -> None:
    features = features_of(RandomConv(), noise(50, *shape))
    assert features.isfinite().all()
    assert 0.1 < features.square().mean().sqrt() < 10


def test_random_weights_are_pinned() -> None:
    """Integer arithmetic: these digits hold on every machine and every version of torch."""
    assert RandomConv().fingerprint() == "816f85f9cd65369d"
    assert RandomConv(seed=1).fingerprint() != RandomConv().fingerprint()


def test_gray_images_count_as_rgb_with_equal_channels() -> None:
    gray = noise(5, 1, 16, 16)
    assert torch.equal(features_of(RandomConv(), gray), features_of(RandomConv(), gray.repeat(1, 3, 1, 1)))


def test_digits_fingerprint_follows_the_weights(tmp_path: Path) -> None:
    state = load_file(WEIGHTS)
    state["standardise.running_mean"][0] += 1e-6
    save_file(state, tmp_path / "other.safetensors")
    assert DigitsFeatures(str(tmp_path / "other.safetensors")).fingerprint() != DigitsFeatures().fingerprint()
    assert WEIGHTS.stat().st_size < 300_000


def test_digits_features_treat_training_and_held_out_images_alike() -> None:
    """Both have about unit variance and their FID is near the bias of their counts: the extractor did not memorise."""
    data = Digits()
    train, val = (features_of(DigitsFeatures(), torch.from_numpy(data.table(s).images)) for s in ("train", "val"))
    assert val.var(dim=0).mean() == pytest.approx(float(train.var(dim=0).mean()), rel=0.1)
    metric = FID()
    metric.update({"features": val}, real=True)
    metric.update({"features": train}, real=False)
    assert float(metric.compute()["fid"]) < 1.5  # of a trace of 64


def test_digits_features_refuse_other_images() -> None:
    with pytest.raises(DataError, match=r"images of shape \(1, 16, 16\), got \(3, 32, 32\).*extractor=random"):
        features_of(DigitsFeatures(), noise(1, 3, 32, 32))

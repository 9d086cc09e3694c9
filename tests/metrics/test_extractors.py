"""Extractors: the same features everywhere, and a hash that says when they are not."""

import inspect
import re
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch_fidelity import calculate_metrics
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from genlab.data.digits import Digits
from genlab.errors import DataError, ResourceError
from genlab.metrics.base import FeatureExtractor
from genlab.metrics.extractor import weights as weights_module
from genlab.metrics.extractor.digits import WEIGHTS, DigitsFeatures
from genlab.metrics.extractor.inception import Inception
from genlab.metrics.extractor.random_conv import RandomConv
from genlab.metrics.fid import FID


def noise(n: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8))


def features_of(extractor: FeatureExtractor, images: Tensor) -> Tensor:
    return extractor.extract(images, frozenset({"features"}))["features"]


def classes_of_noise(n: int, seed: int) -> Tensor:
    """Blocky colour images that differ in more than their noise."""
    coarse = noise(n, 3, 4, 4, seed=seed)
    return coarse.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random Inception weights, with batch norms that keep activations alive."""
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        loader = f"{FeatureExtractorInceptionV3.__module__}.load_state_dict_from_url"
        patch.setattr(loader, lambda url, progress: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    for name, tensor in network.state_dict().items():
        if name.endswith("conv.weight"):
            torch.nn.init.kaiming_normal_(tensor, nonlinearity="relu")
    torch.save(network.state_dict(), path)
    return path


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


def test_grey_images_count_as_rgb_with_equal_channels() -> None:
    grey = noise(5, 1, 16, 16)
    assert torch.equal(features_of(RandomConv(), grey), features_of(RandomConv(), grey.repeat(1, 3, 1, 1)))


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


def test_inception_equals_torch_fidelity_end_to_end(weights: Path, tmp_path: Path) -> None:
    """FID of two folders of PNG files: theirs from the files, ours from the pixels."""
    images = {"real": classes_of_noise(12, seed=1), "fake": classes_of_noise(12, seed=2)}
    metric, extractor = FID(), Inception(weights=str(weights))
    for name, pixels in images.items():
        (tmp_path / name).mkdir()
        for i, image in enumerate(pixels):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / name / f"{i:03d}.png")
        metric.update({"features": features_of(extractor, pixels)}, real=name == "real")
    theirs = calculate_metrics(
        input1=str(tmp_path / "fake"),
        input2=str(tmp_path / "real"),
        fid=True,
        feature_extractor_weights_path=str(weights),
        batch_size=12,
        cuda=False,
        save_cpu_ram=True,  # no worker processes
        cache=False,
        verbose=False,
    )["frechet_inception_distance"]
    ours = float(metric.compute()["fid"])
    assert ours > 1e-3
    assert ours == pytest.approx(theirs, rel=1e-4)


def test_missing_inception_weights_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(request, timeout):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(weights_module.urllib.request, "urlopen", offline)
    expected = (
        "the Inception weights for FID are not here and cannot be downloaded. "
        f"Put weights-inception-2015-12-05-6726825d.pth into {tmp_path}, "
        "or use metrics/extractor=random (no download)."
    )
    with pytest.raises(ResourceError, match=re.escape(expected)):
        Inception(cache=str(tmp_path))
    with pytest.raises(ResourceError, match=r"are not at /nowhere/w\.pth"):
        Inception(weights="/nowhere/w.pth")
    assert inspect.signature(Inception).parameters["timeout"].default <= 5


def test_inception_weights_that_hold_code_are_refused(tmp_path: Path) -> None:
    torch.save({"layer": Path("/")}, tmp_path / "evil.pth")
    with pytest.raises(ResourceError, match="genlab loads weights only"):
        Inception(weights=str(tmp_path / "evil.pth"))

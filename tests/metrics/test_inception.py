"""Inception: torch-fidelity's features, logits and classes to rounding, and its numbers end to end from PNG files."""

import hashlib
import inspect
import re
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch_fidelity import calculate_metrics
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from genlab.errors import ResourceError
from genlab.metrics.base import EXTRACTED
from genlab.metrics.extractor import weights as weights_module
from genlab.metrics.extractor.fingerprint import network_fingerprint
from genlab.metrics.extractor.inception import Inception
from genlab.metrics.extractor.tensorflow_resize import resize_like_tensorflow
from genlab.metrics.extractor.weights import Published, load_tensors
from genlab.metrics.fid import FID
from genlab.metrics.inception_score import InceptionScore
from genlab.metrics.kid import KID
from genlab.metrics.precision_recall import PrecisionRecall

N = 10


def blocky(n: int, seed: int) -> Tensor:
    """Color images that differ in more than their noise."""
    coarse = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, 3, 4, 4), dtype=np.uint8))
    return coarse.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)


IMAGES = {"real": blocky(N, seed=1), "fake": blocky(N, seed=2)}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random weights, with batch norms that do something and keep activations alive."""
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        loader = f"{FeatureExtractorInceptionV3.__module__}.load_state_dict_from_url"
        patch.setattr(loader, lambda url, progress: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    for name, tensor in network.state_dict().items():
        if name.endswith("conv.weight"):
            nn.init.kaiming_normal_(tensor, nonlinearity="relu")
        elif name.endswith(("bn.weight", "running_var")):
            nn.init.uniform_(tensor, 0.5, 1.5)
        elif name.endswith(("bn.bias", "running_mean")):
            nn.init.normal_(tensor, std=0.1)
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def extractor(weights: Path) -> Inception:
    return Inception(weights=str(weights))


@pytest.fixture(scope="module")
def given(extractor: Inception) -> dict[str, dict[str, Tensor]]:
    """All that is given of all images."""
    return {name: extractor.extract(images, EXTRACTED) for name, images in IMAGES.items()}


@pytest.fixture(scope="module")
def theirs(weights: Path) -> FeatureExtractorInceptionV3:
    return FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], str(weights))


def test_equals_torch_fidelitys_own_network(given, theirs) -> None:
    seen = []
    hook = theirs.Mixed_6d.branch1x1.register_forward_hook(lambda module, x, y: seen.append(y))
    features, logits = theirs(IMAGES["real"])
    hook.remove()
    ours = given["real"]
    assert {name: rows.shape[1] for name, rows in ours.items()} == {"features": 2048, "logits": 1008, "spatial": 2023}
    expected = {"features": features, "logits": logits, "spatial": seen[0][:, :7].flatten(1)}
    for name, rows in ours.items():
        assert rows.dtype == torch.float32
        assert ((rows - expected[name]).norm(dim=1) < 1e-5 * expected[name].norm(dim=1)).all()


def test_gives_what_is_wanted_and_no_more(extractor: Inception, given) -> None:
    some = IMAGES["real"][:1]
    for wanted in ({"logits"}, {"spatial"}):
        apart = extractor.extract(some, frozenset(wanted))
        assert set(apart) == wanted
        for name, rows in apart.items():
            torch.testing.assert_close(rows, given["real"][name][:1], rtol=1e-4, atol=1e-4)


def test_interim_features_are_in_bfloat16_and_named_so(weights: Path, extractor: Inception, given) -> None:
    assert extractor.interim() is None
    asked = Inception(weights=str(weights), interim_bfloat16=True)
    assert asked.fingerprint() == extractor.fingerprint()
    assert asked.name == extractor.name
    quick = asked.interim()
    assert quick is not None
    assert quick.interim() is None
    assert quick.name == "inception2048_bf16"
    assert quick.fingerprint() != asked.fingerprint()
    assert quick.preprocessing != asked.preprocessing
    for name, rows in quick.extract(IMAGES["real"][:2], EXTRACTED).items():
        exact = given["real"][name][:2]
        assert rows.dtype == torch.float32
        apart = (rows - exact).norm(dim=1) / exact.norm(dim=1)
        assert (apart > 1e-5).all()
        assert (apart < 0.02).all()
    assert asked.network.fc.weight.dtype == torch.float32


def test_gray_images_count_as_rgb(extractor: Inception) -> None:
    gray = IMAGES["real"][:1, :1]
    wanted = frozenset({"spatial"})
    assert torch.equal(extractor.extract(gray, wanted)["spatial"],
                       extractor.extract(gray.repeat(1, 3, 1, 1), wanted)["spatial"])  # fmt: skip


def test_fingerprint_is_of_the_weights_in_the_file(extractor: Inception, theirs) -> None:
    """Not of the folded ones: those may differ in the last digit between processors."""
    assert extractor.fingerprint() == network_fingerprint(theirs, Inception.preprocessing)


@pytest.mark.parametrize("shape", [(8, 8), (33, 47), (299, 299), (400, 310)])
def test_resize_is_torch_fidelitys_bit_for_bit(shape) -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, *shape), dtype=np.uint8))
    expected = interpolate_bilinear_2d_like_tensorflow1x(images.float(), size=(299, 299), align_corners=False)
    assert torch.equal(resize_like_tensorflow(images, 299), expected)


def test_numbers_equal_torch_fidelitys_end_to_end(given, weights: Path, tmp_path: Path) -> None:
    """Two folders of PNG files: theirs from the files, ours from the pixels."""
    for name, pixels in IMAGES.items():
        (tmp_path / name).mkdir()
        for i, image in enumerate(pixels):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / name / f"{i:03d}.png")
    theirs = calculate_metrics(
        input1=str(tmp_path / "fake"),
        input2=str(tmp_path / "real"),
        fid=True,
        kid=True,
        isc=True,
        prc=True,
        isc_splits=2,
        kid_subset_size=8,
        kid_subsets=10,
        samples_shuffle=False,
        feature_extractor="inception-v3-compat",  # for prc too
        feature_extractor_weights_path=str(weights),
        batch_size=N,
        cuda=False,
        save_cpu_ram=True,  # no worker processes
        cache=False,
        verbose=False,
    )
    ours = {}
    for metric in (FID(), KID(subset_size=8, num_subsets=10), InceptionScore(splits=2), PrecisionRecall()):
        for name, rows in given.items():
            metric.update({**rows, "index": torch.arange(N)}, real=name == "real")
        ours |= {name: float(value) for name, value in metric.compute().items()}
    names = {
        "fid": "frechet_inception_distance",
        "kid": "kernel_inception_distance_mean",
        "inception_score": "inception_score_mean",
        "inception_score_std": "inception_score_std",
        "precision": "precision",
        "recall": "recall",
    }
    assert ours["fid"] > 1e-3
    assert ours["inception_score"] > 1
    assert {name: ours[name] for name in names} == pytest.approx({k: theirs[v] for k, v in names.items()}, rel=1e-4)


def test_missing_weights_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_weights_that_hold_code_are_refused(tmp_path: Path) -> None:
    torch.save({"layer": Path("/")}, tmp_path / "evil.pth")
    with pytest.raises(ResourceError, match="genlab loads weights only"):
        Inception(weights=str(tmp_path / "evil.pth"))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save({"layer": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ResourceError, match="holds other weights than weights-inception"):
        Inception(weights=str(tmp_path / "other.pth"))


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_torchscript_is_opened_only_where_it_is_the_published_file(tmp_path: Path) -> None:
    path = tmp_path / "script.pt"
    torch.jit.save(torch.jit.script(nn.Linear(2, 1)), path)
    published = Published("the weights", "", "script.pt", hashlib.sha256(path.read_bytes()).hexdigest())
    assert set(load_tensors(path, published)) == {"weight", "bias"}
    with pytest.raises(ResourceError, match="genlab loads weights only"):
        load_tensors(path, Published("the weights", "", "script.pt", "0" * 64))

"""LPIPS from random weights, against the library; and the diversity of samples that is a mean of it."""

import re
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image.lpips import _LPIPS

from genlab.errors import DataError, ResourceError
from genlab.metrics.classes import random_pairs
from genlab.metrics.distance.lpips import LPIPS
from genlab.metrics.distance.pixels import PixelDistance
from genlab.metrics.extractor import weights as downloads
from genlab.metrics.lpips_diversity import LPIPSDiversity
from stand_ins import MAKERS, backbone, backbone_file


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return backbone_file(tmp_path_factory.mktemp("lpips"), "squeeze")


def images(n: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# --- the distance -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", ["alex", "squeeze"])
def test_equals_the_library(net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its network, built its own way from the same backbone."""
    features = MAKERS[net](weights=None)
    features.load_state_dict(backbone(net), strict=False)
    monkeypatch.setattr("torchmetrics.functional.image.lpips._get_tv_model_features", lambda *_: features.features)
    theirs = _LPIPS(pretrained=False, net=net)
    heads = Path(__import__(_LPIPS.__module__, fromlist=["x"]).__file__).parent / "lpips_models" / f"{net}.pth"
    theirs.load_state_dict(torch.load(heads, map_location="cpu", weights_only=True), strict=False)
    monkeypatch.undo()
    ours = LPIPS(net, weights=str(backbone_file(tmp_path, net)))
    a, b = images(3, 3, 70, 64), images(3, 3, 70, 64, seed=1)
    distance = ours.between(a, b)
    assert distance.shape == (3,)
    assert (distance > 1e-3).all()
    torch.testing.assert_close(distance, theirs(a, b).flatten(), rtol=1e-5, atol=0)
    assert ours.between(a, a).abs().max() == 0


def test_small_images_are_enlarged_large_ones_shrunk_and_gray_ones_are_rgb(file: Path) -> None:
    measure = LPIPS("squeeze", weights=str(file))
    small = images(2, 1, 16, 24), images(2, 1, 16, 24, seed=1)
    large = [torch.nn.functional.interpolate(x.repeat(1, 3, 1, 1), (64, 96), mode="bilinear") for x in small]
    torch.testing.assert_close(measure.between(*small), measure.between(*large))
    huge = [x.repeat_interleave(3, dim=2).repeat_interleave(3, dim=3) for x in large]
    shrinking = LPIPS("squeeze", at_most=64, weights=str(file))
    torch.testing.assert_close(shrinking.between(*huge), measure.between(*large), rtol=1e-4, atol=0)
    assert shrinking.settings() != measure.settings()
    assert "towards 64" in shrinking.settings()["resize"]


def test_grows_as_the_square_of_small_differences(file: Path) -> None:
    measure = LPIPS("squeeze", weights=str(file))
    a, step = images(2, 3, 64, 64), images(2, 3, 64, 64, seed=1)
    near, far = (measure.between(a, a + size * step) for size in (1e-3, 2e-3))
    torch.testing.assert_close(far / near, torch.full((2,), 4.0), rtol=0.05, atol=0)


def test_weights_that_are_missing_of_another_network_or_code(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(request, timeout):  # type: ignore[no-untyped-def]
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(downloads.urllib.request, "urlopen", offline)
    expected = f"LPIPS (alex) are not here and cannot be downloaded. Put alexnet-owt-7be5be79.pth into {tmp_path}, or"
    with pytest.raises(ResourceError, match=re.escape(expected)):
        LPIPS("alex", cache=str(tmp_path))
    with pytest.raises(ResourceError, match=r"are not at /no/such\. Put vgg16-397923af\.pth there"):
        LPIPS("vgg", weights="/no/such")
    with pytest.raises(ResourceError, match="holds other weights than alexnet-owt-7be5be79"):
        LPIPS("alex", weights=str(file))
    torch.save({"layer": Path("/")}, tmp_path / "evil.pth")
    with pytest.raises(ResourceError, match="genlab loads weights only"):
        LPIPS("squeeze", weights=str(tmp_path / "evil.pth"))


# --- diversity --------------------------------------------------------------------------------------------------------

LABELS = torch.arange(20) % 2
PIXELS = (images(20, 1, 4, 4) * 40 + 120 + 60 * LABELS[:, None, None, None]).to(torch.uint8)


def measured(fake: Tensor, labelled: bool = True, num_pairs: int = 1000, order: Tensor | None = None) -> LPIPSDiversity:
    metric = LPIPSDiversity(PixelDistance(), num_pairs)
    for pixels, real in ((PIXELS, True), (fake, False)):
        rows = torch.arange(len(pixels)) if order is None else order
        for part in rows.split(7):
            batch = {"image": pixels[part], "index": part} | ({"label": LABELS[part]} if labelled else {})
            metric.update(batch, real=real)
    return metric


def all_pairs(pixels: Tensor) -> float:
    """The expected squared difference of two of them, as a plain double loop."""
    x = pixels.double() / 127.5
    n = range(len(x))
    return float(np.mean([float((x[i] - x[j]).square().mean()) for i in n for j in n if i != j]))


def test_mean_over_pairs_of_a_class_or_of_all() -> None:
    metric = measured(PIXELS, num_pairs=4000)
    within = (all_pairs(PIXELS[LABELS == 0]) + all_pairs(PIXELS[LABELS == 1])) / 2
    assert float(metric.compute()["lpips_diversity"]) == pytest.approx(within, rel=0.03)
    assert float(metric.compute()["lpips_diversity_ratio"]) == 1.0
    assert metric.settings()["pairs"] == "of one class"
    blind = measured(PIXELS, labelled=False, num_pairs=4000)
    assert float(blind.compute()["lpips_diversity"]) == pytest.approx(all_pairs(PIXELS), rel=0.03)
    assert all_pairs(PIXELS) > 1.5 * within
    assert blind.settings()["pairs"] == "of all"


def test_copies_have_none_and_the_order_does_not_matter() -> None:
    one = PIXELS[LABELS]  # of each class the same image
    assert {name: float(value) for name, value in measured(one).compute().items()} == {
        "lpips_diversity": 0.0,
        "lpips_diversity_ratio": 0.0,
    }
    fake = PIXELS // 2
    assert measured(fake).compute() == measured(fake, order=torch.randperm(20)).compute()
    assert float(measured(fake).compute()["lpips_diversity_ratio"]) == pytest.approx(0.25, rel=0.05)


def test_pairs_are_of_two_and_every_class_has_its_turn() -> None:
    groups = [np.array([0, 1]), np.array([2, 3, 4])]
    pairs = random_pairs(groups, 301, seed=0)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert all(set(pair) <= set(groups[i % 2]) for i, pair in enumerate(pairs))
    assert len({tuple(sorted(pair)) for pair in pairs[1::2]}) == 3
    assert np.array_equal(pairs, random_pairs(groups, 301, seed=0))


def test_refusals() -> None:
    with pytest.raises(DataError, match="class 1 has 10 real, 1 generated"):
        measured(PIXELS[:3]).compute()
    with pytest.raises(DataError, match="at least 2 examples on each side, got 20 real, 1 generated"):
        measured(PIXELS[:1], labelled=False).compute()
    with pytest.raises(ValueError, match="num_pairs"):
        LPIPSDiversity(PixelDistance(), num_pairs=0)

"""Multi-scale structural similarity: against the library where it works, a definition where it does not, and pairs."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage, signal
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure as of_library

from genlab.data.base import DataSpec
from genlab.errors import ConfigError, DataError
from genlab.metrics.ms_ssim import MSSSIM, ms_ssim, ssim

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def images(n: int, side: int, seed: int = 0) -> Tensor:
    """Of a common picture and noise, (n, 3, side, side) in [0, 255]."""
    generator = torch.Generator().manual_seed(seed)
    common = 255 * torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(9))
    return (common + 40 * torch.randn(n, 3, side, side, generator=generator)).clamp(0, 255)


def test_one_scale_equals_the_library() -> None:
    """Which averages over mirrored borders too: they are cut off."""
    a, b = images(2, 40), images(2, 40, 1)
    similarity, contrast = ssim(a, b)
    _, full = of_library(a, b, data_range=255.0, reduction="none", return_full_image=True)
    torch.testing.assert_close(similarity, full[..., 5:-5, 5:-5].mean(dim=(1, 2, 3)), rtol=1e-4, atol=0)
    _, theirs = of_library(a, b, data_range=255.0, reduction="none", return_contrast_sensitivity=True)
    torch.testing.assert_close(contrast, theirs, rtol=1e-4, atol=0)
    assert (contrast - similarity > 1e-5).all()
    assert (contrast < 0.99).all()


def of_pair(a: np.ndarray, b: np.ndarray, weights: tuple[float, ...]) -> float:
    """Images (C, H, W) of any size, from the definition."""
    result = 1.0
    for scale, weight in enumerate(weights):
        size = min(11, a.shape[-1])
        places = np.arange(size) - (size - 1) / 2
        window = np.exp(-(places[:, None] ** 2 + places**2) / (2 * (1.5 * size / 11) ** 2))
        window /= window.sum()
        similar, contrasts = [], []
        for x, y in zip(a, b, strict=True):
            mean = [signal.convolve2d(z, window, mode="valid") for z in (x, y, x * x, y * y, x * y)]
            variances = mean[2] - mean[0] ** 2 + mean[3] - mean[1] ** 2
            contrast = (2 * (mean[4] - mean[0] * mean[1]) + 58.5225) / (variances + 58.5225)
            contrasts.append(contrast)
            similar.append(contrast * (2 * mean[0] * mean[1] + 6.5025) / (mean[0] ** 2 + mean[1] ** 2 + 6.5025))
        result *= max(0.0, np.mean(similar if scale == len(weights) - 1 else contrasts)) ** weight
        a, b = (z.reshape(3, z.shape[1] // 2, 2, z.shape[2] // 2, 2).mean(axis=(2, 4)) for z in (a, b))
    return result


@pytest.mark.parametrize(("side", "scales"), [(64, 5), (32, 3), (16, 1)])
def test_windows_shrink_with_small_images(side: int, scales: int) -> None:
    a, b = images(2, side), images(2, side, 1)
    weights = tuple(weight * sum(WEIGHTS) / sum(WEIGHTS[:scales]) for weight in WEIGHTS[:scales])
    expected = [of_pair(*pair, weights) for pair in zip(a.double().numpy(), b.double().numpy(), strict=True)]
    assert ms_ssim(a, b, scales).tolist() == pytest.approx(expected, rel=1e-4)


def test_opposites_are_0_and_an_image_is_1_to_itself() -> None:
    a = images(2, 64)
    assert ms_ssim(a, a) == pytest.approx(np.ones(2), abs=1e-6)
    assert ms_ssim(a, 255 - a).tolist() == [0, 0]


def measured(fake: Tensor, label: Tensor | None = None, order: Any = slice(None), **options: Any) -> tuple[float, Any]:
    metric = MSSSIM(**{"num_pairs": 60, "scales": 3} | options)
    metric.update({"image": 255 - fake, "index": torch.arange(len(fake))}, real=True)  # a reference changes nothing
    for rows in torch.arange(len(fake))[order].split(3):
        metric.update(
            {"image": fake[rows], "index": rows} | ({} if label is None else {"label": label[rows]}), real=False
        )
    return float(metric.compute()["ms_ssim"]), metric.settings()


def test_pairs_are_of_one_class_where_there_are_classes() -> None:
    """Two images, each five times: pairs of one are alike, pairs of all are so in 4 of 9."""
    two = images(2, 16).byte()
    label = torch.arange(10) % 2
    fake = two[label]
    within, settings = measured(fake, label)
    assert within == pytest.approx(1, abs=1e-6)
    assert settings["pairs"] == "of one class"
    unlike = float(ms_ssim(two[:1].float(), two[1:].float(), 3))
    over_all, settings = measured(fake, num_pairs=500)
    assert over_all == pytest.approx((4 + 5 * unlike) / 9, abs=0.04)
    assert unlike < 0.8
    assert settings["pairs"] == "of all"


def test_order_does_not_matter() -> None:
    fake = images(9, 16).byte()
    assert measured(fake) == measured(fake, order=torch.randperm(9))
    assert measured(fake) != measured(fake, seed=1)


def test_refusals() -> None:
    def spec(*shape: int) -> Any:
        return DataSpec("image", shape)

    MSSSIM().check_samples(spec(3, 64, 64), frozenset())
    with pytest.raises(ConfigError, match=r"images of 32 pixels have less than 4 .* Set metrics.ms_ssim.scales=4\."):
        MSSSIM().check_samples(spec(3, 64, 32), frozenset())
    with pytest.raises(ConfigError, match=r"images of 3 pixels .* Leave it out of metrics=\[...\]"):
        MSSSIM().check_samples(spec(3, 3, 3), frozenset())
    with pytest.raises(DataError, match="at least 2 samples, or of each class, got 1"):
        MSSSIM().check_enough(torch.arange(4), torch.tensor([0, 0, 1]))
    for options in ({"num_pairs": 0}, {"scales": 6}, {"scales": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            MSSSIM(**options)


def test_equals_the_published_program() -> None:
    """Recorded: Karras et al. 2018, metrics/ms_ssim.py, of these images of 128 pixels."""
    rng = np.random.default_rng(0)
    a, b = (ndimage.gaussian_filter(rng.normal(size=(2, 3, 128, 128)), (0, 0, 2, 2)) for _ in range(2))
    a, b = (torch.from_numpy((110 + 300 * x).clip(0, 255).astype(np.uint8)).float() for x in (a, (a + b) / 2))
    assert ms_ssim(a, b).tolist() == pytest.approx([0.676969, 0.653850], abs=2e-5)

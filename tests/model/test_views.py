"""Views of images against torchvision with the same parameters, and what their random numbers depend on."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as vision

from genlab.config.build import build
from genlab.model.augment.views import (
    IndependentViews,
    View,
    Views,
    blurred,
    crop_and_resize,
    luma,
    numbers_by_index,
    rectangles,
    turned,
)
from genlab.seeding import derive_seed, uniform_by_index, uniform_columns
from tiny_run import REPOSITORY

OFF: dict[str, Any] = {"scale": (1.0, 1.0), "flip": 0, "jitter": 0, "gray": 0, "blur": 0, "solarize": 0}
TRIES, CORNER, FLIP, JITTER, GRAY, BLUR, SOLARIZE = range(20), slice(20, 22), 22, 23, 28, 29, 31


def images(count: int = 3, channels: int = 3, height: int = 12, width: int = 10) -> Tensor:
    return 2 * torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(1)) - 1


def given(numbers: Tensor) -> Any:
    """The random numbers ``numbers`` (N, 32)."""

    def uniform(count: int) -> Tensor:
        assert count == numbers.shape[1]
        return numbers

    return uniform


def drawn(rows: int = 3) -> Tensor:
    return torch.rand(rows, 32, generator=torch.Generator().manual_seed(2))


def unit(x: Tensor) -> Tensor:
    """[-1, 1] as [0, 1]."""
    return (x + 1) / 2


# --- each transformation ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(12, 10), (7, 5), (4, 20)], ids=str)
def test_a_part_is_resized_as_torchvision_does(size: tuple[int, int]) -> None:
    x = images()
    parts = torch.tensor([[2.0, 1, 5, 6], [0, 0, 12, 10], [11, 3, 1, 7]])
    seen = crop_and_resize(x, parts, size)
    for image, part, result in zip(x, parts.int().tolist(), seen, strict=True):
        top, left, height, width = part
        expected = vision.resized_crop(image, top, left, height, width, list(size), antialias=True)
        assert torch.allclose(result, expected, atol=1e-6)


def test_all_of_an_image_in_its_own_size_is_the_image() -> None:
    assert torch.equal(crop_and_resize(images(), torch.tensor([[0.0, 0, 12, 10]] * 3), (12, 10)), images())


@pytest.mark.parametrize("sides", [(32, 32), (20, 60), (60, 20)], ids=str)
def test_parts_are_distributed_as_those_of_torchvision(sides: tuple[int, int]) -> None:
    scale, ratio = (0.3, 1.0), (0.75, 4 / 3)
    numbers = torch.rand(800, 22, generator=torch.Generator().manual_seed(3))
    mine = rectangles(sides, numbers, scale, ratio)
    torch.manual_seed(4)
    blank = torch.zeros(1, *sides)
    theirs = torch.tensor([RandomResizedCrop.get_params(blank, list(scale), list(ratio)) for _ in range(800)]).float()
    assert bool((mine[:, :2] >= 0).all() and (mine[:, :2] + mine[:, 2:] <= torch.tensor(sides)).all())
    assert torch.equal(mine, mine.round())
    error = (mine.var(dim=0) / 800 + theirs.var(dim=0) / 800).sqrt()
    assert bool(((mine.mean(dim=0) - theirs.mean(dim=0)).abs() <= 4.5 * error + 1e-3).all())
    assert torch.allclose(mine.std(dim=0), theirs.std(dim=0), rtol=0.2, atol=1e-3)


@pytest.mark.parametrize(
    ("sides", "middle"), [((10, 90), [0, 38, 10, 13]), ((90, 10), [38, 0, 13, 10]), ((30, 30), [0, 0, 30, 30])], ids=str
)
def test_where_no_try_fits_the_middle_is_taken(sides: tuple[int, int], middle: list[int]) -> None:
    numbers = torch.full((1, 22), 0.99)
    numbers[:, 10:20] = 0.0
    scale = (0.99, 1.0) if sides[0] != sides[1] else (1.0, 1.0)
    assert rectangles(sides, numbers, scale, (0.75, 4 / 3))[0].int().tolist() == middle


def test_the_hue_turns_as_in_torchvision() -> None:
    x = unit(images())
    x[0, :, :2] = torch.tensor([0.0, 0.5, 1.0])[:, None, None]
    x[1, :, :2] = 0.3  # gray
    for turn in (-0.4, 0.0, 0.1, 0.5):
        expected = vision.adjust_hue(x, turn)
        assert torch.allclose(turned(x, torch.full((3, 1, 1), turn)), expected, atol=2e-6)


def test_other_colors_are_those_of_torchvision() -> None:
    """In the order brightness, contrast, saturation, hue, by numbers in [0, 1): factors of 1 - s to 1 + s."""
    x, numbers = images(), torch.tensor([[0.1, 0.9, 0.3, 0.8], [0.5, 0.5, 0.5, 0.5], [0.99, 0.0, 0.99, 0.0]])
    view = View(brightness=0.8, contrast=0.6, saturation=0.4, hue=0.2)
    for image, row, result in zip(x, numbers, view.recolored(x, numbers), strict=True):
        brightness, contrast, saturation, hue = (2 * row - 1).tolist()
        expected = vision.adjust_brightness(unit(image), 1 + 0.8 * brightness)
        expected = vision.adjust_contrast(expected, 1 + 0.6 * contrast)
        expected = vision.adjust_saturation(expected, 1 + 0.4 * saturation)
        expected = vision.adjust_hue(expected, 0.2 * hue)
        assert torch.allclose(unit(result), expected, atol=3e-6)


def test_gray_is_that_of_torchvision() -> None:
    x = unit(images())
    assert torch.allclose(luma(x), vision.rgb_to_grayscale(x), atol=1e-6)


@pytest.mark.parametrize(("side", "kernel"), [(8, 3), (32, 5), (224, 23)], ids=str)
def test_the_blur_is_that_of_torchvision(side: int, kernel: int) -> None:
    x = images(2, 1, side, side)
    for image, sigma, result in zip(x, (0.1, 2.0), blurred(x, torch.tensor([0.1, 2.0])), strict=True):
        assert torch.allclose(result, vision.gaussian_blur(image, kernel, sigma), atol=1e-6)


def test_solarized_pixels_are_those_of_torchvision() -> None:
    x = images()
    seen = View(**OFF | {"solarize": 1.0})(x, given(drawn()))
    assert torch.allclose(unit(seen), vision.solarize(unit(x), 0.5), atol=1e-6)


def test_all_of_it_comes_in_order() -> None:
    x, numbers = images(), drawn()
    numbers[:, [FLIP, JITTER, GRAY, BLUR, SOLARIZE]] = 0.0
    view = View(solarize=0.2)
    expected = crop_and_resize(x, rectangles((12, 10), numbers[:, :22], view.scale, view.ratio), (12, 10)).flip(3)
    expected = luma(view.recolored(expected, numbers[:, 24:28])).expand(-1, 3, -1, -1)
    expected = blurred(expected, 0.1 + 1.9 * numbers[:, 30])
    expected = torch.where(expected >= 0, -expected, expected)
    assert torch.allclose(view(x, given(numbers)), expected, atol=1e-6)


@pytest.mark.parametrize("column", [FLIP, JITTER, GRAY, BLUR, SOLARIZE])
def test_each_is_of_some_images(column: int) -> None:
    """Of those whose number is below its probability; others keep every bit."""
    name = {FLIP: "flip", JITTER: "jitter", GRAY: "gray", BLUR: "blur", SOLARIZE: "solarize"}[column]
    x, numbers = images(), drawn()
    numbers[:, column] = torch.tensor([0.29, 0.3, 0.9])
    seen = View(**OFF | {name: 0.3})(x, given(numbers))
    assert [torch.equal(a, b) for a, b in zip(seen, x, strict=True)] == [False, True, True]


@pytest.mark.parametrize("channels", [1, 2])
def test_colors_need_three_channels(channels: int) -> None:
    """Of others only brightness and contrast change."""
    x, numbers = images(channels=channels), drawn()
    numbers[:, [JITTER, GRAY]] = 0.0
    seen = View(**OFF | {"jitter": 1.0, "gray": 1.0})(x, given(numbers))
    brightness, contrast = (1 + 0.8 * (2 * numbers[:, JITTER + 1 : JITTER + 3] - 1)).T[:, :, None, None, None]
    expected = (unit(x) * brightness).clamp(0, 1)
    mean = expected.mean(dim=(1, 2, 3), keepdim=True)
    assert torch.allclose(unit(seen), (mean + contrast * (expected - mean)).clamp(0, 1), atol=1e-6)


# --- views -----------------------------------------------------------------------------------------------------------


def option(name: str, **settings: Any) -> IndependentViews:
    node = OmegaConf.load(REPOSITORY / f"configs/model/views/{name}.yaml")
    node = OmegaConf.merge(OmegaConf.create({"model": {"views": node}}), {"model": {"views": settings}})
    views = build(OmegaConf.to_container(node, resolve=True)["model"]["views"], Views, "model.views")  # type: ignore
    assert isinstance(views, IndependentViews)
    return views


@pytest.mark.parametrize("name", ["simclr", "byol", "dino", "crop", "none"])
def test_views_are_a_function_of_seed_examples_index_and_view(name: str) -> None:
    views, x, before = option(name), images(4), images(4)
    index = torch.tensor([5, 900_000, 0, 7])
    seen = views(x, numbers_by_index(3, 128, index))
    assert seen.shape == (views.count, 4, 3, 12, 10)
    assert seen.abs().max() <= 1 + 1e-5
    assert torch.equal(x, before)
    order = torch.tensor([2, 0])
    again = views(x[order], numbers_by_index(3, 128, index[order]))
    assert torch.allclose(again, seen[:, order], atol=1e-6)
    if name == "none":
        assert torch.equal(seen, x.expand(2, -1, -1, -1, -1))
        return
    for seed, examples in ((4, 128), (3, 256)):
        assert (views(x, numbers_by_index(seed, examples, index)) - seen).abs().amax(dim=(0, 2, 3, 4)).min() > 0.01
    if views.count > 1:
        assert (seen[0] - seen[1]).abs().amax(dim=(1, 2, 3)).min() > 0.01


def test_the_two_views_of_byol_have_settings_of_their_own() -> None:
    views = option("byol")
    assert isinstance(views.first, View)
    assert isinstance(views.second, View)
    assert (views.first.blur, views.first.solarize) == (1.0, 0.0)
    assert (views.second.blur, views.second.solarize) == (0.1, 0.2)


def test_small_views_are_of_small_parts() -> None:
    views, x = option("dino", num_local=6, small={"size": 5}), images()
    uniform = numbers_by_index(0, 0, torch.arange(3))
    assert views(x, uniform).shape == (2, 3, 3, 12, 10)
    small = views.local(x, uniform)
    assert small.shape == (6, 3, 3, 5, 5)
    assert len({part.numpy().tobytes() for part in small[:, 0]}) == 6


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_views_have_the_type_of_the_images(dtype: torch.dtype) -> None:
    numbers = given(drawn())
    seen = View()(images().to(dtype), numbers)
    assert seen.dtype == dtype
    assert torch.allclose(seen.float(), View()(images(), numbers), atol=0.05 if dtype == torch.bfloat16 else 1e-5)


def test_columns_are_the_first_bits_of_numbers_by_index() -> None:
    index = torch.tensor([0, 1, 17, 2**40, 5])
    mine = uniform_columns((7, 1000), index, range(3, 8))
    assert mine.dtype == torch.float32
    for place, column in enumerate(range(3, 8)):
        exact = uniform_by_index(derive_seed(7, 1000, column), index.numpy())
        assert np.array_equal(mine[:, place].numpy(), np.floor(exact * 2**24) / 2**24)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"flip": 1.5}, "flip=1.5 is a probability"),
        ({"contrast": -1.0}, "contrast=-1.0 must be 0 or more"),
        ({"hue": 0.6}, "hue=0.6 is a share of the color circle"),
        ({"scale": (0.5, 2.0)}, "scale=[0.5, 2.0] must be two numbers above 0"),
        ({"ratio": (2.0, 0.5)}, "ratio=[2.0, 0.5] must be two numbers"),
        ({"sigma": (0.0, 1.0)}, "sigma=[0.0, 1.0] must be two numbers"),
        ({"size": 0}, "size=0 must be 1 pixel or more"),
    ],
    ids=str,
)
def test_unsuitable_settings(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(words)):
        View(**settings)


def test_views_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match=r"^count=0 must be 1 or more"):
        IndependentViews(View(), count=0)
    with pytest.raises(ValueError, match=r"^num_local=2 views have no settings\. Use model\.views\.num_local=0"):
        IndependentViews(View(), num_local=2)

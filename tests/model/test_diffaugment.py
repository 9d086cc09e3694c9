"""DiffAugment against slow implementations, image by image."""

import pytest
import torch
from torch import Tensor

from genlab.model.augment.diffaugment import DiffAugment, color, cutout, translation


@pytest.fixture
def images() -> Tensor:
    return torch.rand(40, 3, 8, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def uniform(width: int, seed: int = 1) -> Tensor:
    return torch.rand(40, width, generator=torch.Generator().manual_seed(seed))


def test_translation_moves_whole_pixels(images: Tensor) -> None:
    u = uniform(2)
    moved = translation(images, u)
    seen = set()
    for image, result, (v, h) in zip(images, moved, u.tolist(), strict=True):
        down, right = int(v * 3) - 1, int(h * 5) - 2  # an eighth of 8 is 1, of 16 is 2
        seen.add((down, right))
        padded = torch.nn.functional.pad(image, (2, 2, 1, 1))
        expected = padded[:, 1 - down : 9 - down, 2 - right : 18 - right]
        assert torch.equal(result, expected)
    assert len(seen) > 10


def test_cutout_blanks_half_of_each_side(images: Tensor) -> None:
    u = uniform(2)
    result = cutout(images, u)
    for image, cut, (v, h) in zip(images, result, u.tolist(), strict=True):
        top, left = int(v * 9) - 2, int(h * 17) - 4
        expected = image.clone()
        expected[:, max(0, top) : max(0, top + 4), max(0, left) : max(0, left + 8)] = 0
        assert torch.equal(cut, expected)


def test_color(images: Tensor) -> None:
    u = uniform(3)
    for image, result, (b, s, c) in zip(images, color(images, u), u.tolist(), strict=True):
        x = image + b - 0.5
        x = (x - x.mean(0)) * 2 * s + x.mean(0)
        x = (x - x.mean()) * (c + 0.5) + x.mean()
        torch.testing.assert_close(result, x)


def test_an_empty_policy_changes_nothing(images: Tensor) -> None:
    assert DiffAugment([])(images, uniform) is images


def test_an_image_depends_on_its_own_numbers_alone(images: Tensor) -> None:
    together = DiffAugment()(images, uniform)
    alone = DiffAugment()(images[7:9], lambda width: uniform(width)[7:9])
    assert torch.equal(together[7:9], alone)


def test_gradients_pass_through(images: Tensor) -> None:
    images.requires_grad_()
    DiffAugment(["translation", "cutout"])(images, uniform).sum().backward()
    assert images.grad is not None
    kept = (images.grad.abs().sum(dim=1) > 0).float().mean()
    assert 0.5 < kept < 0.95  # what was cut out or moved off has none

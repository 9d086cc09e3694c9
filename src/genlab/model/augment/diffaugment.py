"""Differentiable augmentations of a discriminator's inputs, real and generated."""

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

Uniform = Callable[[int], Tensor]  # k -> k random numbers in [0, 1) for each image, (N, k)
Change = Literal["color", "translation", "cutout"]


class Augmentation(Protocol):
    """A differentiable change of images that gradients pass through to the generator."""

    def __call__(self, images: Tensor, uniform: Uniform) -> Tensor:
        """``images``: (N, C, H, W) in [-1, 1]. -> like ``images``."""
        ...


class DiffAugment:
    """Differentiable augmentation, to train GANs on few images (Zhao et al. 2020, section 3.2).

    ``color`` changes brightness (by up to 1/2), saturation (0 to 2 times) and contrast (1/2 to 3/2 times);
    ``translation`` shifts by up to an eighth of the side; ``cutout`` blanks a square of half the side. Empty
    pixels become 0, mid-gray, as published. An empty policy changes nothing.
    """

    def __init__(
        self, policy: Sequence[Literal["color", "translation", "cutout"]] = ("color", "translation", "cutout")
    ):
        self.policy = tuple(policy)

    def __call__(self, images: Tensor, uniform: Uniform) -> Tensor:
        if "color" in self.policy:
            images = color(images, uniform(3))
        if "translation" in self.policy:
            images = translation(images, uniform(2))
        if "cutout" in self.policy:
            images = cutout(images, uniform(2))
        return images


def color(images: Tensor, u: Tensor, brightness: float = 1.0) -> Tensor:
    """Brightness, then saturation, then contrast, by ``u`` (N, 3) in [0, 1)."""
    u = u.to(images.dtype)[:, :, None, None, None]  # (N, 3, 1, 1, 1)
    images = images + brightness * (u[:, 0] - 0.5)
    gray = images.mean(dim=1, keepdim=True)
    images = torch.lerp(gray, images, 2 * u[:, 1])
    level = images.mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(level, images, u[:, 2] + 0.5)


def translation(images: Tensor, u: Tensor, ratio: float = 0.125, repeat_edges: bool = False) -> Tensor:
    """Shift by whole pixels, up to ``ratio`` of the side either way, by ``u`` (N, 2) in [0, 1).

    Empty pixels become 0, or with ``repeat_edges`` the nearest pixel."""
    count, _, height, width = images.shape
    reach = torch.tensor([int(height * ratio + 0.5), int(width * ratio + 0.5)], device=images.device)
    shift = (u * (2 * reach + 1)).floor().long() - reach  # (N, 2), -reach to reach
    rows = torch.arange(height, device=images.device) - shift[:, :1]  # (N, H): where a row comes from
    columns = torch.arange(width, device=images.device) - shift[:, 1:]  # (N, W)
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]  # (N, H, W)
    examples = torch.arange(count, device=images.device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[
        examples, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None]
    ]
    return (moved if repeat_edges else moved * inside[..., None]).permute(0, 3, 1, 2)


def cutout(images: Tensor, u: Tensor, ratio: float = 0.5) -> Tensor:
    """Blank a rectangle of ``ratio`` of the sides whose center ``u`` (N, 2) in [0, 1) puts anywhere in the image."""
    height, width = images.shape[2:]
    masks = []
    for axis, side in enumerate((height, width)):
        size = int(side * ratio + 0.5)
        start = (u[:, axis] * (side + (1 - size % 2))).floor().long() - size // 2  # (N,)
        place = torch.arange(side, device=images.device) - start[:, None]  # (N, side)
        masks.append((place >= 0) & (place < size))
    hole = masks[0][:, :, None] & masks[1][:, None]  # (N, H, W)
    return images.masked_fill(hole[:, None], 0.0)

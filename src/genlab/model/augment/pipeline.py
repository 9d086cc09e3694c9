"""The 18 transformations of adaptive discriminator augmentation, each applied to an image with the same probability."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import pi, prod
from typing import Literal, get_args

import torch
from torch import Tensor

from genlab.model.augment.diffaugment import Uniform
from genlab.model.augment.resample import bands, resample
from genlab.model.objective.broadcast import beside

Group = Literal["blit", "geometry", "color", "filter", "noise", "cutout"]
GROUPS: tuple[Group, ...] = get_args(Group)
DRAWS = {"blit": 7, "geometry": 11, "color": 10, "filter": 8, "noise": 2, "cutout": 3}  # random numbers for an image
POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)  # share of each band in a usual image


@dataclass(frozen=True)
class Strength:
    """How far each transformation goes, by default as published (Karras et al. 2020, appendix B).

    Raises ValueError if a number is below 0.
    """

    integer_translation: float = 0.125  # the farthest, as a share of the side
    scale: float = 0.2  # standard deviation, in octaves
    rotation: float = 1.0  # the farthest, in half turns
    stretch: float = 0.2  # standard deviation, in octaves
    translation: float = 0.125  # standard deviation, as a share of the side
    brightness: float = 0.2  # standard deviation, of images in [-1, 1]
    contrast: float = 0.5  # standard deviation, in octaves
    hue: float = 1.0  # the farthest, in half turns
    saturation: float = 1.0  # standard deviation, in octaves
    bands: float = 1.0  # gain of a band of frequencies: standard deviation, in octaves
    noise: float = 0.1  # standard deviation of the noise's standard deviation
    cutout: float = 0.5  # sides of the rectangle, as a share of the image's

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value < 0:
                raise ValueError(f"{field.name}={value} must be >= 0: {field.default} is the paper's.")


class Pipeline:
    """Transforms each image by the chosen groups, in the order of ``GROUPS``, as they are published.

    How many random numbers it takes depends on the groups and the shape of an image alone, and what becomes of an image
    on its own numbers.
    """

    def __init__(self, groups: Sequence[Group], strength: Strength):
        self.groups, self.strength = [group for group in GROUPS if group in groups], strength

    def __call__(self, images: Tensor, uniform: Uniform, p: float) -> Tensor:
        """``images``: (N, C, H, W); ``p``: the probability of each transformation, 1 if above. -> like ``images``.

        Computed in float32, or in float64 on images that are.
        """
        pixels = prod(images.shape[1:]) * ("noise" in self.groups)
        settings = sum(DRAWS[group] for group in self.groups)
        drawn, noise = uniform(settings + pixels).split([settings, pixels], dim=1)
        if p == 0:
            return images
        numbers = Numbers(drawn, p)
        with torch.autocast(images.device.type, enabled=False):
            changed = images.to(torch.promote_types(images.dtype, torch.float32))
            changed = self.moved(changed, numbers)
            if "color" in self.groups:
                changed = self.recolored(changed, numbers)
            if "filter" in self.groups:
                changed = self.filtered(changed, numbers)
            if "noise" in self.groups:
                changed = self.noisy(changed, numbers, noise)
            if "cutout" in self.groups:
                changed = self.cut(changed, numbers)
        return changed.to(images.dtype)

    def moved(self, images: Tensor, numbers: "Numbers") -> Tensor:
        """By all transformations of the groups blit and geometry, in one resampling."""
        if not {"blit", "geometry"} & {*self.groups}:
            return images
        width, height = images.shape[3], images.shape[2]
        strength, source = self.strength, Source(images)
        if "blit" in self.groups:
            (flipped,) = numbers.chosen(numbers.whole(2), neutral=0)
            source.scale(1 - 2 * flipped, torch.ones_like(flipped))
            (quarters,) = numbers.chosen(numbers.whole(4), neutral=0)
            source.rotate(-pi / 2 * quarters)
            x, y = numbers.chosen(*(numbers.between(strength.integer_translation) for _ in range(2)), neutral=0)
            source.shift((width * x).round(), (height * y).round())
        if "geometry" in self.groups:
            p_rotation = 1 - max(1 - numbers.p, 0) ** 0.5  # of each of two, so that p is that of any
            (scale,) = numbers.chosen(numbers.octaves(strength.scale), neutral=1)
            source.scale(scale, scale)
            (angle,) = numbers.chosen(numbers.between(pi * strength.rotation), neutral=0, p=p_rotation)
            source.rotate(-angle)
            (stretch,) = numbers.chosen(numbers.octaves(strength.stretch), neutral=1)
            source.scale(stretch, 1 / stretch)
            (angle,) = numbers.chosen(numbers.between(pi * strength.rotation), neutral=0, p=p_rotation)
            source.rotate(-angle)
            x, y = numbers.chosen(*(numbers.normal(strength.translation) for _ in range(2)), neutral=0)
            source.shift(width * x, height * y)
        return resample(images, source.linear, source.offset)

    def recolored(self, images: Tensor, numbers: "Numbers") -> Tensor:
        """The gray part of a color and the rest of it turn and grow apart, since all of these transformations keep the
        axis of grays. ``images`` have three channels; or one, gray, of which hue and saturation change nothing."""
        strength = self.strength
        (brightness,) = numbers.chosen(numbers.normal(strength.brightness), neutral=0)
        (contrast,) = numbers.chosen(numbers.octaves(strength.contrast), neutral=1)
        (inverted,) = numbers.chosen(numbers.whole(2), neutral=0)
        (hue,) = numbers.chosen(numbers.between(pi * strength.hue), neutral=0)
        (saturation,) = numbers.chosen(numbers.octaves(strength.saturation), neutral=1)
        gray = images.mean(dim=1, keepdim=True)
        changed = beside(contrast * (1 - 2 * inverted), images) * (gray + beside(brightness, images))
        if images.shape[1] == 1:
            return changed
        across = (images.roll(1, dims=1) - images.roll(-1, dims=1)) / 3**0.5  # a quarter turn about the axis of grays
        turned = beside(hue.cos(), images) * (images - gray) + beside(hue.sin(), images) * across
        return changed + beside(contrast * saturation, images) * turned

    def filtered(self, images: Tensor, numbers: "Numbers") -> Tensor:
        """Each band of frequencies by a gain of its own, and then all, which keeps the power of a usual image."""
        gain = images.new_ones(len(images), len(POWER))
        for band, power in enumerate(POWER):
            (factor,) = numbers.chosen(numbers.octaves(self.strength.bands), neutral=1)
            factors = torch.stack([factor if i == band else torch.ones_like(factor) for i in range(len(POWER))], dim=1)
            gain = gain * factors / (1 - power + power * factor.square()).sqrt()[:, None]
        rows, columns = (
            torch.einsum("nb,bij->nij", gain.to(images.dtype), bands(side, images.device, images.dtype))[:, None]
            for side in images.shape[2:]
        )
        return rows @ images @ columns.mT

    def noisy(self, images: Tensor, numbers: "Numbers", noise: Tensor) -> Tensor:
        """``noise``: (N, C H W) in [0, 1)."""
        (level,) = numbers.chosen(numbers.normal(self.strength.noise).abs(), neutral=0)
        return images + beside(level, images) * _normal(noise).view_as(images)

    def cut(self, images: Tensor, numbers: "Numbers") -> Tensor:
        """Blank a rectangle whose center is anywhere in the image."""
        (size,) = numbers.chosen(torch.full_like(images[:, 0, 0, 0], self.strength.cutout), neutral=0)
        inside = []  # (N, W), then (N, H)
        for side in images.shape[3:1:-1]:
            place = (torch.arange(side, device=images.device) + 0.5) / side - numbers.next()[:, None]
            inside.append(place.abs() < size[:, None] / 2)
        return images.masked_fill((inside[1][:, :, None] & inside[0][:, None])[:, None], 0.0)


class Numbers:
    """Random numbers of images, (N, K) in [0, 1), handed out in order: of a transformation first its values, then
    whether an image gets it."""

    def __init__(self, uniform: Tensor, p: float):
        self.columns, self.p, self.used = uniform.float(), p, 0

    def next(self) -> Tensor:
        """(N,) in [0, 1)."""
        self.used += 1
        return self.columns[:, self.used - 1]

    def between(self, most: float) -> Tensor:
        """Uniform in [-most, most)."""
        return (2 * self.next() - 1) * most

    def whole(self, count: int) -> Tensor:
        """Whole numbers below ``count``."""
        return (self.next() * count).floor()

    def normal(self, deviation: float) -> Tensor:
        return _normal(self.next()) * deviation

    def octaves(self, deviation: float) -> Tensor:
        """Powers of 2 with a normal exponent."""
        return self.normal(deviation).exp2()

    def chosen(self, *values: Tensor, neutral: float, p: float | None = None) -> list[Tensor]:
        """The values (N,) for images that get a transformation, and ``neutral`` for others."""
        gets_it = self.next() < (self.p if p is None else p)
        return [torch.where(gets_it, value, neutral) for value in values]


class Source:
    """Where pixels of transformed images come from: ``linear`` (N, 2, 2) times a place + ``offset`` (N, 2), (x, y) from
    the center. The methods add a transformation after those that there are."""

    def __init__(self, images: Tensor):
        self.linear = torch.eye(2, device=images.device).expand(len(images), 2, 2)
        self.offset = torch.zeros(len(images), 2, device=images.device)

    def scale(self, x: Tensor, y: Tensor) -> None:
        """By factors (N,)."""
        self.linear = self.linear / torch.stack([x, y], dim=1)[:, None]

    def rotate(self, angle: Tensor) -> None:
        """``angle``: (N,) in radians."""
        cos, sin = angle.cos(), angle.sin()
        self.linear = self.linear @ torch.stack([cos, sin, -sin, cos], dim=1).view(-1, 2, 2)

    def shift(self, x: Tensor, y: Tensor) -> None:
        """By pixels (N,)."""
        self.offset = self.offset - (self.linear @ torch.stack([x, y], dim=1)[..., None])[..., 0]


def _normal(uniform: Tensor) -> Tensor:
    """Standard normal numbers from uniform ones in [0, 1), at most 5.5 from 0."""
    return torch.special.ndtri(uniform.clamp(2**-25, 1 - 2**-24))

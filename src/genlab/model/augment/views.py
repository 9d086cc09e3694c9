"""Random views of images, of which self-supervised models learn what they have in common."""

from collections.abc import Sequence
from functools import lru_cache
from math import log
from typing import Protocol

import torch
from torch import Tensor

from genlab.model.augment.diffaugment import Augmentation, Uniform
from genlab.model.augment.resample import fold
from genlab.seeding import uniform_columns

_TRIES = 10  # at a rectangle that lies inside the image, as in torchvision
_NUMBERS = (2 * _TRIES + 2, 1, 5, 1, 2, 1)  # random numbers of each transformation
_LUMA = (0.2989, 0.587, 0.114)  # of red, green and blue in gray (ITU-R BT.601), as in torchvision
_KERNEL = 0.1  # of a side, about which the kernel of a blur has: 23 of 224 pixels, as published


class Views(Protocol):
    """Several changed copies of each image."""

    count: int  # views of an image
    num_local: int  # small views of an image, beside these; 0: none

    def __call__(self, images: Tensor, uniform: Uniform) -> Tensor:
        """``images``: (N, C, H, W) in [-1, 1] -> (V, N, C, H, W) for V = ``count``."""
        ...

    def local(self, images: Tensor, uniform: Uniform) -> Tensor:
        """``images``: (N, C, H, W) in [-1, 1] -> (L, N, C, h, w) for L = ``num_local``, smaller."""
        ...


class IndependentViews:
    """Views that are drawn independently: one by ``first`` and the others by ``second``, and small ones by ``small``
    (multi-crop: Caron et al. 2020, arXiv:2006.09882, section 3.2).

    The published settings of SimCLR (Chen et al. 2020, arXiv:2002.05709, appendix A), BYOL (Grill et al. 2020,
    arXiv:2006.07733, appendix B) and DINO (Caron et al. 2021, arXiv:2104.14294, section 3.2) are the options
    ``simclr``, ``byol`` and ``dino`` of ``model/views``.
    """

    def __init__(
        self,
        first: Augmentation,
        second: Augmentation | None = None,  # None: like the first
        small: Augmentation | None = None,
        count: int = 2,
        num_local: int = 0,
    ):
        """Raises ValueError: no view; small views without their settings."""
        if count < 1 or num_local < 0:
            raise ValueError(
                f"count={count} must be 1 or more, and num_local={num_local} must not be negative. "
                "Use model.views.count=2 model.views.num_local=0."
            )
        if num_local and small is None:
            raise ValueError(
                f"num_local={num_local} views have no settings. Use model.views.num_local=0, or model/views=dino."
            )
        self.first, self.second, self.small = first, second or first, small
        self.count, self.num_local = count, num_local

    def __call__(self, images: Tensor, uniform: Uniform) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> (V, N, C, H, W)."""
        return torch.stack([(self.second if view else self.first)(images, uniform) for view in range(self.count)])

    def local(self, images: Tensor, uniform: Uniform) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> (L, N, C, h, w). At least one is asked for."""
        assert self.small is not None
        return torch.stack([self.small(images, uniform) for _ in range(self.num_local)])


class View:
    """A random part of an image, enlarged; a mirror image; other colors; gray; blurred; solarized: in this order.

    * **Crop**: of an area and a ratio of sides, as torchvision's ``RandomResizedCrop``, by bilinear interpolation that
      averages where it makes smaller (antialiasing). The kernel does not reach beyond the part.
    * **Colors**: brightness, contrast, saturation and hue change by up to a number each, as in torchvision's
      ``ColorJitter``, but always in this order. Each result is clamped.
    * **Blur**: with a Gaussian, cut off where the kernel is a tenth of the side wide, and reflected at edges.
    * **Solarize**: pixels of the brighter half are inverted.

    Saturation, hue and gray need three channels: images of another number, such as gray ones, keep theirs, and the
    contrast is about their mean. A view takes 32 random numbers for an image, whatever its settings.
    """

    def __init__(
        self,
        scale: Sequence[float] = (0.08, 1.0),  # the least and the greatest area of the part, as shares; 1, 1: all of it
        ratio: Sequence[float] = (3 / 4, 4 / 3),  # of its width to its height, least and greatest
        flip: float = 0.5,  # probability of a mirror image
        jitter: float = 0.8,  # probability of other colors
        brightness: float = 0.8,  # it is multiplied by 1 - 0.8 to 1 + 0.8
        contrast: float = 0.8,  # the same
        saturation: float = 0.8,  # the same
        hue: float = 0.2,  # largest turn of the color circle, 0 to 0.5
        gray: float = 0.2,  # probability
        blur: float = 0.5,  # probability
        sigma: Sequence[float] = (0.1, 2.0),  # least and greatest deviation of the Gaussian, in pixels
        solarize: float = 0.0,  # probability
        size: int | None = None,  # pixels of a side of the view; None: as the image has
    ):
        """Raises ValueError: an argument outside its range."""
        for name, value in {"flip": flip, "jitter": jitter, "gray": gray, "blur": blur, "solarize": solarize}.items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name}={value} is a probability: use a value from 0 to 1.")
        for name, value in {"brightness": brightness, "contrast": contrast, "saturation": saturation}.items():
            if value < 0:
                raise ValueError(f"{name}={value} must be 0 or more.")
        if not 0 <= hue <= 0.5:
            raise ValueError(f"hue={hue} is a share of the color circle: use a value from 0 to 0.5.")
        _check_range("scale", scale, most=1.0)
        _check_range("ratio", ratio)
        _check_range("sigma", sigma)
        if size is not None and size < 1:
            raise ValueError(f"size={size} must be 1 pixel or more; null is the size of the image.")
        self.scale, self.ratio, self.flip = tuple(scale), tuple(ratio), flip
        self.jitter, self.brightness, self.contrast = jitter, brightness, contrast
        self.saturation, self.hue, self.gray = saturation, hue, gray
        self.blur, self.sigma, self.solarize, self.size = blur, tuple(sigma), solarize, size

    def __call__(self, images: Tensor, uniform: Uniform) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> (N, C, size, size) in [-1, 1]."""
        crop, flip, jitter, gray, blur, solarize = uniform(sum(_NUMBERS)).split(_NUMBERS, dim=1)
        with torch.autocast(images.device.type, enabled=False):
            seen = images.to(torch.promote_types(images.dtype, torch.float32))
            if self.size is not None or min(self.scale) < 1:
                size = tuple(images.shape[2:]) if self.size is None else (self.size, self.size)
                seen = crop_and_resize(seen, rectangles(images.shape[2:], crop, self.scale, self.ratio), size)
            if self.flip:
                seen = torch.where(_chosen(flip, self.flip), seen.flip(3), seen)
            if self.jitter:
                seen = torch.where(_chosen(jitter, self.jitter), self.recolored(seen, jitter[:, 1:]), seen)
            if self.gray and seen.shape[1] == 3:
                seen = torch.where(_chosen(gray, self.gray), luma(seen), seen)
            if self.blur:
                least, most = self.sigma
                seen = torch.where(_chosen(blur, self.blur), blurred(seen, least + (most - least) * blur[:, 1]), seen)
            if self.solarize:
                seen = torch.where(_chosen(solarize, self.solarize) & (seen >= 0), -seen, seen)
        return seen.to(images.dtype)

    def recolored(self, images: Tensor, uniform: Tensor) -> Tensor:
        """By ``uniform`` (N, 4) in [0, 1): of brightness, contrast, saturation and hue."""
        x = (images + 1) / 2
        brightness, contrast, saturation, hue = (2 * uniform.to(x.dtype) - 1)[..., None, None, None].unbind(dim=1)
        if self.brightness:
            x = ((1 + self.brightness * brightness).clamp_min(0) * x).clamp(0, 1)
        if self.contrast:
            mean = (luma(x) if x.shape[1] == 3 else x).mean(dim=(1, 2, 3), keepdim=True)
            x = torch.lerp(mean, x, (1 + self.contrast * contrast).clamp_min(0)).clamp(0, 1)
        if x.shape[1] == 3:
            if self.saturation:
                x = torch.lerp(luma(x), x, (1 + self.saturation * saturation).clamp_min(0)).clamp(0, 1)
            if self.hue:
                x = turned(x, self.hue * hue[:, 0])
        return 2 * x - 1


def numbers_by_index(seed: int, examples: int, index: Tensor) -> Uniform:
    """Random numbers of images that depend on the seed of the model, on the examples that it had seen before the step,
    and on an image's own ``index`` (N,) alone: not on the rank or the place in the batch. Each call gives others."""
    used = 0

    def uniform(count: int) -> Tensor:
        nonlocal used
        used += count
        return uniform_columns((seed, examples), index, range(used - count, used))

    return uniform


def rectangles(sides: Sequence[int], uniform: Tensor, scale: Sequence[float], ratio: Sequence[float]) -> Tensor:
    """Parts of images as torchvision's ``RandomResizedCrop`` draws them, by ``uniform`` (N, 22) in [0, 1): the first of
    ten tries that lies inside, else as much of the middle as the ratios allow.

    Returns:
        (N, 4): top, left, height and width in whole pixels, as float32. ``sides``: (H, W).
    """
    height, width = sides
    area = height * width * (scale[0] + (scale[1] - scale[0]) * uniform[:, :_TRIES])  # (N, 10)
    shape = (log(ratio[0]) + (log(ratio[1]) - log(ratio[0])) * uniform[:, _TRIES : 2 * _TRIES]).exp()
    size = torch.stack([(area / shape).sqrt().round(), (area * shape).sqrt().round()], dim=2)  # (N, 10, 2)
    room = torch.tensor([height, width], device=uniform.device, dtype=size.dtype)
    fits = ((size > 0) & (size <= room)).all(dim=2)
    middle = [min(height, max(round(width / ratio[0]), 1)), width]
    if width / height > ratio[1]:
        middle = [height, max(round(height * ratio[1]), 1)]
    elif width / height >= ratio[0]:
        middle = [height, width]
    whole = torch.tensor(middle, device=uniform.device, dtype=size.dtype)
    first = fits.int().argmax(dim=1)  # (N,), 0 where none fits
    size = torch.where(fits.any(dim=1, keepdim=True), size[torch.arange(len(size), device=size.device), first], whole)
    free = room - size
    corner = torch.where(
        fits.any(dim=1, keepdim=True), (uniform[:, 2 * _TRIES :] * (free + 1)).floor().minimum(free), (free / 2).floor()
    )
    return torch.cat([corner, size], dim=1)


def crop_and_resize(images: Tensor, part: Tensor, size: Sequence[int]) -> Tensor:
    """Rectangles of images, ``part`` (N, 4) as :func:`rectangles` gives, resized to ``size`` (h, w): bilinear, with
    antialiasing, as torchvision does. (N, C, H, W) -> (N, C, h, w)."""
    part = part.to(images.dtype)
    rows = _resizing(part[:, 0], part[:, 2], images.shape[2], size[0])  # (N, 1, h, H)
    columns = _resizing(part[:, 1], part[:, 3], images.shape[3], size[1])
    return rows @ images @ columns.mT


def _resizing(start: Tensor, length: Tensor, side: int, size: int) -> Tensor:
    """What pixels of one axis count in each of ``size`` pixels of the view, (N, 1, size, side): a triangle about its
    middle, as wide as its distance from the next, or as that of pixels where these are further apart."""
    step = (length / size)[:, None, None]
    middle = start[:, None, None] + (torch.arange(size, device=start.device)[:, None] + 0.5) * step  # (N, size, 1)
    pixel = torch.arange(side, device=start.device) + 0.5
    inside = (pixel > start[:, None, None]) & (pixel < (start + length)[:, None, None])  # (N, 1, side)
    weight = (1 - (pixel - middle).abs() / step.clamp_min(1)).clamp_min(0) * inside
    return (weight / weight.sum(dim=2, keepdim=True))[:, None]


def luma(images: Tensor) -> Tensor:
    """The brightness that is seen of (N, 3, H, W). -> (N, 1, H, W)."""
    red, green, blue = images.unbind(dim=1)
    return (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue)[:, None]


def turned(images: Tensor, turn: Tensor) -> Tensor:
    """Images (N, 3, H, W) in [0, 1] whose hue is another, by ``turn`` (N, 1, 1) of the color circle (HSV)."""
    red, green, blue = images.unbind(dim=1)
    value, least = images.amax(dim=1), images.amin(dim=1)
    range_ = value - least
    divisor = torch.where(range_ == 0, 1.0, range_)
    sixth = torch.where(
        value == red,
        (green - blue) / divisor % 6,
        torch.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    places = torch.tensor([5.0, 3.0, 1.0], device=images.device, dtype=images.dtype)[:, None, None]
    k = ((sixth + 6 * turn)[:, None] + places) % 6  # (N, 3, H, W)
    return value[:, None] - range_[:, None] * torch.minimum(k, 4 - k).clamp(0, 1)


def blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Images (N, C, H, W) with a Gaussian of deviation ``sigma`` (N,) pixels each, reflected at edges."""
    sigma = sigma.to(images.dtype)
    rows, columns = (_gaussian(sigma, side)[:, None] for side in images.shape[2:])
    return rows @ images @ columns.mT


def _gaussian(sigma: Tensor, side: int) -> Tensor:
    """(N, side, side), the blur of an axis."""
    reach = max(int(side * _KERNEL / 2 + 0.5), 1)
    places = torch.arange(-reach, reach + 1, device=sigma.device, dtype=sigma.dtype)
    taps = (-0.5 * (places / sigma[:, None]).square()).softmax(dim=1)  # (N, taps)
    return (taps @ _shifts(side, reach, sigma.device, sigma.dtype)).view(-1, side, side)


@lru_cache(maxsize=16)
def _shifts(side: int, reach: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(taps, side * side): 1 where a tap of the kernel reads which pixel, for each pixel."""
    taps = torch.arange(-reach, reach + 1)
    read = fold(torch.arange(side)[None] + taps[:, None], side)  # (taps, side)
    return torch.nn.functional.one_hot(read, side).flatten(1).to(device, dtype)


def _chosen(uniform: Tensor, probability: float) -> Tensor:
    """Which images get a transformation, (N, 1, 1, 1) bool, by the first of its numbers."""
    return (uniform[:, 0] < probability)[:, None, None, None]


def _check_range(name: str, values: Sequence[float], most: float = float("inf")) -> None:
    if len(values) != 2 or not 0 < values[0] <= values[1] <= most:
        limit = "" if most == float("inf") else f", of which the second is at most {most:g}"
        raise ValueError(f"{name}={list(values)} must be two numbers above 0, the smaller one first{limit}.")

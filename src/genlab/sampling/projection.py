"""Projection: the styles and the noise of pixels whose image is nearest to a picture (Karras et al. 2020,
arXiv:1912.04958, section 5 and appendix D)."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from genlab.data.image import to_pixels
from genlab.errors import ConfigError, NumericsError
from genlab.files.atomic import prepare_file, write_atomically, writing
from genlab.files.paths import read_path
from genlab.model.base import Condition, GenerativeModel, in_eval_mode
from genlab.model.condition import moved, repeated
from genlab.model.float32 import exact_float32
from genlab.model.parts import Adversarial, StyledGenerator
from genlab.sampling.form import Form
from genlab.sampling.pictures import Pictures, save_grid
from genlab.seeding import RandomStream

STEPS = 1000  # and all numbers below: the paper's
_DRAWS = 10_000  # of styles, for their mean and deviation
_LR = 0.1  # at most
_WARM_UP, _COOL_DOWN = 0.05, 0.25  # shares of the steps in which the learning rate rises, and falls
_BLUR, _BLURRED = 0.05, 0.75  # noise on styles: its size in deviations, and the share of the steps that have some
_WEIGHT = 1e5  # of the noise's regularization
_COARSEST = 8  # side of the last map of its pyramid


class Distance(Protocol):
    """How far images are from each other. ``name`` says how, in a few words."""

    name: str

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        """(N, C, H, W), (N, C, H, W), nominally in [-1, 1] -> (N,), with a gradient in ``a``."""
        ...


@dataclass(frozen=True)
class Projection:
    """What was found, on the CPU."""

    styles: Tensor  # (1, num_styles, W)
    noise: list[Tensor]  # of pixels: (1, side, side) each, in the order of the layers
    image: Tensor  # (1, C, H, W), around [-1, 1]
    distances: Tensor  # (steps + 2,): at the start, in each step, where styles are noisy, and in the end


class FeatureDistance:
    """Squared differences of a discriminator's feature maps, which blocks give, and of pixels.

    Features of each place are unit vectors, as in LPIPS (Zhang et al. 2018, eq. 1), which has learned weights beside
    them; their squared distances are averaged over places and blocks, and the mean square of pixels is added.
    """

    name = "features of the discriminator and pixels"

    def __init__(self, discriminator: nn.Module, condition: Condition | None = None):  # of one image
        """Raises ConfigError: it has no blocks that give feature maps."""
        self.discriminator, self.condition = discriminator, condition
        self._last: tuple[Tensor, list[Tensor]] | None = None  # what was compared with last, and its maps
        if not isinstance(getattr(discriminator, "blocks", None), nn.ModuleList):
            raise ConfigError(
                f"project: features are of the discriminator's blocks, and a {type(discriminator).__name__} has none. "
                "Use features=vgg."
            )

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        if self._last is None or self._last[0] is not b:
            with torch.no_grad():
                self._last = b, self._maps(b)
        pixels = (a - b).square().flatten(1).mean(dim=1)
        pairs = [
            (F.normalize(x, dim=1) - F.normalize(y, dim=1)).square().sum(dim=1).flatten(1).mean(dim=1)
            for x, y in zip(self._maps(a), self._last[1], strict=True)
        ]
        return pixels + torch.stack(pairs).mean(dim=0)

    def _maps(self, images: Tensor) -> list[Tensor]:
        """What the blocks give, (N, C, H, W) each."""
        found: list[Tensor] = []
        blocks = self.discriminator.blocks
        hooks = [block.register_forward_hook(lambda _, __, out: found.append(out)) for block in blocks]  # type: ignore
        try:
            told = repeated(self.condition, len(images))
            self.discriminator.forward(images, told)  # without what was compiled, which may not call hooks
        finally:
            for hook in hooks:
                hook.remove()
        return found


def check(model: GenerativeModel, form: Form, run: Path, typed: Condition) -> None:
    """Raises ConfigError: the model has no styles; or it is conditioned, and not one condition was typed."""
    is_styled = isinstance(model, Adversarial) and isinstance(model.generator, StyledGenerator)
    if not (is_styled and isinstance(form, Pictures)):
        raise ConfigError(
            f"{run} has no generator with styles, in which pictures are found. Name a run of model=stylegan2, or leave "
            "project= out."
        )
    for key, kind in model.conditions.kinds.items():
        if len(typed.get(key, ())) != 1:
            raise ConfigError(
                f"project: the model of {run} draws by {key}. Name the one of the picture: {kind.option}=..."
            )


def project(
    model: GenerativeModel,
    image: Tensor,
    steps: int = STEPS,
    seed: int = 0,
    condition: Condition | None = None,
    distance: Distance | None = None,
    advance: Callable[[int], None] = lambda steps: None,
) -> Projection:
    """Find an image in a GAN whose generator has styles. The result is a function of the model, of these and of the
    device:
    on a CPU the same to the last bit.

    It begins at the average style. Adam makes ``steps`` steps on styles, the same for all layers, and on the noise of
    pixels: its learning rate of 0.1 rises in the first 5 % of the steps and falls, by a cosine, in the last 25 %.
    Styles have noise in the first 75 %, whose size falls from 0.05 deviations of the styles as the square of what is
    left of these steps. The noise of pixels is kept free of what the image has by :func:`correlation`, with a weight of
    1e5, and has mean 0 and variance 1 after each step.

    Args:
        model: its weights are not changed
        image: (1, C, H, W) in [-1, 1], of the model's shape
        steps: 1 or more; the paper's 1000
        seed: of all random numbers
        condition: of the image, one row; needed by a model that has conditions
        distance: of images; None: :class:`FeatureDistance` of the model's own discriminator
        advance: told of each step when it is made

    Raises:
        ValueError: the image is not of the model's shape, ``steps`` is below 1, or a condition is missing.
        NumericsError: the distance is not finite.
    """
    assert isinstance(model, Adversarial)
    generator, device = model.generator, model.device
    assert isinstance(generator, StyledGenerator)
    if tuple(image.shape) != (1, *model.shape) or steps < 1:
        raise ValueError(f"image must be {(1, *model.shape)}, got {tuple(image.shape)}, and steps={steps} >= 1.")
    if missing := [key for key in model.conditions.kinds if key not in (condition or {})]:
        raise ValueError(f"a model that draws by {missing[0]} needs condition={{'{missing[0]}': ...}} of the image.")
    condition, target = moved(condition, device), image.to(device)
    distance = distance or FeatureDistance(model.discriminator, condition)
    stream = RandomStream.for_samples(seed, [0], device)
    with torch.inference_mode(False), torch.enable_grad(), exact_float32(device), in_eval_mode(model):
        average, deviation = _styles(model, condition, stream)
        styles = average[:, :1].clone().requires_grad_()  # (1, 1, W), of all layers
        noise = _noise(generator, average, stream)
        parts = [styles, *noise]
        optimizer = torch.optim.Adam(parts, lr=_LR)

        def image_of(styles: Tensor) -> Tensor:
            return generator.synthesize(styles.expand_as(average), given(noise))

        with torch.no_grad():
            distances = [distance.between(image_of(styles), target).sum()]
        for step in range(steps):
            done = step / steps
            optimizer.param_groups[0]["lr"] = _LR * pace(done)
            blur = _BLUR * deviation * max(0.0, 1 - done / _BLURRED) ** 2
            far = distance.between(image_of(styles + blur * stream.randn(*styles.shape[1:])), target).sum()
            loss = far + _WEIGHT * sum((correlation(map) for map in noise), torch.zeros((), device=device))
            for part, gradient in zip(parts, torch.autograd.grad(loss, parts), strict=True):
                part.grad = gradient
            optimizer.step()
            normalize(noise)
            distances.append(far.detach())
            advance(1)
        with torch.no_grad():
            found = image_of(styles)
            distances.append(distance.between(found, target).sum())
    seen = torch.stack(distances).cpu()
    if not seen.isfinite().all():
        raise NumericsError("the distance to the picture is not finite (nan or inf); nothing was found.")
    whole = styles.detach().expand_as(average).contiguous()
    return Projection(whole.cpu(), [map.detach().cpu() for map in noise], found.cpu(), seen)


def pace(done: float) -> float:
    """The learning rate at a share ``done`` of the steps, by the highest."""
    left = min(1.0, (1 - done) / _COOL_DOWN)
    return (0.5 - 0.5 * math.cos(math.pi * left)) * min(1.0, done / _WARM_UP)


def correlation(noise: Tensor) -> Tensor:
    """How far a map (1, S, S) is from white noise: squares of the mean product of neighbors, with those of the map at
    half the resolution, and so on to 8x8. The map is a torus. -> a scalar.

    Means of 2x2 are multiplied by 2, which keeps their variance. White noise has 2 / S^2 in expectation at each
    resolution, where the mean product itself has 0."""
    total = torch.zeros((), device=noise.device)
    while True:
        for axis in (1, 2):
            total = total + (noise * noise.roll(1, axis)).mean().square()
        if noise.shape[-1] <= _COARSEST:
            return total
        noise = 2 * F.avg_pool2d(noise, 2)


@torch.no_grad()
def normalize(noise: Sequence[Tensor]) -> None:
    """Make the mean 0 and the variance 1 of each map, in place."""
    for map in noise:
        map.sub_(map.mean()).mul_(map.square().mean().add(1e-12).rsqrt())


def given(noise: Sequence[Tensor]) -> Callable[..., Tensor]:
    """Noise of pixels (1, side, side) in place of drawn: each call gives the next map, in the order of the layers."""
    left = iter(noise)

    def normal(*shape: int) -> Tensor:
        map = next(left)
        assert map.shape[1:] == shape, f"a layer of {shape} gets noise of {tuple(map.shape[1:])}"
        return map

    return normal


@torch.no_grad()
def _styles(model: Adversarial, condition: Condition | None, stream: RandomStream) -> tuple[Tensor, float]:
    """The mean of the styles of random noise, (1, num_styles, W), and their root mean squared distance from it."""
    assert isinstance(model.generator, StyledGenerator)
    draws = stream.randn(_DRAWS, model.latent_dim)[0].split(1000)
    mapped = [model.generator.map(noise, repeated(condition, len(noise))) for noise in draws]
    styles = torch.cat([rows[:, 0] for rows in mapped])  # all layers have the same
    average = styles.mean(dim=0)
    deviation = (styles - average).square().sum(dim=1).mean().sqrt()
    return average.expand_as(mapped[0][:1]), float(deviation)


@torch.no_grad()
def _noise(generator: StyledGenerator, styles: Tensor, stream: RandomStream) -> list[Tensor]:
    """White noise for each layer that takes some."""
    found: list[Tensor] = []

    def normal(*shape: int) -> Tensor:
        found.append(stream.randn(*shape))
        return found[-1]

    generator.synthesize(styles, normal)
    normalize(found)
    return [map.requires_grad_() for map in found]


def destination(out: str) -> Path:
    """The path for the picture of a projection. Raises ConfigError: it is no .png; StorageError: it cannot be
    written."""
    path = read_path(out)
    if path.suffix.lower() != ".png":
        raise ConfigError(
            f"out={out}: a projection is a .png, with a .safetensors beside it. Use out={path.with_suffix('.png')}"
        )
    prepare_file(path)
    return path


def write(found: Projection, target: Tensor, told: dict[str, str], path: Path, bits: int = 8) -> Path:
    """Write the ``target`` (C, H, W), uint8 or uint16, and what was found beside it as a PNG; and styles (num_styles,
    W), noise of pixels ``noise.0`` (side, side) ... and ``distances`` as the .safetensors of that name, with
    ``told`` as JSON in its metadata. Returns the latter's path. Raises StorageError."""
    result = to_pixels(found.image, bits)
    with writing(path.parent):
        save_grid(torch.cat([target[None], result]), 2, path)
    tensors = {"styles": found.styles[0], "distances": found.distances}
    tensors |= {f"noise.{i}": map[0] for i, map in enumerate(found.noise)}
    metadata = {"projection": json.dumps(told)}  # one: their order in the file is arbitrary
    content = save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata)
    beside = path.with_suffix(".safetensors")
    write_atomically(beside, lambda file: file.write(content))
    return beside

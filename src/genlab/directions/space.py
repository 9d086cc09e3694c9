"""Spaces that a model's samples can be moved in: latents, styles, and the deepest features of a U-Net."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from genlab.errors import ConfigError
from genlab.model.base import Condition, Draw, GenerativeModel, HasPrior
from genlab.model.float32 import exact_float32
from genlab.model.parts import (
    Adversarial,
    Denoiser,
    DenoisesToTheEnd,
    HasDenoiser,
    HasLatentNetwork,
    HasMiddle,
    ReadsLatent,
    StyledGenerator,
)
from genlab.model.representation import block_outputs
from genlab.seeding import RandomStream


class Space(Protocol):
    """Vectors of D numbers behind each sample, which may be shifted while it is drawn."""

    kind: ClassVar[str]  # "latent", "style" or "middle"
    size: int  # D

    def draw(self, condition: Condition | None, stream: RandomStream, shift: Tensor | None) -> tuple[Tensor, Tensor]:
        """The samples of a stream, moved by ``shift`` (N, D), and where they were before: (N, C, H, W), (N, D). A shift
        of None or 0 gives what the model's ``sample`` gives, to the last bit."""
        ...

    def points(self, condition: Condition | None, stream: RandomStream) -> Tensor:
        """Where samples of a stream are, (N, D)."""
        ...

    def first_maps(self) -> Tensor:
        """The weights (outputs, D) of the affine maps that read a vector first. Raises ConfigError: there are none."""
        ...

    def features(self, condition: Condition | None, stream: RandomStream) -> tuple[Tensor, Tensor]:
        """What PCA looks at, (N, F), and where samples are, (N, D); the same tensor twice where that is one thing."""
        ...


def space_of(model: GenerativeModel, run: Path) -> Space:
    """The space that the model of ``run`` is moved in. Raises ConfigError: it has none."""
    if isinstance(model, Adversarial) and isinstance(model.generator, StyledGenerator):
        return Styles(model)
    if isinstance(model, HasPrior):
        return Latents(model)
    if isinstance(model, HasDenoiser):
        denoising: Any = model.denoising
        if isinstance(denoising.sampler, DenoisesToTheEnd) or not isinstance(denoising.network, HasMiddle):
            raise ConfigError(
                f"{run}: directions of diffusion models are shifts of the middle of a U-Net along the ODE, and this "
                f"model has a {type(denoising.network).__name__} and {type(denoising.sampler).__name__}. Name a run of "
                "model/network=unet, without model/objective=consistency."
            )
        return Middle(model)
    raise ConfigError(
        f"{run} holds a {type(model).__name__}, which has no latent to move, as GAN, VAE and flow have, and no U-Net. "
        "Name another run."
    )


class Latents:
    """The noise of a GAN, of which truncated noise is a part; the latents of a VAE or a flow, before a temperature."""

    kind: ClassVar[str] = "latent"

    def __init__(self, model: Any):
        self.model = model
        self.size = int(torch.Size(model.latent_shape).numel())

    def draw(self, condition: Condition | None, stream: RandomStream, shift: Tensor | None) -> tuple[Tensor, Tensor]:
        model, seen = self.model, []

        def moved(first: Tensor) -> Tensor:
            seen.append(first.flatten(1))
            return first if shift is None else first + shift.to(first).view_as(first)

        if isinstance(model, Adversarial):
            with _arguments(model.generator, moved):
                images = model.sample(len(stream), condition, stream)  # type: ignore[attr-defined]
        else:
            images = model.sample(len(stream), condition, _Moved(stream, moved))
        return images, seen[0]

    def points(self, condition: Condition | None, stream: RandomStream) -> Tensor:
        if isinstance(self.model, Adversarial):
            return self.model.noise(stream)
        return stream.randn(*self.model.latent_shape).flatten(1)

    def first_maps(self) -> Tensor:
        network = self.model.latent_network if isinstance(self.model, HasLatentNetwork) else self.model
        if not isinstance(network, ReadsLatent):
            raise ConfigError(
                f"method=sefa reads the first affine map of a latent, and a {type(network).__name__} has none that is "
                "known. Use method=pca."
            )
        return network.latent_maps().detach()

    def features(self, condition: Condition | None, stream: RandomStream) -> tuple[Tensor, Tensor]:
        """Outputs of the first block of a GAN's generator; else pictures."""
        found: list[tuple[Tensor, Tensor]] = []
        if not isinstance(self.model, Adversarial):
            points = self.points(condition, stream)
            return self.model.decode(points.view(-1, *self.model.latent_shape), condition).flatten(1), points
        generator = self.model.generator
        outputs = block_outputs(generator, lambda: found.append(self.draw(condition, stream, None)), mean=False)
        images, points = found[0]
        return (outputs[0] if outputs else images).flatten(1).float(), points


class Styles:
    """The styles of a generator of two stages, one vector for all layers: StyleGAN2's W."""

    kind: ClassVar[str] = "style"

    def __init__(self, model: Any):
        self.model = model
        self.size = self.first_maps().shape[1]

    @torch.no_grad()
    def draw(self, condition: Condition | None, stream: RandomStream, shift: Tensor | None) -> tuple[Tensor, Tensor]:
        model, generator = self.model, self.model.generator
        model.conditions.check(condition)
        model.evaluations += len(stream)
        noise = model.noise(stream)
        styles = generator.map(noise, model.conditions.drawn(condition, stream))
        moved = generator.truncated(styles)
        if shift is not None:
            moved = moved + shift.to(styles)[:, None]
        return generator.synthesize(moved), styles[:, 0]

    @torch.no_grad()
    def points(self, condition: Condition | None, stream: RandomStream) -> Tensor:
        noise = self.model.noise(stream)
        styles: Tensor = self.model.generator.map(noise, self.model.conditions.drawn(condition, stream))
        return styles[:, 0]

    def first_maps(self) -> Tensor:
        generator = self.model.generator
        assert isinstance(generator, ReadsLatent)
        return generator.latent_maps().detach()

    def features(self, condition: Condition | None, stream: RandomStream) -> tuple[Tensor, Tensor]:
        points = self.points(condition, stream)
        return points, points


class Middle:
    """The deepest features of a U-Net at every evaluation of a sampler, one after the other: the semantic latent space
    of Kwon et al. (2023, arXiv:2210.10960).

    Their asymmetric reverse process: the shift changes the predicted clean image D of a step from noise level t to s,
    and not the noise x - D that the step keeps. For a step x' = D + (s / t)(x - D) that is to use D + (D' - D) /
    (1 - s / t) in place of D, where D' is predicted with shifted features. Exact for Euler's steps; other samplers use
    the same D.
    """

    kind: ClassVar[str] = "middle"

    def __init__(self, model: Any):
        self.model, self.denoising = model, model.denoising
        with torch.no_grad():
            points = self.points(None, RandomStream.for_samples(0, [0], model.device))
        self.size = points.shape[1]

    def draw(self, condition: Condition | None, stream: RandomStream, shift: Tensor | None) -> tuple[Tensor, Tensor]:
        denoising, seen, sampler = self.denoising, [], self.denoising.sampler
        rows = len(stream)

        def keep(output: Tensor, number: int) -> Tensor:
            seen.append(output[-rows:].flatten(1).float())  # of a guided call the conditional half
            return output

        def move(output: Tensor, number: int) -> Tensor:
            assert shift is not None
            size = output[0].numel()
            step = shift[:, number * size : (number + 1) * size].to(output)
            return output + step.repeat(len(output) // rows, 1).view_as(output)

        def steered(denoise: Denoiser, noise: Tensor, generator: RandomStream) -> Tensor:
            number = 0
            levels = sampler.grid(sampler.num_steps).tolist()

            def moved(x: Tensor, sigma: Tensor) -> Tensor:
                nonlocal number
                with _outputs(denoising.network.middle(), lambda output: keep(output, number)):
                    clean = denoise(x, sigma)
                if shift is not None:
                    with _outputs(denoising.network.middle(), lambda output: move(output, number)):
                        other = denoise(x, sigma)
                    clean = clean + (other - clean) / (1 - _next(levels, float(sigma[0])) / float(sigma[0]))
                number += 1
                return clean

            return sampler(moved, noise, generator)

        denoising.sampler = steered
        try:
            with exact_float32(self.model.device):
                images = self.model.sample(rows, condition, stream)
        finally:
            denoising.sampler = sampler
        return images, torch.cat(seen, dim=1)

    def points(self, condition: Condition | None, stream: RandomStream) -> Tensor:
        return self.draw(condition, stream, None)[1]

    def first_maps(self) -> Tensor:
        raise ConfigError("method=sefa needs a latent that a network reads, and a U-Net has none. Use method=pca.")

    def features(self, condition: Condition | None, stream: RandomStream) -> tuple[Tensor, Tensor]:
        points = self.points(condition, stream)
        return points, points


def _next(levels: list[float], sigma: float) -> float:
    """The level after ``sigma`` in a descending grid."""
    return next((level for level in levels if level < sigma * (1 - 1e-6)), 0.0)


class _Moved(RandomStream):
    """A stream whose first normal numbers go through ``change``."""

    def __init__(self, stream: RandomStream, change: Callable[[Tensor], Tensor]):
        self.generators, self.device = stream.generators, stream.device
        self.change: Callable[[Tensor], Tensor] | None = change

    def randn(self, *shape: int) -> Tensor:
        drawn = super().randn(*shape)
        if self.change is not None:
            change, self.change = self.change, None
            return change(drawn)
        return drawn


@contextmanager
def _arguments(network: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside the block the first argument of ``network`` goes through ``change``."""
    hook = network.register_forward_pre_hook(lambda module, arguments: (change(arguments[0]), *arguments[1:]))
    with torch.compiler.set_stance("force_eager"):
        try:
            yield
        finally:
            hook.remove()


@contextmanager
def _outputs(block: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside the block the output of ``block`` goes through ``change``."""
    hook = block.register_forward_hook(lambda module, arguments, output: change(output))
    with torch.compiler.set_stance("force_eager"):
        try:
            yield
        finally:
            hook.remove()


def steered(space: Space, shift: Tensor | None) -> Draw:
    """What draws samples that are all moved by ``shift`` (D,)."""

    def draw(count: int, condition: Condition | None, stream: RandomStream) -> Tensor:
        return space.draw(condition, stream, None if shift is None else shift.to(stream.device).expand(count, -1))[0]

    return draw

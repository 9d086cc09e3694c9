"""Which family edits by which method: the functions behind the command ``edit``, for single models and pictures.

All take images (N, C, H, W) in [-1, 1] on the model's device, one row of ``generator`` for each, and a condition of N
rows or None; the caller puts the model in eval mode. Sample i of a seed is the same in any batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genlab.editing import inversion, langevin, latents
from genlab.editing.ddrm import ddrm
from genlab.editing.dps import agreeing, posterior
from genlab.editing.operators import Operator
from genlab.editing.repaint import JUMP_LENGTH, RESAMPLINGS, repaint
from genlab.editing.sdedit import sdedit as _sdedit
from genlab.editing.space import Space, space_of
from genlab.errors import ConfigError
from genlab.model.base import CompletesImages, Condition, GenerativeModel, HasLatent, HasPrior, HasScore, HasTokens
from genlab.sampling.latents import slerp
from genlab.seeding import RandomStream

Advance = Callable[[int], None]


def nothing_told(steps: int) -> None:
    pass


@dataclass(frozen=True)
class Search:
    """Settings of :func:`inpaint`, of which a family uses its own."""

    steps: int | None = None  # of gradients in a latent, or of a Markov chain; None: the default of each
    resamplings: int = RESAMPLINGS  # of a denoiser's steps
    jump_length: int = JUMP_LENGTH  # levels that a repeated stretch has
    strength: float = 1.0  # of a denoiser's steps, the share that is made
    advance: Advance = nothing_told  # told of each step of a search


@torch.no_grad()
def inpaint(
    model: GenerativeModel,
    image: Tensor,
    unknown: Tensor,
    condition: Condition | None,
    generator: RandomStream,
    search: Search | None = None,
) -> Tensor:
    """Images whose ``unknown`` (1, 1, H, W) places are the model's, and whose others are those of ``image`` to the last
    bit.

    Where all is unknown they are the model's samples; where nothing is, the images. Diffusion: :func:`repaint`, from
    noise or, at a strength below 1, from the images with noise; of latents, those that stand for an unknown place are
    unknown, and known pixels are pasted into what is decoded. Masked models and transformers draw unknown tokens;
    transformers see only what comes before. Flows: :func:`langevin`. VAEs and GANs: the latent that agrees with what
    is known, whose image is pasted.

    Raises:
        ConfigError: the family cannot.
        ValueError: a setting is outside its range.
    """
    check(model, "inpaint")
    if not unknown.any():
        return image
    search, space = search or Search(), space_of(model)
    if space is None and search.strength != 1:
        raise ConfigError(
            f"strength={search.strength} is a share of the steps of diffusion, and a {type(model).__name__} has none. "
            "Leave strength= out."
        )
    if unknown.all() and search.strength == 1:
        return model.sample(len(image), condition, generator)
    if space is not None:
        z, hidden = space.encode(image, condition), space.unknown(unknown)
        settings = (search.resamplings, search.jump_length, search.strength)
        filled = repaint(space.model.denoiser(condition), space.model.sampler, z, hidden, generator, *settings)
        drawn = space.decode(filled, condition)
    elif isinstance(model, CompletesImages):
        drawn = model.complete(image, unknown.expand(len(image), -1, -1, -1), condition, generator)
    elif isinstance(model, HasScore):
        start = model.sample(len(image), condition, generator)  # type: ignore[attr-defined]
        steps = langevin.STEPS if search.steps is None else search.steps
        model.evaluations += len(image) * (steps + 1)  # type: ignore[attr-defined]
        drawn = langevin.langevin(model, image, start, unknown, condition, generator, steps)
    elif latents.is_styled(model):
        steps = latents.STEPS if search.steps is None else search.steps
        rows = []
        for i, (row, seed) in enumerate(zip(image, generator.randint(2**31).tolist(), strict=True)):
            told = _row(condition, i)
            model.evaluations += steps
            rows.append(latents.projected(model, row[None], unknown, told, steps, seed, search.advance).image)
        drawn = torch.cat(rows).to(image)
    else:
        drawn = _by_latent(model, image, unknown, condition, generator, search)
    return torch.where(unknown, drawn, image)


def _by_latent(
    model: GenerativeModel,
    image: Tensor,
    unknown: Tensor,
    condition: Condition | None,
    generator: RandomStream,
    search: Search,
) -> Tensor:
    """By :func:`fitted`, from random latents, or from those of the image with a sample in its unknown places."""
    assert isinstance(model, HasPrior | HasLatent)
    has_prior = isinstance(model, HasPrior)
    if has_prior:
        start = generator.randn(*model.latent_shape)
    else:
        assert isinstance(model, HasLatent)
        start = model.encode(torch.where(unknown, model.sample(len(image), condition, generator), image), condition)  # type: ignore[attr-defined]
    steps = latents.STEPS if search.steps is None else search.steps
    model.evaluations += len(image) * (steps + 1)  # type: ignore[attr-defined]

    def decode(z: Tensor) -> Tensor:
        return model.decode(z, condition)  # type: ignore[no-any-return]

    return decode(latents.fitted(decode, start, image, ~unknown, steps, has_prior, search.advance))


@torch.no_grad()
def sdedit(
    model: GenerativeModel, image: Tensor, strength: float, condition: Condition | None, generator: RandomStream
) -> Tensor:
    """Images that keep of ``image`` what noise of a ``strength`` from 0 to 1 leaves, and are denoised under
    ``condition``; see :mod:`genlab.editing.sdedit`. At 0 they are ``image``, to the last bit. Raises ConfigError: not a
    diffusion model; ValueError: the strength is outside [0, 1]."""
    space = check(model, "sdedit")
    assert space is not None
    if strength == 0:
        return image
    z = space.encode(image, condition)
    denoise = space.model.denoiser(condition)
    return space.decode(_sdedit(denoise, space.model.sampler, z, strength, generator), condition)


@torch.no_grad()
def way(
    model: GenerativeModel,
    image: Tensor,
    condition: Condition | None,
    steps: int = inversion.STEPS,
    strength: float = 1.0,
) -> list[Tensor]:
    """What :func:`invert` passes, with the noise of each of its levels: ``image`` first, (N, *shape of what is
    denoised) each."""
    space = check(model, "invert")
    assert space is not None
    levels = inversion.ode_levels(space.model.sampler, steps, strength)
    return inversion.way(space.model.denoiser(condition), space.encode(image, condition), levels)


def invert(
    model: GenerativeModel,
    image: Tensor,
    condition: Condition | None,
    steps: int = inversion.STEPS,
    strength: float = 1.0,
) -> Tensor:
    """The noise that the ODE of a diffusion model makes ``image`` of, under ``condition``: (N, *shape of what is
    denoised); see :mod:`genlab.editing.inversion`. Of ``steps`` a share of ``strength`` is made. Raises ConfigError: no
    diffusion model, or one of consistency; ValueError: ``steps`` is below 1, or ``strength`` outside [0, 1]."""
    return noise_of(model, way(model, image, condition, steps, strength), steps, strength)


def noise_of(model: GenerativeModel, passed: Sequence[Tensor], steps: int, strength: float) -> Tensor:
    """The noise at the end of a :func:`way` of so many steps."""
    space = check(model, "invert")
    assert space is not None
    return passed[-1] / inversion.ode_levels(space.model.sampler, steps, strength)[-1]


@torch.no_grad()
def revert(
    model: GenerativeModel,
    noise: Tensor,
    condition: Condition | None,
    steps: int = inversion.STEPS,
    strength: float = 1.0,
    unknown: Tensor | None = None,
    passed: Sequence[Tensor] = (),
) -> Tensor:
    """The images of the noise that :func:`invert` gives, with the same steps and strength, under the same condition or
    another: (N, C, H, W). With ``unknown`` (N, 1, H, W) bool all other places keep what they have in ``passed``, the
    :func:`way` to the noise: DiffEdit (Couairon et al. 2023), with a mask that is given. Of latents, those are kept
    that stand for no unknown place."""
    space = check(model, "invert")
    assert space is not None
    levels = inversion.ode_levels(space.model.sampler, steps, strength)
    hidden = None if unknown is None else space.unknown(unknown)
    return space.decode(inversion.of_noise(space.model.denoiser(condition), noise, levels, hidden, passed), condition)


@torch.no_grad()
def interpolate(
    model: GenerativeModel,
    first: Tensor,
    second: Tensor,
    number: int,
    told: Callable[[int], Condition | None] = lambda rows: None,
    steps: int | None = None,
    seed: int = 0,
    advance: Advance = nothing_told,
) -> Tensor:
    """``number`` images on the way from ``first`` to ``second``, (1, C, H, W) each, both ends included: as the model
    makes them again. -> (number, C, H, W).

    The way goes along a great circle of latents: of diffusion, the noise of :func:`invert`; of flows and VAEs, what
    they encode; of GANs, the latent that is nearest (``steps`` of gradients), with styles along a straight line.
    ``told(N)``: the condition of N rows.

    Raises:
        ConfigError: the family cannot.
        ValueError: ``steps`` is below 1, or ``number`` below 2.
    """
    if number < 2:
        raise ValueError(f"n={number}: both pictures are on the way. Use n=2 or more.")
    space = check(model, "interpolate")
    both = torch.cat([first, second])
    t = torch.linspace(0, 1, number, device=both.device)
    if latents.is_styled(model):
        return _between_styles(model, both, t, told(1), steps or latents.STEPS, seed, advance)
    if space is not None:
        number_of_steps = inversion.STEPS if steps is None else steps
        z = invert(model, both, told(2), number_of_steps)
        return revert(model, _between(z, t), told(number), number_of_steps)
    condition = told(2)
    if isinstance(model, HasLatent):
        z = model.encode(both, condition)
    else:
        assert isinstance(model, HasPrior)
        start = RandomStream.for_samples(seed, [0], both.device).randn(*model.latent_shape).expand(2, -1)
        count = latents.STEPS if steps is None else steps
        model.evaluations += 2 * count  # type: ignore[attr-defined]
        known = torch.ones_like(both[:, :1], dtype=torch.bool)

        def decode(z: Tensor) -> Tensor:
            return model.decode(z, condition)  # type: ignore[no-any-return]

        z = latents.fitted(decode, start, both, known, count, advance=advance)
    model.evaluations += number  # type: ignore[attr-defined]
    return model.decode(_between(z, t), told(number))  # type: ignore[no-any-return]


def _between(z: Tensor, t: Tensor) -> Tensor:
    """(2, ...) -> (len(t), ...), along a great circle; the ends are those of ``z``."""
    rows = slerp(z[:1].expand(len(t), *z.shape[1:]), z[1:].expand(len(t), *z.shape[1:]), t)
    rows[0], rows[-1] = z[0], z[1]
    return rows


def _between_styles(
    model: GenerativeModel,
    both: Tensor,
    t: Tensor,
    condition: Condition | None,
    steps: int,
    seed: int,
    advance: Advance,
) -> Tensor:
    a, b = (latents.projected(model, end[None], None, condition, steps, seed, advance) for end in both)
    model.evaluations += 2 * steps + len(t)
    frames = []
    for place in t.tolist():
        styles = torch.lerp(a.styles, b.styles, place).to(both)
        noise = [slerp(x, y, place).to(both) for x, y in zip(a.noise, b.noise, strict=True)]
        frames.append(latents.synthesized(model, styles, noise))
    return torch.cat(frames)


@torch.no_grad()
def restore(
    model: GenerativeModel,
    method: str,
    operator: Operator,
    y: Tensor,
    condition: Condition | None,
    generator: RandomStream,
    noise: float = 0.0,
    strength: float = 1.0,
) -> Tensor:
    """Images x of a diffusion model with y = A x + ``noise`` * n, where A is ``operator`` and ``y`` (N, ...) as it
    measures: by ``method`` ``"ddrm"`` (:mod:`genlab.editing.ddrm`) or ``"dps"`` (:mod:`genlab.editing.dps`, whose
    gradient has a ``strength``). Without noise A x is y, up to rounding of floats.

    Raises:
        ConfigError: the model cannot.
        ValueError: a setting is outside its range.
    """
    assert method in ("ddrm", "dps")
    space = check(model, method)
    assert space is not None
    denoise, sampler = space.model.denoiser(condition), space.model.sampler
    if method == "ddrm":
        return ddrm(denoise, sampler, operator, y, space.model.shape, generator, noise)
    guided = posterior(denoise, operator, y, noise, strength)
    x = sampler(guided, generator.randn(*space.model.shape), generator)
    return x if noise > 0 else agreeing(operator, y, x)


def check(model: GenerativeModel, method: str) -> Space | None:
    """Where a diffusion model works, None for other families. Raises ConfigError: the model is not for ``method``."""
    space, name = space_of(model), type(model).__name__
    if method == "inpaint" or (method == "interpolate" and space is None):
        has_latent = isinstance(model, HasLatent | HasPrior)
        if method == "inpaint" and isinstance(model, HasTokens):
            has_latent = False  # whose prior is another model's
        completes = method == "inpaint" and isinstance(model, CompletesImages)
        if space is None and not has_latent and not completes:
            raise ConfigError(_no_way(method, name))
        return space
    if space is None:
        raise ConfigError(
            f"method={method} needs a denoiser, and a {name} has none. Name a run of diffusion, or inpaint with a "
            "mask: method=inpaint"
        )
    if space.is_consistency and method not in ("sdedit", "inpaint"):
        raise ConfigError(
            f"method={method} needs the expected image at each noise level, and model/objective=consistency gives the "
            "end of the ODE. Use method=sdedit or method=inpaint, or name a run of another objective."
        )
    if not space.is_of_pixels and method in ("ddrm", "dps"):
        raise ConfigError(
            f"method={method} measures pixels, and a {name} denoises latents, of which they are no linear function. "
            "Use method=inpaint or method=sdedit, or name a run of model=diffusion."
        )
    return space


def _no_way(method: str, name: str) -> str:
    if method == "interpolate":
        return (
            f"method=interpolate goes through latents, and a {name} has none that make a picture. Name a run of "
            "diffusion, of a flow, a VAE or a GAN."
        )
    return (
        f"method=inpaint: a {name} has neither a denoiser nor a prior of its latents to fill in with. Name a run of "
        "another model: model=masked on the codes of this one inpaints, too."
    )


def _row(condition: Condition | None, i: int) -> Condition | None:
    return None if condition is None else {key: value[i : i + 1] for key, value in condition.items()}

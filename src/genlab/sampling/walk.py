"""Walks through what a model has learned: a closed loop of pictures whose key frames are samples."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from genlab.errors import ConfigError
from genlab.model.base import Condition, GenerativeModel, HasPrior
from genlab.model.condition import moved
from genlab.model.float32 import exact_float32
from genlab.model.parts import Adversarial, StyledGenerator
from genlab.sampling.draw import asked_of, in_batches
from genlab.sampling.form import Form
from genlab.sampling.latents import slerp
from genlab.sampling.pictures import Pictures
from genlab.seeding import RandomStream

KEYS = 8  # key frames, and
FRAMES = 30  # pictures from one of them to the next, where nothing is asked for


def check_walk(model: GenerativeModel, form: Form, run: Path) -> None:
    """Raises ConfigError: samples of the model are not pictures that change smoothly with their noise."""
    if not (isinstance(model, HasPrior) and isinstance(form, Pictures)):
        raise ConfigError(
            f"{run} holds a {type(model).__name__}, which makes no pictures of a single latent with a normal prior, as "
            "GAN, VAE and flow do: nothing to walk along. Leave frames= and the .gif or .mp4 out, or name another run."
        )


def walk(
    model: GenerativeModel, keys: int, frames: int, seed: int, batch_size: int, typed: Condition | None = None
) -> Iterator[Tensor]:
    """A closed loop through samples 0 to ``keys`` - 1 of a seed, ``frames`` pictures from each to the next, batch by
    batch: (N, C, H, W) as the model gives them. Picture k * ``frames`` is sample k.

    Noise goes along great circles, and the condition changes half-way from one sample to the next. Of a generator with
    styles these go, as samples have them, along straight lines (Karras et al. 2019, section 4.1), and with them the
    condition, which they hold. ``typed``: conditions of the key frames, as in
    :func:`asked_of`. The caller puts the model in eval mode.
    """
    place = torch.arange(keys * frames)
    start, t = place // frames, (place % frames) / frames
    end = (start + 1) % keys
    told = asked_of(model, range(keys), typed)
    if isinstance(model, Adversarial) and isinstance(model.generator, StyledGenerator):
        draw = _along_styles(model, keys, seed, told, start, end, t)
    else:
        draw = _along_noise(model, seed, told, start, end, t)
    yield from in_batches(model, draw, len(place), batch_size)


def _along_noise(
    model: GenerativeModel, seed: int, told: Condition | None, start: Tensor, end: Tensor, t: Tensor
) -> Callable[[slice], Tensor]:
    nearer = torch.where(t < 0.5, start, end)

    def draw(batch: slice) -> Tensor:
        first, second = (RandomStream.for_samples(seed, keys[batch].tolist(), model.device) for keys in (start, end))
        stream = Between(first, second, t[batch])
        rows = None if told is None else {key: values[nearer[batch].to(values.device)] for key, values in told.items()}
        return model.sample(len(stream), moved(rows, model.device), stream)

    return draw


@torch.no_grad()
def _along_styles(
    model: GenerativeModel, keys: int, seed: int, told: Condition | None, start: Tensor, end: Tensor, t: Tensor
) -> Callable[[slice], Tensor]:
    assert isinstance(model, Adversarial)
    generator = model.generator
    assert isinstance(generator, StyledGenerator)
    stream = RandomStream.for_samples(seed, range(keys), model.device)
    with exact_float32(model.device):
        noise = model.noise(stream)
        styles = generator.truncated(generator.map(noise, model.conditions.drawn(told, stream)))

    @torch.no_grad()
    def draw(batch: slice) -> Tensor:
        part = t[batch].to(styles)[:, None, None]
        return generator.synthesize(torch.lerp(styles[start[batch]], styles[end[batch]], part))

    return draw


class Between(RandomStream):
    """The random numbers of a place on the way between two streams, row by row.

    Normal numbers go along great circles, all that are drawn together; uniform ones are the ranks of normal ones that
    do. Integers change half-way. At 0 they are the first stream's, to the last bit.
    """

    def __init__(self, start: RandomStream, end: RandomStream, t: Tensor):
        """``t``: (N,) from 0 to 1, of streams of N rows."""
        self.start, self.end, self.t, self.device = start, end, t.to(start.device), start.device

    def __len__(self) -> int:
        return len(self.start)

    def randn(self, *shape: int) -> Tensor:
        return self._between(self.start.randn(*shape), self.end.randn(*shape))

    def rand(self, *shape: int) -> Tensor:
        start, end = self.start.rand(*shape), self.end.rand(*shape)
        normal = (torch.special.ndtri(uniform.double().clamp(min=2.0**-25)) for uniform in (start, end))
        ranks = torch.special.ndtr(self._between(*normal)).to(start.dtype).clamp(max=1 - 2.0**-24)
        return torch.where(self._rows(start) == 0, start, ranks)

    def randint(self, high: int, *shape: int) -> Tensor:
        start, end = self.start.randint(high, *shape), self.end.randint(high, *shape)
        return torch.where(self._rows(start) < 0.5, start, end)

    def _between(self, start: Tensor, end: Tensor) -> Tensor:
        rows = len(start)
        between = slerp(start.view(rows, -1), end.view(rows, -1), self.t).view_as(start)
        return torch.where(self._rows(start) == 0, start, between)

    def _rows(self, like: Tensor) -> Tensor:
        """(N,) -> (N, 1, ...), to be broadcast with ``like``."""
        return self.t.view(-1, *[1] * (like.ndim - 1))

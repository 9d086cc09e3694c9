"""Draws samples, where sample i is a function of (seed, i) for any batch size, and chooses the conditions of grids."""

import warnings
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from genlab.data.image import to_pixels
from genlab.model.base import Condition, GenerativeModel, in_eval_mode
from genlab.model.condition import moved
from genlab.model.float32 import exact_float32
from genlab.seeding import RandomStream


def draws(
    model: GenerativeModel,
    indices: Sequence[int],
    condition: Condition | None,  # of all samples: row i is for sample indices[i]
    seed: int,
    batch_size: int,
) -> Iterator[Tensor]:
    """The samples ``indices`` of a seed, as the model gives them, batch by batch. The caller puts it in eval mode.

    Where a GPU's memory does not hold ``batch_size`` of them at a time, half as many are tried: they are the same.
    """

    def draw(batch: slice) -> Tensor:
        stream = RandomStream.for_samples(seed, indices[batch], model.device)
        told = None if condition is None else {key: values[batch] for key, values in condition.items()}
        return (model.drawn_by or model.sample)(len(stream), moved(told, model.device), stream)

    yield from in_batches(model, draw, len(indices), batch_size)


def in_batches(
    model: GenerativeModel, draw: Callable[[slice], Tensor], count: int, batch_size: int
) -> Iterator[Tensor]:
    """What ``draw`` makes of places 0 to ``count`` - 1 with a model, batch by batch, in exact float32; where a GPU's
    memory does not hold ``batch_size`` of them at a time, half as many are tried."""
    start = 0
    while start < count:
        batch = slice(start, min(start + batch_size, count))
        samples = _drawn(model, draw, batch)
        if samples is not None:
            start = batch.stop
            yield samples
        else:
            torch.cuda.empty_cache()
            batch_size = (batch.stop - start) // 2
            warnings.warn(f"a GPU holds fewer samples: {batch_size} are drawn at a time.", stacklevel=3)


def _drawn(model: GenerativeModel, draw: Callable[[slice], Tensor], batch: slice) -> Tensor | None:
    """The samples of a batch; None: two or more, for which a GPU's memory is too small."""
    evaluations = model.evaluations
    try:
        with exact_float32(model.device):
            return draw(batch)
    except torch.OutOfMemoryError:  # a GPU's
        if batch.stop - batch.start == 1:
            raise
        model.evaluations = evaluations  # of samples that are there
        return None


def sample_images(
    model: GenerativeModel, indices: range, seed: int, typed: Condition | None = None, bits: int = 8
) -> Tensor:
    """The samples ``indices`` of a seed, (N, C, H, W) uint8 (uint16 if ``bits`` is 16), on the CPU; conditioned as
    :func:`asked_of` describes."""
    with in_eval_mode(model):
        images = torch.cat([*draws(model, indices, asked_of(model, indices, typed), seed, len(indices))])
    return to_pixels(images, bits).cpu()


def asked_of(model: GenerativeModel, indices: range, typed: Condition | None = None) -> Condition | None:
    """The conditions of the samples ``indices`` of a grid: the rows of ``typed`` in turn, with keys that it lacks left
    unconditional; or if nothing is typed, all classes, or held-out captions, in turn. An evaluation uses another mix:
    that of its reference."""
    conditions = model.conditions
    if not typed:
        return moved(conditions.in_turn(indices), model.device)
    rows = {key: values[torch.tensor(indices) % len(values)] for key, values in typed.items()}
    return conditions.filled(rows, len(indices), model.device)

"""Draws samples, where sample i is a function of (seed, i) for any batch size, and chooses the conditions of grids."""

import warnings
from collections.abc import Iterator, Sequence

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
    start = 0
    while start < len(indices):
        batch = slice(start, start + batch_size)
        stream = RandomStream.for_samples(seed, indices[batch], model.device)
        told = None if condition is None else {key: values[batch] for key, values in condition.items()}
        samples = _drawn(model, stream, told)
        if samples is not None:
            start += len(stream)
            yield samples
        else:
            torch.cuda.empty_cache()
            batch_size = len(stream) // 2
            warnings.warn(f"a GPU holds fewer samples: {batch_size} are drawn at a time.", stacklevel=2)


def _drawn(model: GenerativeModel, stream: RandomStream, told: Condition | None) -> Tensor | None:
    """The samples of a stream; None: two or more, for which a GPU's memory is too small."""
    evaluations = model.evaluations
    try:
        with exact_float32(model.device):
            return model.sample(len(stream), moved(told, model.device), stream)
    except torch.OutOfMemoryError:  # a GPU's
        if len(stream) == 1:
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

"""What the samples of a grid are asked for, and drawing them: sample i is a function of (seed, i)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from genlab.data.image import to_pixels
from genlab.model.base import Condition, GenerativeModel, in_eval_mode
from genlab.model.classes import in_turn
from genlab.seeding import RandomStream


def sample_images(
    model: GenerativeModel, indices: range, seed: int, labels: Sequence[int] | None = None, bits: int = 8
) -> Tensor:
    """The samples ``indices`` of a seed, (N, C, H, W) uint8 (uint16 if ``bits`` is 16), on the CPU; of ``labels`` in
    turn, or of all classes."""
    with in_eval_mode(model):
        stream = RandomStream.for_samples(seed, indices, model.device)
        images = model.sample(len(indices), asked_of(model, indices, labels), stream)
    return to_pixels(images, bits).cpu()


def asked_of(model: GenerativeModel, indices: range, labels: Sequence[int] | None = None) -> Condition | None:
    """What the samples ``indices`` are asked for: their labels, if the model takes any."""
    wanted = asked_labels(model, indices, labels)
    return None if wanted is None else {"label": wanted.to(model.device)}


def asked_labels(model: GenerativeModel, indices: range, labels: Sequence[int] | None = None) -> Tensor | None:
    """The labels of samples ``indices`` of a grid, (N,), on the CPU: ``labels``, or all classes, in turn; None where a
    model takes none. An evaluation asks for another mix: that of its reference."""
    turns = in_turn(model, indices)
    return turns if turns is None or labels is None else torch.tensor(labels)[torch.tensor(indices) % len(labels)]

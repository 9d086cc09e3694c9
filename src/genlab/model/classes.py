"""The classes that a model knows."""

from collections.abc import Sequence

import torch
from torch import Tensor

from genlab.model.base import GenerativeModel


def classes_of(model: GenerativeModel) -> list[int]:
    """The labels that samples can be asked for, in order: those that training had. Without labels, none."""
    return [label for label in range(model.num_classes or 0) if label not in model.empty_classes]


def in_turn(model: GenerativeModel, indices: Sequence[int]) -> Tensor | None:
    """Label i is class i modulo the classes: int64 (N,), on the CPU. None: the model takes no labels."""
    if model.num_classes is None:
        return None
    classes = torch.tensor(classes_of(model))
    return classes[torch.tensor(indices) % len(classes)]

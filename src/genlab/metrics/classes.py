"""Helpers for metrics that average over classes: labels, and checks for enough examples of each."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from genlab.errors import DataError
from genlab.metrics.base import MetricBatch

LABEL = "label"  # the column of a batch


def labels_of(batch: MetricBatch, metric: str) -> Tensor:
    """Raises DataError if a batch has none. ``metric``: its name, for the message."""
    if "label" not in batch:
        raise DataError(f"{metric} needs labels and the data have none. Leave it out of metrics=[...].")
    label: Tensor = batch["label"]
    return label


def labels_or_none(labels: Tensor | None, count: int) -> Tensor:
    """(N,), -1 = none."""
    return torch.full((count,), -1) if labels is None else labels


def check_two_classes(real: Tensor, metric: str) -> None:
    """``real``: labels of the reference (M,). Raises DataError if there are fewer than two classes."""
    found = real[real >= 0].unique().numel()
    if found < 2:
        raise DataError(
            f"{metric} needs a reference of two classes or more, got {found}. Leave it out of metrics=[...]."
        )


def members(real: Tensor, fake: Tensor, metric: str, least: int = 2) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of labels (N,) and (M,), -1 = none: for each class, in order, the places of its real and generated examples.

    Raises DataError if a class has fewer than ``least`` of either.
    """
    sides = real.cpu().numpy(), fake.cpu().numpy()
    classes: Sequence[int] = [int(c) for c in np.union1d(*sides) if c >= 0]
    if not classes:
        raise DataError(f"{metric} needs labels; all are -1. Leave it out of metrics=[...].")
    found = []
    for c in classes:
        places = tuple(np.flatnonzero(labels == c) for labels in sides)
        if min(map(len, places)) < least:
            raise DataError(
                f"{metric} needs at least {least} examples of each class: class {c} has {len(places[0])} real, "
                f"{len(places[1])} generated. Use a larger evaluation.num_samples or reference, or "
                "task.balanced_classes=true, or leave it out of metrics=[...]."
            )
        found.append((places[0], places[1]))
    return found


def random_pairs(groups: list[np.ndarray], count: int, seed: int) -> np.ndarray:
    """Two different places of a group, of each group in turn. Groups: (n,), n >= 2. -> (count, 2)."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.choice(groups[i % len(groups)], 2, replace=False) for i in range(count)])

"""Numbers that are means over classes: which there are, and whether there is enough of each."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from genlab.errors import DataError
from genlab.metrics.base import MetricBatch


def labels_of(batch: MetricBatch, metric: str) -> Tensor:
    """Raises DataError if a batch has none. ``metric``: its name, for the message."""
    if "label" not in batch:
        raise DataError(f"{metric} needs labels and the data have none. Leave it out of metrics=[...].")
    label: Tensor = batch["label"]
    return label


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
                "evaluation.balanced_classes=true, or leave it out of metrics=[...]."
            )
        found.append((places[0], places[1]))
    return found

"""Makes batches for metrics, and updates the metrics with them."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from genlab.evaluation.failures import of_all_ranks
from genlab.evaluation.reference import CHUNK
from genlab.machine.rank import rank, world
from genlab.sampling.examples import Examples


def batches_of(examples: Examples, given: Mapping[str, Tensor]) -> Iterator[dict[str, Any]]:
    """Metric batches on the CPU, of this rank's share: its i-th example is number rank + i * world of the set."""
    index = torch.arange(len(examples)) * world() + rank()
    for start in range(0, len(examples), CHUNK):
        rows = slice(start, start + CHUNK)
        columns = {**examples.columns, "index": index, **given}
        yield {name: values[rows] for name, values in columns.items()}


def update(
    metrics: Mapping[str, Any],
    batch: Mapping[str, Any],
    device: torch.device,
    real: bool,
    failures: dict[str, Exception],  # by metric; those that fail are added, and are not fed any more
) -> None:
    moved = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}
    for name, metric in metrics.items():
        if name not in failures:
            try:
                metric.update(moved, real=real)
            except Exception as error:
                failures[name] = error


def computed(metrics: Mapping[str, Any], failures: dict[str, Exception]) -> dict[str, dict[str, float]]:
    """The numbers of every metric that has not failed on any rank; those that fail are added to ``failures``."""
    failures.update(of_all_ranks(failures))
    found = {}
    for name, metric in metrics.items():
        if name not in failures:
            try:
                found[name] = {key: float(value) for key, value in metric.compute().items()}
            except Exception as error:
                failures[name] = error
    return found

"""Bootstrap standard errors: numbers computed again for samples resampled with replacement."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from genlab.machine.rank import rank, world
from genlab.metrics.base import EXTRACTED
from genlab.metrics.classes import LABEL
from genlab.progress import progress
from genlab.seeding import derive_seed

QUICK = EXTRACTED | {LABEL}  # columns that bootstrapped metrics may read


def bootstrapped(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics that do not read pixels, whose inputs are small."""
    return {name: metric for name, metric in metrics.items() if metric.reads <= QUICK}


def standard_errors(
    metrics: Mapping[str, Any],  # which have seen the reference and no sample
    samples: Sequence[Mapping[str, Any]],  # batches of this rank's samples
    times: int,
    seed: int,
) -> dict[str, dict[str, float]]:
    """The standard deviation of each metric's numbers over ``times`` resamplings (Efron 1979), by metric and name.

    The reference is not resampled, since the protocol fixes it. Resampled sets repeat samples, which biases distances
    upwards, so only the spread is used, not the mean.
    """
    rows = _of_all_ranks({k: torch.cat([batch[k] for batch in samples]) for k, v in samples[0].items() if _is_rows(v)})
    count, mine = len(rows["index"]), slice(rank(), None, world())
    rng = np.random.default_rng(derive_seed(seed, 1))
    found: dict[str, dict[str, list[float]]] = {name: {} for name in metrics}
    with progress(f"resampling {count:,} samples {times} times", times, quiet=rank() != 0) as advance:
        for _ in range(times):
            chosen = torch.from_numpy(rng.integers(0, count, count))[mine]
            resampled = {key: values[chosen] for key, values in rows.items()} | {"index": torch.arange(count)[mine]}
            for name, metric in metrics.items():
                again = copy.deepcopy(metric)
                again.update(resampled, real=False)
                for key, value in again.compute().items():
                    found[name].setdefault(key, []).append(float(value))
            advance(1)
    return {name: {key: float(np.std(v, ddof=1)) for key, v in values.items()} for name, values in found.items()}


def _of_all_ranks(rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """The rows of all ranks, in the order of the examples."""
    if world() == 1:
        return rows
    device = rows["index"].device
    shares: list[Any] = [None] * world()
    dist.all_gather_object(shares, {key: values.cpu() for key, values in rows.items()})
    together = {key: torch.cat([share[key] for share in shares]) for key in rows}
    order = together["index"].argsort()
    return {key: values[order].to(device) for key, values in together.items()}


def _is_rows(values: Any) -> bool:
    return isinstance(values, Tensor) and values.dtype != torch.uint8

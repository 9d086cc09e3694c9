"""Two sides timed in turns on one clock, and the ratio of each pair with its interval."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from scipy.stats import binom

from benchmarks.time_by_kind import TimeByKind

LEVEL = 0.95


@dataclass(frozen=True)
class Spent:
    """Seconds of one call. ``cpu``: of all threads of the process; on a GPU it says nothing, and ``wall`` counts."""

    cpu: float
    wall: float

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.cpu + other.cpu, self.wall + other.wall)

    def __sub__(self, other: "Spent") -> "Spent":
        return Spent(self.cpu - other.cpu, self.wall - other.wall)

    def __truediv__(self, count: float) -> "Spent":
        return Spent(self.cpu / count, self.wall / count)


def clock(device: str = "cpu") -> Spent:
    """Now. On a GPU everything that was asked of it is over by then."""
    if device == "cuda":
        torch.cuda.synchronize()
    return Spent(time.process_time(), time.perf_counter())


def timed(run: Callable[[], object], device: str = "cpu", calls: int = 1) -> Spent:
    """Of one call, the mean of ``calls``."""
    began = clock(device)
    for _ in range(calls):
        run()
    return (clock(device) - began) / calls


Side = Callable[[], object]


class Measured(dict[str, list[Spent]]):
    """By side, one for each round: seconds of a call. ``by_kind``: where they go, of sides that were looked at."""

    def __init__(self, spent: Mapping[str, list[Spent]] = MappingProxyType({})):
        super().__init__(spent)
        self.by_kind: dict[str, TimeByKind] = {}


def in_turns(
    sides: Mapping[str, Callable[[], object]], rounds: int, seconds: float = 0.6, device: str = "cpu", slices: int = 1
) -> Measured:
    """Each round, every side works for about ``seconds`` in ``slices`` turns, the first side first and last in turn.

    Whatever else the machine does then meets all sides alike. A side may be a function that times itself and returns
    ``Spent``: one that works in another process.
    """
    for run in sides.values():  # caches, lazy imports, first allocations
        run()
    calls = {}
    for name, run in sides.items():
        calls[name] = max(1, math.ceil(seconds / slices / max(1e-6, once(run, device).wall)))
    measured = Measured({name: [] for name in sides})
    for number in range(rounds):
        spent = dict.fromkeys(sides, Spent(0.0, 0.0))
        for turn in range(slices):
            order = list(sides) if (number + turn) % 2 == 0 else list(reversed(sides))
            for name in order:
                spent[name] += once(sides[name], device, calls[name])
        for name in sides:
            measured[name].append(spent[name] / slices)
    return measured


def once(run: Side, device: str, calls: int = 1) -> Spent:
    """Of one call, the mean of ``calls``; of a side that times itself, what it says."""
    began = clock(device)
    told = [result for _ in range(calls) if isinstance(result := run(), Spent)]
    if told:
        return sum(told, start=Spent(0.0, 0.0)) / len(told)
    return (clock(device) - began) / calls


@dataclass(frozen=True)
class Ratio:
    """A median of paired ratios. ``coverage``: how often such an interval holds the median that it is an estimate of,
    whatever the ratios are distributed like; few rounds cannot have 95 %."""

    median: float
    low: float
    high: float
    coverage: float


def paired_ratio(theirs: Sequence[float], ours: Sequence[float]) -> Ratio:
    """Of each round their time over ours: above 1, genlab is faster. Raises ValueError: there is no round."""
    ratios = sorted(a / b for a, b in zip(theirs, ours, strict=True))
    low, high, coverage = interval_of_median(ratios)
    return Ratio(statistics.median(ratios), low, high, coverage)


def interval_of_median(values: Sequence[float], level: float = LEVEL) -> tuple[float, float, float]:
    """Between the k-th smallest and the k-th largest of n values, which holds the median of their distribution with
    probability 1 - 2 P(B < k), B binomial (n, 1/2). -> (low, high, that probability), of the largest k that has at
    least ``level``, or of 1 where none has."""
    if not values:
        raise ValueError("there is no value to be the median of.")
    ordered, n = sorted(values), len(values)
    coverages = {k: 1 - 2 * float(binom.cdf(k - 1, n, 0.5)) for k in range(1, (n + 1) // 2 + 1)}
    k = max((k for k, coverage in coverages.items() if coverage >= level), default=1)
    return ordered[k - 1], ordered[n - k], max(0.0, coverages[k])

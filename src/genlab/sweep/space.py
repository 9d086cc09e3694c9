"""The search space of a sweep's command line: overrides shared by all trials, and axes with several values."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import product

from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, RangeSweep

from genlab.config.overrides import line_of, name_of
from genlab.errors import ConfigError

MOST = 100_000  # combinations
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?")


@dataclass(frozen=True)
class Axis:
    """An override with several values, each as it would be typed."""

    name: str
    values: tuple[str, ...] = ()  # none: those between the bounds
    low: float = 0
    high: float = 0
    step: float | None = None  # of a range
    log: bool = False

    def takes(self, override: str) -> bool:
        """Whether an override is one of these."""
        name, _, value = override.partition("=")
        if name != self.name:
            return False
        if value in self.values:
            return True
        return self.low < self.high and _NUMBER.fullmatch(value) is not None and self.low <= float(value) <= self.high


@dataclass(frozen=True)
class Space:
    """Overrides in the order they were typed, because a later one may build on an earlier."""

    parts: tuple[str | Axis, ...]

    @property
    def axes(self) -> list[Axis]:
        return [part for part in self.parts if isinstance(part, Axis)]

    def overrides(self, values: Mapping[str, str]) -> list[str]:
        """A trial's, given one value of each axis."""
        return [part if isinstance(part, str) else f"{part.name}={values[part.name]}" for part in self.parts]

    def gives(self, overrides: Sequence[str]) -> bool:
        """Whether a trial of this space may have these overrides, in whatever order."""
        left = list(overrides)
        for part in self.parts:
            fitting = (o for o in left if (o == part if isinstance(part, str) else part.takes(o)))
            if (found := next(fitting, None)) is None:
                return False
            left.remove(found)
        return not left

    def size(self) -> int | None:
        """How many combinations there are; None: no end of them."""
        count = 1
        for axis in self.axes:
            count *= len(axis.values)
        return count or None

    def combinations(self) -> list[dict[str, str]]:
        """All there are, as one value of each axis, the last axis running fastest. Raises ConfigError."""
        for axis in self.axes:
            if not axis.values:
                raise ConfigError(
                    f"{axis.name} is an interval, which a grid cannot enumerate. Name its values, "
                    "or let them be drawn: sweep=optuna."
                )
        if (self.size() or 0) > MOST:
            raise ConfigError(
                f"these are {self.size():,} combinations. Name fewer values, or let some be drawn: "
                "sweep=optuna sweep.n_trials=100."
            )
        names = [axis.name for axis in self.axes]
        return [dict(zip(names, choice, strict=True)) for choice in product(*(axis.values for axis in self.axes))]


def read_space(overrides: Sequence[Override], groups: Mapping[str, Sequence[str]]) -> Space:
    """The space of a command line. ``groups``: their options, for ``model=glob(*)``. Raises ConfigError."""
    parts: list[str | Axis] = []
    for override in overrides:
        parts.append(_axis(override, groups) if override.is_sweep_override() else line_of(override))
    names = [part.name for part in parts if isinstance(part, Axis)]
    typed = [name_of(override) for override in overrides]
    if twice := next((name for name in names if typed.count(name) > 1), None):
        raise ConfigError(f"{twice} is named twice. Name its values once: {twice}=a,b")
    return Space(tuple(parts))


def _axis(override: Override, groups: Mapping[str, Sequence[str]]) -> Axis:
    name, sweep = name_of(override), override.value()
    if isinstance(sweep, Glob):
        found = [o for o in groups.get(name, []) if any(fnmatch(o, pattern) for pattern in sweep.include)]
        chosen = [o for o in found if not any(fnmatch(o, pattern) for pattern in sweep.exclude)]
        if not chosen:
            raise ConfigError(f"{override.input_line}: nothing matches.")
        return Axis(name, tuple(chosen))
    log = "log" in sweep.tags if isinstance(sweep, ChoiceSweep | RangeSweep | IntervalSweep) else False
    if isinstance(sweep, IntervalSweep):
        assert sweep.start is not None
        assert sweep.end is not None
        low, high = sweep.start, sweep.end
        if low >= high or (log and low <= 0):
            raise ConfigError(
                f"{override.input_line}: an interval goes from a lower to a higher number"
                f"{', and on a logarithmic scale both are above 0' * log}."
            )
        return Axis(name, low=low, high=high, log=log)
    values = tuple(dict.fromkeys(override.sweep_string_iterator()))
    if not values:
        raise ConfigError(f"{override.input_line} has no value.")
    if isinstance(sweep, RangeSweep) and len(values) > 1:
        numbers = sorted(map(float, values))
        whole = all(isinstance(number, int) for number in (sweep.start, sweep.stop, sweep.step))
        bounds = [int(n) if whole else n for n in (numbers[0], numbers[-1])]
        return Axis(name, values, bounds[0], bounds[1], abs(sweep.step), log)
    return Axis(name, values)


def folder_of(overrides: Sequence[str]) -> str:
    """The name of a trial's folder: the same for the same overrides, in whatever order."""
    return hashlib.sha256("\n".join(sorted(overrides)).encode()).hexdigest()[:10]

"""Columns of a comparison: quality, bits per dimension, cost and speed, each with its unit and direction."""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from genlab.report.measurement import Direction, Measurement
from genlab.report.protocol import Chosen
from genlab.report.runs import COSTS, Run
from genlab.report.significance import half_width

ARROWS = {"lower": " ↓", "higher": " ↑", "one": " →1", None: ""}
COST_HEADS: dict[str, tuple[str, str, Direction]] = {
    "parameters": ("parameters", "", "lower"),
    "seconds": ("training", "seconds", "lower"),
    "examples": ("examples", "", "lower"),
    "flops": ("training", "FLOP", "lower"),
    "peak_memory_bytes": ("memory", "B", "lower"),
    "samples_per_second": ("samples", "per second", "higher"),
    "evaluations_per_sample": ("evaluations", "a sample", "lower"),
}
COUNTED = ("parameters", "examples", "flops", "evaluations_per_sample")  # known exactly, not measured
SCALED = ("parameters", "examples", "flops", "peak_memory_bytes")
PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
# Of likelihoods: what is told, its kind (exact, bound or estimate), and of which split, how much of it.
LIKELIHOODS = re.compile(r"(bits_per_dim|bits_per_byte|perplexity)_([a-z]+)_(.+)")
TITLES = {"bits_per_dim": "bits/dim", "bits_per_byte": "bits/byte", "perplexity": "perplexity"}


@dataclass(frozen=True)
class Column:
    name: str  # fid
    key: str  # fid_digits64_1k, where all rows share that
    unit: str  # second line of the heading
    direction: Direction | None
    numbers: list[float | None]  # of the configurations (means over seeds), then of the baselines
    title: str = ""
    scale: float = 1.0  # one of the unit
    kinds: list[str] = field(default_factory=list)  # shown behind each number, unless the same for all
    is_quality: bool = False  # of samples, by the protocol
    seeds: list[list[float | None]] = field(default_factory=list)  # of each configuration: the numbers of its runs

    @property
    def head(self) -> str:
        return self.title or f"{self.name}{ARROWS[self.direction]}"

    def worth(self, row: int) -> float:
        """A row's sort key: lower is better; missing values and nan come last."""
        return self.worth_of(self.numbers[row])

    def worth_of(self, number: float | None) -> float:
        if number is None or math.isnan(number):
            return math.inf
        return {"higher": -number, "one": abs(number - 1)}.get(str(self.direction), number)

    def drawn(self, row: int) -> list[float]:
        """The numbers of a configuration's seeds, where there are some."""
        return [number for number in self.seeds[row] if number is not None and math.isfinite(number)]

    def half_width(self, row: int) -> float | None:
        """Half width of the interval over seeds. None: there is none, or nothing varies."""
        return self._half_widths[row] if row < len(self.seeds) else None

    @cached_property
    def _half_widths(self) -> list[float | None]:
        return [half_width(self.drawn(row)) or None for row in range(len(self.seeds))]

    def cell(self, row: int, runs: int) -> str:
        """A row's number; all of a column have as many decimals as make four digits of the largest run's."""
        number = self.numbers[row]
        if number is None:
            return "–" if row < runs else ""
        if runs not in self._decimals_of:  # every cell asks, and every number has a say in it
            self._decimals_of[runs] = self._decimals(runs)
        decimals = self._decimals_of[runs]
        shown = f"{number / self.scale:,.{decimals}f}"
        if width := self.half_width(row):
            shown += f" ±{width / self.scale:,.{decimals}f}"
        return f"{shown} {self.kinds[row]}" if self.kinds else shown

    @cached_property
    def _decimals_of(self) -> dict[int, int]:
        return {}

    def _decimals(self, runs: int) -> int:
        sizes = [abs(n) / self.scale for n in self.numbers[:runs] if n is not None and math.isfinite(n)]
        whole = all(n is None or float(n).is_integer() for n in self.numbers) and self.scale == 1
        largest = max(sizes, default=0.0)
        return 0 if whole else min(4, max(0, 3 - math.floor(math.log10(largest)))) if largest else 4


def columns(
    runs: Sequence[Run], chosen: Chosen, baselines: Mapping[str, Mapping[str, float]]
) -> tuple[list[Column], list[str]]:
    """All columns, quality first, of runs and baselines; and the metrics that only some runs have."""
    quality, partial = _quality(len(runs), chosen, baselines)
    return [*quality, *_likelihoods(runs, chosen, len(baselines)), *_costs(runs, len(baselines))], partial


def over_seeds(column: Column, groups: Sequence[tuple[int, ...]]) -> Column:
    """A column of runs as one of configurations: the mean of the runs that have a number."""
    runs = sum(map(len, groups))
    seeds = [[column.numbers[i] for i in group] for group in groups]
    having = [[number for number in row if number is not None] for row in seeds]
    means = [(row[0] if len(row) == 1 else statistics.fmean(row)) if row else None for row in having]
    kinds = [next((column.kinds[i] for i in group if column.kinds[i]), "") for group in groups] if column.kinds else []
    return replace(column, numbers=[*means, *column.numbers[runs:]], kinds=[*kinds, *column.kinds[runs:]], seeds=seeds)


def counts(groups: Sequence[tuple[int, ...]], baselines: int) -> list[Column]:
    """How many seeds each configuration has, where one has several."""
    numbers: list[float | None] = [len(group) for group in groups]
    alone = all(len(group) == 1 for group in groups)
    column = Column("seeds", "seeds", "", None, numbers + [None] * baselines, title="seeds")
    return [] if alone else [replace(column, seeds=[[None] * len(group) for group in groups])]


def _quality(
    count: int, chosen: Chosen, baselines: Mapping[str, Mapping[str, float]]
) -> tuple[list[Column], list[str]]:
    if chosen.standard is None:
        return [], []
    # Names without their sample count: where unequal counts are allowed, it stands in the marks.
    short = {i: {base(name, m.protocol): v for name, v in m.values.items()} for i, m in chosen.measured.items()}
    full: dict[str, str] = {}
    standards = [chosen.standard, *chosen.measured.values()]
    for measurement in standards:
        for name in measurement.values:
            full.setdefault(base(name, measurement.protocol), name)
    wanted = [name for name in full if not LIKELIHOODS.fullmatch(full[name]) and not name.endswith(("_std", "_se"))]
    shared = [name for name in wanted if all(name in values for values in short.values())]
    found = []
    for name in shared:
        numbers = [short[i][name] if i in short else None for i in range(count)]
        numbers += [row.get(full[name]) for row in baselines.values()]
        unit = "" if chosen.unequal else full[name].removeprefix(f"{name}_")
        key = name if chosen.unequal else full[name]
        direction = next((m.directions[full[name]] for m in standards if full[name] in m.directions), None)
        found.append(Column(name, key, unit, direction, numbers, is_quality=True))
    return found, [name for name in wanted if name not in shared]


def base(name: str, protocol: Mapping[str, Any]) -> str:
    """``fid_digits64_1k`` -> ``fid``."""
    count = protocol.get("num_samples")
    if isinstance(count, int):
        name = name.removesuffix(f"_{count // 1000}k" if count % 1000 == 0 else f"_{count}")
    return name.removesuffix(f"_{protocol.get('extractor')}")


def _likelihoods(runs: Sequence[Run], chosen: Chosen, baselines: int) -> list[Column]:
    """A column for each unit and set of held-out data; the kind is in the cell, since families differ in it."""
    found: dict[tuple[str, str], dict[int, tuple[float, str]]] = {}
    for i, own in chosen.measured.items():
        same_noise = [m for m in runs[i].measurements.values() if _same_images(m, own)]
        for measurement in [own, *same_noise]:
            for name, value in measurement.values.items():
                if match := LIKELIHOODS.fullmatch(name):
                    found.setdefault((match[1], match[3]), {}).setdefault(i, (value, match[2]))
    result = []
    for (name, subject), values in sorted(found.items(), key=lambda item: (list(TITLES).index(item[0][0]), item[0])):
        rows = [values.get(i, (None, "")) for i in range(len(runs))] + [(None, "")] * baselines
        kinds = {kind for _, kind in values.values()}
        of_all = next(iter(kinds)) if len(kinds) == 1 else ""
        result.append(
            Column(
                name=name,
                key=f"{name}_{of_all}_{subject}" if of_all else f"{name}_{subject}",
                unit=f"{of_all} {subject}".strip(),
                direction="lower",
                numbers=[number for number, _ in rows],
                title=f"{TITLES[name]} ↓",
                kinds=[] if of_all else [kind for _, kind in rows],
            )
        )
    return result


def _same_images(a: Measurement, b: Measurement) -> bool:
    return all(a.protocol.get(key) == b.protocol.get(key) for key in ("reference_sha256", "seed"))


def _costs(runs: Sequence[Run], baselines: int) -> list[Column]:
    found = []
    for key in COSTS:
        title, unit, direction = COST_HEADS[key]
        numbers: list[float | None] = [(run.costs or {}).get(key) for run in runs]
        scale, prefix = 1.0, ""
        if key in SCALED:
            largest = max((abs(n) for n in numbers if n is not None and math.isfinite(n)), default=0.0)
            scale, prefix = next((p for p in PREFIXES if largest >= p[0]), (1.0, ""))
        if any(n is not None for n in numbers):
            found.append(Column(key, key, f"{prefix}{unit}", direction, numbers + [None] * baselines, title, scale))
    return found

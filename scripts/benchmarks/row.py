"""A row of the table: what was done, by whom, how long it took; as text and as a record."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.floor import utilization
from benchmarks.timing import Measured, Ratio, paired_ratio


@dataclass(frozen=True)
class Row:
    part: str
    work: str
    peer: str  # "" where there is none
    unit: str  # of the two times
    ours: float
    rounds: int
    agreement: str  # what was compared before anything was timed
    theirs: float | None = None
    ratio: Ratio | None = None  # of their time over ours: above 1, genlab is faster
    wall: Ratio | None = None  # of time on the wall's clock
    aim: float | None = None  # of the ratio
    at_most: float | None = None  # in the unit: an aim of genlab's own time
    floor: float | None = None  # in the unit: FLOPs over the rate of a product of matrices in this process
    facts: dict[str, Any] = field(default_factory=dict)  # FLOPs, rates, sizes


@dataclass(frozen=True)
class Skipped:
    """A row that could not be measured, in one sentence."""

    part: str
    work: str
    why: str


UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6}


def row(
    part: str,
    work: str,
    measured: Measured,
    peer: str,
    agreement: str,
    unit: str = "ms",
    ours: str = "genlab",
    aim: float | None = None,
    at_most: float | None = None,  # in the unit
    floor: float | None = None,  # seconds
    device: str = "cpu",
    work_of_peer: float = 1.0,  # that it does in a call, as a multiple of ours: FLOPs
    **facts: Any,
) -> Row:
    """From what was measured. On a CPU times are those of the processor, on a GPU those of the wall's clock."""

    def times(side: str, which: str) -> list[float]:
        return [getattr(spent, which) / (work_of_peer if side == peer else 1.0) for spent in measured[side]]

    if device == "cuda" and "flops" in facts:
        facts["mfu"] = utilization(facts["flops"], statistics.median(times(ours, "wall")))
    if (aim is not None or at_most is not None) and ours in measured.by_kind:
        facts["profile"] = measured.by_kind[ours].shares()
    main, scale = "wall" if device == "cuda" else "cpu", UNITS[unit]
    return Row(
        part=part,
        work=work,
        peer=peer,
        unit=unit,
        theirs=statistics.median(times(peer, main)) * scale,
        ours=statistics.median(times(ours, main)) * scale,
        ratio=paired_ratio(times(peer, main), times(ours, main)),
        wall=paired_ratio(times(peer, "wall"), times(ours, "wall")),
        rounds=len(measured[ours]),
        agreement=agreement,
        aim=aim,
        at_most=at_most,
        floor=None if floor is None else floor * scale,
        facts=facts,
    )


def alone(
    part: str,
    work: str,
    values: Sequence[float],
    unit: str,
    agreement: str = "",
    at_most: float | None = None,
    **facts: Any,
) -> Row:
    """Of what no peer does: the median of ``values``, which are in the unit."""
    return Row(part, work, "", unit, statistics.median(values), len(values), agreement, at_most=at_most, facts=facts)


COLUMNS = ("work", "peer", "peer's", "genlab", "ratio [low, high]", "aim", "floor", "wall")


def cells(of: Row) -> list[str]:
    return [
        of.work,
        of.peer,
        "" if of.theirs is None else f"{number(of.theirs)} {of.unit}",
        f"{number(of.ours)} {of.unit}",
        "" if of.ratio is None else f"{of.ratio.median:.2f} [{of.ratio.low:.2f}, {of.ratio.high:.2f}]",
        aim_of(of),
        floor_of(of),
        "" if of.wall is None else f"{of.wall.median:.2f}",
    ]


def aim_of(of: Row) -> str:
    if of.at_most is not None:
        return f"{number(of.at_most)} {of.unit}" + (" met" if of.ours <= of.at_most else "")
    if of.aim is not None and of.ratio is not None:
        return f"{of.aim:g}" + (" met" if of.ratio.median >= of.aim else "")
    return ""


def floor_of(of: Row) -> str:
    floor = "" if of.floor is None else f"{number(of.floor)} {of.unit}"
    return floor if of.facts.get("mfu") is None else f"{floor}, MFU {of.facts['mfu']:.0%}"


def number(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(rows: Sequence[Row]) -> str:
    lines = [list(COLUMNS), *map(cells, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    left = {0, 1}
    told = [
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([told[0], *(f"{line}{profile_of(row)}" for line, row in zip(told[1:], rows, strict=True))])


def profile_of(of: Row) -> str:
    """A line below that of a row: where its time goes."""
    shares = of.facts.get("profile", {})
    return f"\n    {', '.join(f'{kind} {share:.0%}' for kind, share in shares.items())}" if shares else ""


def as_record(of: Row | Skipped) -> dict[str, Any]:
    return {key: _short(value) for key, value in asdict(of).items() if value not in (None, {})}


def _short(value: Any) -> Any:
    """Five digits: more are noise."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _short(inner) for key, inner in value.items()}
    return value

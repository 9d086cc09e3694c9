"""The tables of docs/benchmarks.md, from the records of scripts/benchmark.py.

``docs/measured/benchmarks.json`` is of the machine that the page speaks of; every ``benchmarks_<machine>.json`` beside
it is of another one, and is shown without a change here.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from docs_rows import MEASURED, row_of

RECORD = MEASURED / "benchmarks.json"
# As scripts/benchmarks/time_by_kind.py has them, which needs torch.
KINDS = (
    "products and convolutions",
    "attention",
    "normalization",
    "elementwise and copies",
    "optimizer",
    "random numbers",
    "Python and dispatch",
    "other",
)
NO_PROFILE = "No record has a profile yet."
OWN_TABLES = ("scale", "ddp")  # parts of the benchmark whose rows stand in tables of their own


def content_of(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def measured_rows(*parts: str, path: Path = RECORD) -> list[dict[str, Any]]:
    """Of scripts/benchmark.py, in its order; without ``parts`` those that have no table of their own."""
    rows: list[dict[str, Any]] = content_of(path)["rows"]
    return [row for row in rows if (row["part"] in parts if parts else row["part"] not in OWN_TABLES)]


def elsewhere() -> list[Path]:
    """Records of other machines, one each."""
    return sorted(MEASURED.glob("benchmarks_*.json"))


def scale() -> list[str]:
    """A row for each size, whose time and memory are two of the record."""
    lines = [
        "| a training step | parameters | time | checkpointed | | memory | checkpointed | |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    rows = {row["work"]: row for row in measured_rows("scale")}
    for work, row in rows.items():
        if (memory := rows.get(f"{work}: memory")) is not None:
            pairs_of = (
                (
                    f"{digits(r['ours'])} {r['unit']}",
                    f"{digits(r['theirs'])} {r['unit']}",
                    f"{r['ratio']['median']:.2f}",
                )
                for r in (row, memory)
            )
            parameters = f"{row['facts']['parameters'] / 1e6:.2f} M"
            lines.append(row_of([work, parameters, *(cell for pair in pairs_of for cell in pair)]))
    return lines


def two_processes() -> list[str]:
    lines = [
        "| a training step | one process | each of two | ratio | of the wall's clock | aim |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in measured_rows("ddp"):
        times = [f"{digits(row[key])} {row['unit']}" for key in ("theirs", "ours")]
        ratios = [f"{r['median']:.2f} ({r['low']:.2f} to {r['high']:.2f})" for r in (row["ratio"], row["wall"])]
        lines.append(row_of([row["work"], *times, *ratios, f"{row['aim']:g}" if "aim" in row else ""]))
    return lines


def benchmarks() -> list[str]:
    """A row each of scripts/benchmark.py, in its order; what was not measured stands in the record."""
    lines = ["| work | peer | peer's | genlab | ratio | aim | floor |", "|---|---|---:|---:|---:|---:|---:|"]
    for row in measured_rows():
        unit, ratio = row["unit"], row.get("ratio")
        cells = [
            row["work"],
            row["peer"],
            *(f"{digits(row[key])} {unit}" if key in row else "" for key in ("theirs", "ours")),
        ]
        lines.append(
            row_of([*cells, interval(ratio), aim_of(row), f"{digits(row['floor'])} {unit}" if "floor" in row else ""])
        )
    return lines


def interval(ratio: dict[str, float] | None) -> str:
    return f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})" if ratio else ""


def aim_of(row: dict[str, Any]) -> str:
    return f"{row['aim']:g}" if "aim" in row else f"{row['at_most']:g} {row['unit']}" if "at_most" in row else ""


def other_machines() -> list[str]:
    """For each record but the first: the rows that have a peer."""
    lines: list[str] = []
    for path in elsewhere():
        lines += [f"On {content_of(path)['machine']}:", ""]
        lines += ["| work | peer | ratio | aim | floor, of the step |", "|---|---|---:|---:|---:|"]
        for row in measured_rows(path=path):
            if "ratio" in row:
                lines.append(row_of([row["work"], row["peer"], interval(row["ratio"]), aim_of(row), floor_share(row)]))
        lines.append("")
    return lines[:-1] or ["No other machine has been measured yet."]


def floor_share(row: dict[str, Any]) -> str:
    return percent(row["floor"] / row["ours"]) if "floor" in row else ""


def percent(share: float) -> str:
    return f"{share:.0%}".replace("-", "−") if abs(share) >= 0.005 else "0"


def allowed(row: dict[str, Any]) -> float:
    """What a step may take, of what it takes, to meet its aim."""
    if "at_most" in row:
        return float(row["at_most"] / row["ours"])
    return float(row["ratio"]["median"] / row["aim"])


def profiles() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """By machine, the rows of which it is known where their time goes."""
    for path in (RECORD, *elsewhere()):
        rows = [row for row in measured_rows(path=path) if "profile" in row.get("facts", {})]
        if rows:
            yield content_of(path)["machine"], rows


def where_the_time_goes() -> list[str]:
    lines: list[str] = []
    for machine, rows in profiles():
        kinds = list(dict.fromkeys(kind for kind in KINDS for row in rows if kind in row["facts"]["profile"]))
        titles = ["work", "peer", "ratio", "aim", "may take", "floor", *kinds]
        lines += [f"On {machine}:", "", row_of(titles), "|---|---|" + "---:|" * (len(titles) - 2)]
        for row in rows:
            ratio = f"{row['ratio']['median']:.2f}" if "ratio" in row else ""
            shares = [percent(row["facts"]["profile"].get(kind, 0.0)) for kind in kinds]
            first = [row["work"], row["peer"], ratio, aim_of(row), percent(allowed(row)), floor_share(row)]
            lines.append(row_of([*first, *shares]))
        lines.append("")
    return lines[:-1] or [NO_PROFILE]


def in_the_way() -> list[str]:
    """A sentence for each row whose aim is not met: what of its step alone takes longer than the aim allows."""
    lines: list[str] = []
    for machine, rows in profiles():
        lines += [f"On {machine}:", ""]
        for row in rows:
            if (share := allowed(row)) < 1:
                lines.append(f"* {row['work']}, against {row['peer']}: {obstacle(row, share)}.")
        lines.append("")
    return lines[:-1] or [NO_PROFILE]


def obstacle(row: dict[str, Any], share: float) -> str:
    """``share``: what the step may take, of what it takes."""
    kinds = row["facts"]["profile"]
    largest, size = max(kinds.items(), key=lambda one: one[1])
    floor = row.get("floor", 0.0) / row["ours"]
    start = f"the aim allows {percent(share)} of the step"
    if floor > share:
        return f"{start}, of which the arithmetic alone, at the rate of a plain product, is {percent(floor)}"
    if size > share:
        return f"{start}, and {largest} alone take {percent(size)}"
    others = sorted(((part, kind) for kind, part in kinds.items() if kind != largest), reverse=True)
    beside = ", ".join(f"{kind} {percent(part)}" for part, kind in others if part >= 0.05)
    rest = max(0.0, share - size) / (1 - size)
    return f"{start}; while {largest} take {percent(size)}, the rest ({beside}) may take {percent(rest)} of its time"


def digits(value: float) -> str:
    """Three that mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


TABLES: dict[str, Callable[[], list[str]]] = {
    "benchmarks": benchmarks,
    "benchmarks elsewhere": other_machines,
    "where the time goes": where_the_time_goes,
    "in the way": in_the_way,
    "scale": scale,
    "two processes": two_processes,
}

"""The table of docs/language_models.md that comes from records of runs, of scripts/finetune.sh."""

import json
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from docs_rows import MEASURED, row_of
from genlab.report.significance import half_width

KINDS = {
    "scratch": "from random weights",
    "full": "all weights",
    "lora16": "adapter of rank 16",
    "lora4": "adapter of rank 4",
    "head": "the head alone",
}


def runs_of(unit: str, kind: str) -> list[dict[str, Any]]:
    """``unit``: of the budget that all kinds have, ``examples`` or ``flops``."""
    content = json.loads((MEASURED / f"finetune_{unit}.json").read_text(encoding="utf-8"))
    return [run for run in content["runs"] if run["row"] == kind]


def finetune() -> list[str]:
    """Bits per byte of each kind after as many examples, and after as many operations as all weights take on these."""
    windows = f"{cost('examples', 'full', 'examples'):,.0f} windows"
    operations = f"{cost('flops', 'full', 'flops') / 1e9:,.0f} GFLOPs"
    names = ["trained", f"after {windows}", "GFLOPs of that", f"after {operations}", "windows of that"]
    lines = [row_of(names), "|---|---:|---:|---:|---:|"]
    for kind, label in KINDS.items():
        cells = [bits("examples", kind), f"{cost('examples', kind, 'flops') / 1e9:,.0f}", bits("flops", kind)]
        lines.append(row_of([label, *cells, f"{cost('flops', kind, 'examples'):,.0f}"]))
    return lines


def bits(unit: str, kind: str) -> str:
    values: Sequence[float] = [run["metrics"]["bits_per_byte_exact_val"] for run in runs_of(unit, kind)]
    return f"{statistics.fmean(values):.3f} ±{half_width(values):.3f}"


def cost(unit: str, kind: str, name: str) -> float:
    return statistics.fmean(run["costs"][name] for run in runs_of(unit, kind))


TABLES: dict[str, Callable[[], list[str]]] = {"finetune": finetune}

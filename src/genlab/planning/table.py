"""The table of ``genlab plan`` in the terminal."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from genlab.budget import Budget, Seconds
from genlab.planning.knobs import Knob, Size
from genlab.planning.probe import Measured
from genlab.planning.upkeep import Upkeep

_WIDTH = 140  # characters, even in a narrower terminal, so that numbers are never cut


@dataclass(frozen=True)
class Row:
    """A size and a batch size with their cost for a budget. Seconds, bytes."""

    size: Size
    batch: int
    measured: Measured | None  # None: it does not fit
    why: str = ""
    examples: float = 0.0
    steps: float = 0.0
    training: float = 0.0  # as a budget of seconds counts
    whole: float = 0.0  # with all that callbacks do, evaluations and grids
    upkeep: Upkeep | None = None


def show(
    rows: Sequence[Row], knobs: Sequence[Knob], budget: Budget, epoch: int, kept: int, devices: int, mark: Row
) -> None:
    """Print the cost of each size and batch size. ``epoch``: training examples; ``kept``: checkpoints."""
    console = Console(highlight=False)
    console.width = max(console.width, _WIDTH)
    table = Table(box=None, pad_edge=False, header_style="bold")
    titles = ("", "size", "batch", "weights", "memory", "examples/s", "FLOP/s", "examples", "epochs", "steps",
              "training", "evaluation", "whole run", "disk")  # fmt: skip
    for title in titles:
        table.add_column(title, justify="left" if title in ("", "size") else "right", no_wrap=True)
    for row in rows:
        table.add_row("→" if row is mark else "", *_cells(row, epoch, kept, devices))
    console.print(table)
    for kind in ("width", "depth"):
        if named := [f"{knob.path}={knob.value}" for knob in knobs if knob.kind == kind]:
            console.print(f"{kind} ×1: {' '.join(named)}")
    if devices > 1:
        console.print(f"measured on one device; {devices} are assumed to be {devices} times as fast.")
    if isinstance(budget, Seconds):
        console.print("training: what budget=seconds counts; whole run: with evaluations and grids.")


def _cells(row: Row, epoch: int, kept: int, devices: int) -> list[str]:
    first = [_name(row.size), f"{row.batch:,}", short(row.size.parameters)]
    if row.measured is None:
        return [*first, row.why]
    step = row.measured.step
    return [
        *first,
        memory(row.measured.memory),
        f"{row.batch / step.training:,.0f}",
        short(step.flops * devices / step.training),
        f"{row.examples:,.0f}",
        f"{row.examples / epoch:,.1f}",
        f"{row.steps:,.0f}",
        clock(row.training),
        "" if row.upkeep is None else clock(row.upkeep.total),
        clock(row.whole),
        memory(row.measured.checkpoint * kept),
    ]


def _name(size: Size) -> str:
    factors = (("width", size.width), ("depth", size.depth))
    return ", ".join(f"{name} ×{factor:g}" for name, factor in factors if factor != 1) or "as configured"


def short(number: float) -> str:
    """``1.2 M``"""
    for limit, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g} {letter}"
    return f"{number:.3g}"


def memory(count: float) -> str:
    """``1.2 GB``"""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def clock(seconds: float) -> str:
    """``1:02:03``, ``2:03`` or ``45 s``"""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours}:{minutes:02}:{rest:02}"
    return f"{minutes}:{rest:02}" if minutes else f"{rest} s"

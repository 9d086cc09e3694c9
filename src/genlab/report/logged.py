"""Reads a run's ``metrics.csv``: curves, and the budget spent at each point."""

import csv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from genlab.files import regular_file

if TYPE_CHECKING:
    import numpy as np

AXES = ("examples", "flops", "seconds")
GROUPS = ("val/", "train/", "monitor/")  # what is worth a curve, in the order that it is offered


@dataclass(frozen=True)
class Logged:
    """Curves with their progress."""

    curves: dict[str, "np.ndarray"] = field(default_factory=dict)  # by column: (n, 4), AXES and value, as in the file
    spent: "np.ndarray | None" = None  # (m, 3): examples, FLOPs, seconds, by step; None: nothing was read
    latest: dict[str, float] = field(default_factory=dict)  # of AXES that were logged, the last number
    points: dict[str, int] = field(default_factory=dict)  # by column, how many there were before thinning
    rows: int = 0  # read
    problem: str = ""  # why there is nothing; "": nothing was wrong


def read_logged(run: Path, keeps: Callable[[str], bool] = lambda name: name.startswith(GROUPS)) -> Logged:
    """The columns whose names ``keeps`` accepts; empty if there is no file.

    Progress is logged every few steps: between, it is interpolated. A row number counts the steps before it. Cells that
    are no finite numbers up to 1e100 are left out, as is half a line at the end of a run that goes on. A file that is
    not regular, too large, or not a run's table gives a ``problem``.
    """
    path = run / "metrics.csv"
    try:
        with regular_file.open_regular(path, largest=regular_file.LARGEST_TABLE) as file:
            from genlab.report.thinned import Reader  # NumPy, which runs that have logged nothing do without

            return Reader(keeps).read(file)
    except FileNotFoundError:
        return Logged()
    except (OSError, ValueError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return Logged(problem=f"{path} cannot be read ({reason}), so its curves are left out")

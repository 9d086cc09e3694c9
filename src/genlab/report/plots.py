"""Writes all plots of a comparison."""

import warnings
from collections.abc import Sequence
from pathlib import Path

from genlab.report.columns import Column
from genlab.report.cost_plot import cost_plot
from genlab.report.curve_plots import curve_plots
from genlab.report.logged import Logged
from genlab.report.search_plots import search_plots
from genlab.report.table import Table
from genlab.report.transfer import Transfer
from genlab.report.transfer_plots import transfer_plots
from genlab.report.trials import Sweep

FOLDER = "plots"


def draw(
    named: Sequence[tuple[str, Sequence[Logged]]],  # configurations by name with what their runs logged, best first
    table: Table | None,
    quality: Column | None,
    sweeps: Sequence[Sweep],
    out: Path,
    gained: Transfer | None = None,
) -> list[str]:
    """Write them below ``out``. -> the files' paths from there. Raises OSError."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        warnings.warn("no plots: they need a package. Install it: pip install matplotlib", stacklevel=2)
        return []
    folder = out / FOLDER
    written = curve_plots(named, folder)
    if table is not None and quality is not None:
        written += cost_plot(table, quality, folder)
    for sweep in sweeps:
        written += search_plots(sweep, folder)
    if gained is not None:
        written += transfer_plots(gained, folder)
    return [f"{FOLDER}/{name}" for name in written]

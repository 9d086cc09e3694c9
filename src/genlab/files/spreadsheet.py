"""CSV files that are safe to open in a spreadsheet: no cell is a formula."""

import csv
from collections.abc import Iterable
from typing import Any

_ACTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # first characters of a formula


class Writer:
    """``csv.writer`` with safe cells; lines end with a line feed."""

    def __init__(self, file: Any):
        self._writer = csv.writer(file, lineterminator="\n")

    def writerow(self, cells: Iterable[Any]) -> None:
        self._writer.writerow([safe(cell) for cell in cells])


def safe(cell: Any) -> Any:
    """The cell, with an apostrophe before it, which makes it text, if a spreadsheet would read it as a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_ACTS) and not _is_number(cell) else cell


def as_written(cell: str) -> str:
    """Undoes :func:`safe`."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_ACTS) else cell


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return cell.strip() == cell

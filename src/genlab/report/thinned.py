"""Reads and thins a run's ``metrics.csv`` in one pass, with memory independent of the number of rows.

Of a curve of up to MOST / 2 points all are kept. Of a longer one, the lowest and the highest of each of equally long
stretches, the first point and the last: what a plot of that many points can show.
"""

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

import numpy as np

from genlab.former_names import current_number
from genlab.report.logged import AXES, Logged

MOST = 1024  # points of a curve that are kept, about
MOST_OF_RUN = 1 << 16  # points of all curves of a run
MOST_SPENT = 1024  # rows of progress that are kept in the end
MOST_COLUMNS = 2_000
LONGEST_LINE = 1 << 20  # bytes
LARGEST = 1e100  # of numbers; what is beyond leaves no plot its axis
_BLOCK = 1 << 20  # bytes read at a time
_MOST_PROGRESS = 1 << 20  # rows of progress held while reading; of more, every second, every fourth ...


class Reader:
    """One pass over a file."""

    def __init__(self, keeps: Callable[[str], bool]):
        self._keeps = keeps
        self._header: list[str] = []
        self._kept: dict[int, Thinned] = {}  # by the column's place
        self._progress = _Progress()
        self._latest: dict[str, float] = {}
        self._rows = 0

    def read(self, file: BinaryIO) -> Logged:
        """Raises ValueError and csv.Error for a file that is not a table."""
        for text in _whole_lines(file):
            rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
            if not self._header and rows:
                self._begin(rows.pop(0))
            if rows:
                self._take(rows)
        curves, points = {}, {}
        for place, thinned in self._kept.items():
            steps, values = thinned.points()
            if len(steps):
                name = self._header[place]
                curves[name] = np.column_stack([self._progress.at(steps + 1), values])
                points[name] = thinned.count
        return Logged(curves, self._progress.rows(MOST_SPENT), self._latest, points, self._rows)

    def _begin(self, header: list[str]) -> None:
        if len(header) > MOST_COLUMNS:
            raise ValueError(f"it has {len(header):,} columns; at most {MOST_COLUMNS:,} are read")
        header = self._header = [current_number(name) for name in header]
        wanted = {name: place for place, name in enumerate(header) if self._keeps(name)}
        most = max(16, min(MOST, MOST_OF_RUN // max(1, len(wanted))))
        self._kept = {place: Thinned(most) for place in wanted.values()}

    def _take(self, rows: list[list[str]]) -> None:
        width = len(self._header)
        if any(len(row) != width for row in rows):
            rows = [(row + [""] * width)[:width] for row in rows]
        columns = list(zip(*rows, strict=True))
        places = {name: place for place, name in enumerate(self._header)}
        if "step" not in places:
            return
        steps = _numbers(columns[places["step"]])
        valid = np.isfinite(steps)
        spent = [
            _numbers(columns[places[f"progress/{axis}"]])
            if f"progress/{axis}" in places
            else np.full(len(rows), np.nan)
            for axis in AXES
        ]
        for axis, numbers in zip(AXES, spent, strict=True):
            having = np.flatnonzero(np.isfinite(numbers))
            if len(having):
                self._latest[axis] = float(numbers[having[-1]])
        complete = valid & np.isfinite(spent).all(axis=0)
        self._progress.add(np.column_stack([steps + 1, *spent])[complete])
        for place, thinned in self._kept.items():
            if any(columns[place]):
                values = _numbers(columns[place])
                chosen = valid & np.isfinite(values)
                thinned.add(steps[chosen], values[chosen])
        self._rows += len(rows)


def _whole_lines(file: BinaryIO) -> Iterator[str]:
    """The text in blocks that end with a line. Raises ValueError for a line that is longer than any that runs write."""
    rest = b""
    while block := file.read(_BLOCK):
        rest += block
        end = rest.rfind(b"\n") + 1
        if len(rest) - end > LONGEST_LINE:
            raise ValueError(f"it has a line of more than {LONGEST_LINE:,} bytes")
        if end:
            yield rest[:end].decode("utf-8", "replace").replace("\0", "")
            rest = rest[end:]


def _numbers(cells: Sequence[str]) -> np.ndarray:
    """(n,) float64; nan for a cell that is not a number, or is beyond LARGEST."""
    try:
        found = np.array(list(map(float, cells)))
    except ValueError:
        found = np.array([_number(cell) if cell else math.nan for cell in cells])
    found[np.abs(found) > LARGEST] = np.nan
    return found


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


class Thinned:
    """Points as they come, at most about ``most`` of them."""

    def __init__(self, most: int):
        self._stretches = max(2, most // 4 * 2)  # an even number: they are joined two by two
        self._size = 1  # points in a stretch
        self._lows = self._highs = self._pending = np.zeros((0, 3))  # place, step, value
        self._first: np.ndarray | None = None
        self._last: np.ndarray | None = None
        self.count = 0  # points that came

    def add(self, steps: np.ndarray, values: np.ndarray) -> None:
        """Both (n,)."""
        if not len(steps):
            return
        new = np.column_stack([np.arange(self.count, self.count + len(steps)), steps, values])
        self.count += len(steps)
        self._first = new[:1] if self._first is None else self._first
        self._last = new[-1:]
        self._pending = np.concatenate([self._pending, new])
        while len(self._pending) >= self._size:
            whole = min(len(self._pending) // self._size, self._stretches - len(self._lows))
            cut = self._pending[: whole * self._size].reshape(whole, self._size, 3)
            self._pending = self._pending[whole * self._size :]
            rows = np.arange(whole)
            self._lows = np.concatenate([self._lows, cut[rows, cut[:, :, 2].argmin(1)]])
            self._highs = np.concatenate([self._highs, cut[rows, cut[:, :, 2].argmax(1)]])
            if len(self._lows) == self._stretches:
                self._lows, self._highs = _joined(self._lows, np.argmin), _joined(self._highs, np.argmax)
                self._size *= 2

    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values that are kept, in the order in which they came."""
        if self._first is None or self._last is None:
            return np.zeros(0), np.zeros(0)
        found = np.concatenate([self._first, self._lows, self._highs, self._ends(), self._last])
        found = found[np.unique(found[:, 0], return_index=True)[1]]
        return found[:, 1], found[:, 2]

    def _ends(self) -> np.ndarray:
        """Of the stretch that is not whole, the lowest and the highest."""
        if not len(self._pending):
            return self._pending
        return self._pending[[self._pending[:, 2].argmin(), self._pending[:, 2].argmax()]]


def _joined(stretches: np.ndarray, best: Callable[..., np.ndarray]) -> np.ndarray:
    pairs = stretches.reshape(-1, 2, 3)
    return pairs[np.arange(len(pairs)), best(pairs[:, :, 2], axis=1)]


class _Progress:
    """Rows (steps made, examples, FLOPs, seconds)."""

    def __init__(self) -> None:
        self._parts = [np.zeros((1, 4))]
        self._held = 1
        self._sorted: np.ndarray | None = None

    def add(self, rows: np.ndarray) -> None:
        """(n, 4)."""
        self._parts.append(rows)
        self._held += len(rows)
        if self._held > _MOST_PROGRESS:
            rows = np.concatenate(self._parts)
            rows = np.concatenate([rows[:-1:2], rows[-1:]])
            self._parts, self._held = [rows], len(rows)

    def _table(self) -> np.ndarray:
        """By step; where a step was made again, as it was the last time."""
        if self._sorted is None:
            rows = np.concatenate(self._parts)
            if (np.diff(rows[:, 0]) <= 0).any():
                places = np.unique(rows[::-1, 0], return_index=True)[1]
                rows = rows[::-1][places]
            self._parts, self._sorted = [], rows
        return self._sorted

    def at(self, steps: np.ndarray) -> np.ndarray:
        """(n, 3): examples, FLOPs and seconds after so many steps; after the last that is known, those."""
        table = self._table()
        after = np.searchsorted(table[:, 0], steps)
        found = np.minimum(after, len(table) - 1)
        low, high = table[np.maximum(found - 1, 0)], table[found]
        is_exact = (after == len(table)) | (after == 0) | (high[:, 0] == steps)
        gap = np.where(is_exact, 1.0, high[:, 0] - low[:, 0])
        share = ((steps - low[:, 0]) / gap)[:, None]
        with np.errstate(over="ignore", invalid="ignore"):
            between = low[:, 1:] + share * (high[:, 1:] - low[:, 1:])
        return np.where(is_exact[:, None], high[:, 1:], between)

    def rows(self, most: int) -> np.ndarray:
        """(m, 3), at most ``most`` of them, the first and the last among them."""
        table = self._table()[:, 1:]
        if len(table) <= most:
            return table
        return table[np.unique(np.linspace(0, len(table) - 1, most).astype(np.int64))]

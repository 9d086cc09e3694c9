"""A comparison of many runs: what the command costs."""

from collections.abc import Iterator

from benchmarks import large_inputs
from benchmarks.options import Options
from benchmarks.row import Row, Skipped


def rows(options: Options) -> Iterator[Row | Skipped]:
    """A long metrics file, and many runs. How soon the page answers in a browser: scripts/benchmark_report.py."""
    yield from large_inputs.rows("compare", ("rows", "runs"), options)

"""One table in three dialects: for a terminal, for a page (Markdown), for a program (CSV)."""

import csv
import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

from genlab.report.columns import Column

BASELINE = "baseline: "  # what images score that took no model to make


@dataclass(frozen=True)
class Table:
    """Rows are numbered: the runs in the order they were read, then the baselines."""

    columns: Sequence[Column]
    names: Sequence[str]
    runs: int  # how many of the rows are runs
    marked: frozenset[int]  # rows whose quality was measured otherwise
    order: Sequence[int]  # of the rows, best first; all runs come before the baselines
    folders: Sequence[str]  # of the runs
    protocol_ids: Sequence[str]  # of each row
    remarks: Sequence[str]  # on each row: what was measured otherwise

    def _cells(self, row: int) -> list[str]:
        marks = [("*" if row in self.marked and column.is_quality and column.numbers[row] is not None else " ")
                 if self.marked and column.is_quality else "" for column in self.columns]  # fmt: skip
        return [column.cell(row, self.runs) + mark for column, mark in zip(self.columns, marks, strict=True)]

    def _name(self, row: int) -> str:
        return self.names[row] if row < self.runs else f"{BASELINE}{self.names[row]}"

    def text(self, width: int) -> str:
        """Columns that line up below a heading of two lines, in as many blocks as it takes to stay within ``width``."""
        cells = {row: self._cells(row) for row in self.order}
        heads = [column.head for column in self.columns], [column.unit for column in self.columns]
        widths = [2 + max(map(len, column)) for column in zip(*heads, *cells.values(), strict=True)]
        left = max(len(self._name(row)) for row in self.order)
        blocks: list[list[int]] = [[]]
        for column in range(len(widths)):
            if blocks[-1] and left + sum(widths[c] for c in blocks[-1]) + widths[column] > width:
                blocks.append([])
            blocks[-1].append(column)

        def line(name: str, words: Sequence[str], block: Sequence[int]) -> str:
            return (name.ljust(left) + "".join(words[c].rjust(widths[c]) for c in block)).rstrip()

        lines = []
        for block in blocks:
            lines += [line("", head, block) for head in heads]
            rows = [row for row in self.order if row < self.runs or any(cells[row][c].strip() for c in block)]
            for place, row in enumerate(rows):
                is_first_baseline = row >= self.runs and rows[place - 1] < self.runs
                lines += [""] * is_first_baseline + [line(self._name(row), cells[row], block)]
            lines.append("")
        return "\n".join(lines[:-1])

    def markdown(self) -> str:
        heads = [escaped(f"{column.head} {column.unit}".strip()) for column in self.columns]
        lines = [_markdown_line(["run", *heads]), _markdown_line(["---", *["---:"] * len(heads)])]
        for row in self.order:
            lines.append(
                _markdown_line([escaped(self._name(row)), *(escaped(cell.strip()) for cell in self._cells(row))])
            )
        return "\n".join(lines)

    def csv(self) -> str:
        """All digits of every number, in seconds, bytes and the like."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["name", "kind", *(column.key for column in self.columns), "protocol_id", "measured_otherwise",
                         "folder"])  # fmt: skip
        for row in self.order:
            numbers = ["" if column.numbers[row] is None else column.numbers[row] for column in self.columns]
            is_run = row < self.runs
            writer.writerow([self.names[row], "run" if is_run else "baseline", *numbers, self.protocol_ids[row],
                             self.remarks[row], self.folders[row] if is_run else ""])  # fmt: skip
        return file.getvalue()


def escaped(text: str) -> str:
    """Text from files as Markdown that shows it as it is."""
    return re.sub(r"([\\`*\[\]|])", r"\\\1", html.escape(text, quote=False))


def _markdown_line(words: Sequence[str]) -> str:
    return f"| {' | '.join(words)} |"

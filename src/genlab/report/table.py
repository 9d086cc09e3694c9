"""The table of a comparison, as text for a terminal, Markdown, and CSV."""

import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

from genlab.files import spreadsheet
from genlab.report.columns import Column
from genlab.report.marks import Marks

BASELINE = "baseline: "  # scores of examples without a model
BEST = "◂"  # where there is no bold type
BOLD, PLAIN = "\x1b[1m", "\x1b[0m"


@dataclass(frozen=True)
class Member:
    """A run of a configuration."""

    name: str
    seed: int | None
    folder: str
    protocol_id: str
    remark: str  # how its protocol differs
    settings: str = ""  # all that not all runs share


@dataclass(frozen=True)
class Table:
    """Rows are numbered: the configurations in the order they were read, then the baselines."""

    columns: Sequence[Column]
    marks: Sequence[Marks]  # of each column
    names: Sequence[str]
    members: Sequence[Sequence[Member]]  # of each configuration
    marked: frozenset[int]  # rows measured by another protocol
    order: Sequence[int]  # of the rows, best first; all configurations come before the baselines
    protocol_id: str  # of the baselines

    @property
    def configurations(self) -> int:
        """How many of the rows are configurations."""
        return len(self.members)

    def cell(self, column: int, row: int) -> str:
        """A number with what has to be said of it, but for being the best."""
        found = self.columns[column]
        otherwise = row in self.marked and found.is_quality and found.numbers[row] is not None
        sign = self.marks[column].sign(row)
        return found.cell(row, self.configurations) + (f" {sign}" if sign else "") + "*" * otherwise

    def is_best(self, column: int, row: int) -> bool:
        return row in self.marks[column].best

    def name(self, row: int) -> str:
        return self.names[row] if row < self.configurations else f"{BASELINE}{self.names[row]}"

    def text(self, width: int, bold: bool = False) -> str:
        """Columns that line up below a heading of two lines, in as many blocks as it takes to stay within ``width``.
        The best are in bold type where that can be shown, else they have a sign."""
        heads = [column.head for column in self.columns], [column.unit for column in self.columns]
        tails = [self._tail_width(c, bold) for c in range(len(self.columns))]
        cells = {row: [self._text_cell(c, row, bold, tails[c]) for c in range(len(self.columns))] for row in self.order}
        widths = [2 + max(map(len, column)) for column in zip(*heads, *cells.values(), strict=True)]
        left = max(len(self.name(row)) for row in self.order)
        blocks: list[list[int]] = [[]]
        for column in range(len(widths)):
            if blocks[-1] and left + sum(widths[c] for c in blocks[-1]) + widths[column] > width:
                blocks.append([])
            blocks[-1].append(column)

        def line(name: str, words: Sequence[str], block: Sequence[int], row: int | None = None) -> str:
            parts = [words[c].rjust(widths[c]) for c in block]
            if row is not None and bold:
                parts = [
                    f"{BOLD}{part}{PLAIN}" if self.is_best(c, row) else part
                    for c, part in zip(block, parts, strict=True)
                ]
            return (name.ljust(left) + "".join(parts)).rstrip()

        lines = []
        for block in blocks:
            lines += [line("", head, block) for head in heads]
            rows = [row for row in self.order if row < self.configurations or any(cells[row][c].strip() for c in block)]
            for place, row in enumerate(rows):
                is_first_baseline = row >= self.configurations and rows[place - 1] < self.configurations
                lines += [""] * is_first_baseline + [line(self.name(row), cells[row], block, row)]
            lines.append("")
        return "\n".join(lines[:-1])

    def _text_cell(self, column: int, row: int, bold: bool, tail: int) -> str:
        """The signs stand behind the numbers, which line up."""
        shown = self.columns[column].cell(row, self.configurations)
        if not shown:
            return ""
        return shown + self._tail(column, row, bold).ljust(tail)

    def _tail(self, column: int, row: int, bold: bool) -> str:
        signs = self.cell(column, row)[len(self.columns[column].cell(row, self.configurations)) :]
        return signs + (f" {BEST}" if self.is_best(column, row) and not bold else "")

    def _tail_width(self, column: int, bold: bool) -> int:
        return max(len(self._tail(column, row, bold)) for row in self.order)

    def markdown(self) -> str:
        heads = [escaped(f"{column.head} {column.unit}".strip()) for column in self.columns]
        lines = [markdown_line(["run", *heads]), markdown_line(["---", *["---:"] * len(heads)])]
        for row in self.order:
            cells = [escaped(self.cell(c, row)) for c in range(len(self.columns))]
            cells = [f"**{cell}**" if self.is_best(c, row) else cell for c, cell in enumerate(cells)]
            lines.append(markdown_line([escaped(self.name(row)), *cells]))
        return "\n".join(lines)

    def csv(self) -> str:
        """All digits of every number, in seconds, bytes and the like. A configuration of several seeds has a line for
        its means, one for the half widths of their intervals, and one for each run."""
        file = io.StringIO()
        writer = spreadsheet.Writer(file)
        columns = range(len(self.columns))
        writer.writerow(
            [
                "name",
                "kind",
                *(column.key for column in self.columns),
                "best",
                "not_told_apart",
                "apart_if_normal",
                "seed",
                "protocol_id",
                "measured_otherwise",
                "settings",
                "folder",
            ]
        )
        for row in self.order:
            numbers = [column.numbers[row] for column in self.columns]
            judged = [
                " ".join(self.columns[c].key for c in columns if row in getattr(self.marks[c], which))
                for which in ("best", "near", "apart_if_normal")
            ]
            if row >= self.configurations:
                writer.writerow(
                    [self.names[row], "baseline", *_plain(numbers), *judged, "", self.protocol_id, "", "", ""]
                )
                continue
            members = self.members[row]
            if len(members) == 1:
                writer.writerow([self.names[row], "run", *_plain(numbers), *judged, *_facts(members[0])])
                continue
            widths = [column.half_width(row) for column in self.columns]
            writer.writerow([self.names[row], "configuration", *_plain(numbers), *judged, *[""] * 5])
            writer.writerow([self.names[row], "interval", *_plain(widths), *[""] * 8])
            for k, member in enumerate(members):
                own = [column.seeds[row][k] for column in self.columns]
                writer.writerow([member.name, "run", *_plain(own), "", "", "", *_facts(member)])
        return file.getvalue()


def _plain(numbers: Sequence[float | None]) -> list[float | str]:
    return ["" if number is None else number for number in numbers]


def _facts(member: Member) -> list[str | int]:
    seed = "" if member.seed is None else member.seed
    return [seed, member.protocol_id, member.remark, member.settings, member.folder]


def escaped(text: str) -> str:
    """Text from files as Markdown that shows it as it is."""
    return re.sub(r"([\\`*\[\]|])", r"\\\1", html.escape(text, quote=False))


def markdown_line(words: Sequence[str]) -> str:
    return f"| {' | '.join(words)} |"

"""Pairwise differences between configurations, with their significance."""

import io

from genlab.files import spreadsheet
from genlab.report.columns import Column
from genlab.report.marks import APART_IF_NORMAL
from genlab.report.significance import Pair
from genlab.report.table import Table, escaped, markdown_line

MOST = 10  # configurations in a matrix: the best of the table


def matrices(table: Table) -> list[str]:
    """Markdown, a matrix for each column whose seeds were compared."""
    shown = [row for row in table.order if row < table.configurations][:MOST]
    lines: list[str] = []
    sign = "" if all(pair.by_welch for marks in table.marks for pair in marks.pairs) else APART_IF_NORMAL
    for column, marks in zip(table.columns, table.marks, strict=True):
        by_rows = {frozenset((pair.a, pair.b)): pair for pair in marks.pairs}
        rows = [row for row in shown if any(row in both for both in by_rows)]
        if len(rows) < 2:
            continue
        of = ", its distance to 1" if column.direction == "one" else ""
        lines += ["", f"### {escaped(f'{column.head} {column.unit}'.strip())}{of}", ""]
        lines += [
            markdown_line(["", *(escaped(table.name(row)) for row in rows)]),
            markdown_line(["---", *["---:"] * len(rows)]),
        ]
        for a in rows:
            cells = [_cell(column, by_rows.get(frozenset((a, b))), a, sign) for b in rows]
            lines.append(markdown_line([escaped(table.name(a)), *cells]))
    if not lines:
        return []
    left_out = table.configurations - len(shown)
    only = f" The {MOST} that stand first; all pairs are in differences.csv." if left_out > 0 else ""
    welch = "of Welch's t-test, since there are too few seeds for a permutation test"
    if not all(pair.by_welch for marks in table.marks for pair in marks.pairs):
        welch = f"of the permutation test over seeds, or, with {APART_IF_NORMAL}, {welch}"
    told = (
        f"Row less column, ± Welch's 95 % interval, and a p value, corrected by Holm for all pairs of a column: "
        f"{welch}. Bold: more than luck.{only}"
    )
    return ["", "## Differences", "", told, *lines]


def _cell(column: Column, pair: Pair | None, row: int, welch: str) -> str:
    if pair is None:
        return ""
    sign = (1 if pair.a == row else -1) * (-1 if column.direction == "higher" else 1)
    p = f"p {pair.told:.2g}" if pair.told >= 0.001 else "p < 0.001"
    width = f" ±{pair.half_width / column.scale:.2g}" if pair.half_width else ""
    difference = sign * pair.difference / column.scale + 0.0  # no minus before a zero
    cell = f"{difference:+.3g}{width} ({p}{welch if pair.by_welch else ''})"
    return f"**{cell}**" if pair.verdict != "not told apart" else cell


def as_csv(table: Table) -> str:
    """Every pair of every column, all digits; "": no seeds were compared."""
    file = io.StringIO()
    writer = spreadsheet.Writer(file)
    writer.writerow(["column", "a", "b", "a_less_b", "half_width", "p_permutation", "p_welch", "lowest_p", "verdict"])
    for column, marks in zip(table.columns, table.marks, strict=True):
        for pair in marks.pairs:
            difference = -pair.difference if column.direction == "higher" else pair.difference
            writer.writerow(
                [
                    column.key,
                    table.names[pair.a],
                    table.names[pair.b],
                    difference,
                    pair.half_width,
                    pair.p,
                    pair.p_normal,
                    pair.lowest,
                    pair.verdict,
                ]
            )
    return file.getvalue() if any(marks.pairs for marks in table.marks) else ""

"""The table for a paper: LaTeX with booktabs, quality and cost separate, to fit a page."""

import re
import unicodedata

from genlab.report.columns import Column
from genlab.report.table import Table

SIGNS = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "'": r"\textquotesingle{}", "`": r"\textasciigrave{}",
    "-": "-{}",  # two of them would become a dash
    "[": "{[}", "]": "{]}",  # after a line break they would be its argument
    "*": "{*}",  # likewise
    "↓": r"$\downarrow$", "↑": r"$\uparrow$", "→": r"$\rightarrow$", "±": r"$\pm$", "≈": r"$\approx$", "†": r"\dag{}",
    "–": "--", "…": r"\ldots{}", "×": r"$\times$",
}  # fmt: skip
HEAD = """% \\input this file; it needs \\usepackage[T1]{{fontenc}}, \\usepackage{{textcomp}}, \\usepackage{{booktabs}}.
% {told}
"""


def latex(table: Table, headline: str, legend: list[str]) -> str:
    """One tabular for quality, one for cost."""
    measured = [c for c, column in enumerate(table.columns) if _is_measured(column)]
    costs = [c for c in range(len(table.columns)) if c not in measured]
    told = "\n% ".join(_one_line(line) for line in [headline, "bold: the best of its column", *legend])
    parts = [HEAD.format(told=told)]
    parts += [_tabular(table, columns) for columns in (measured, costs) if columns]
    return "\n".join(parts)


def _is_measured(column: Column) -> bool:
    return column.name == "seeds" or column.is_quality or bool(column.title and column.title.endswith("↓"))


def _tabular(table: Table, columns: list[int]) -> str:
    heads = [[tex(getattr(table.columns[c], line)) for c in columns] for line in ("head", "unit")]
    lines = [rf"\begin{{tabular}}{{l{'r' * len(columns)}}}", r"\toprule"]
    lines += [" & ".join(["", *head]) + r" \\" for head in heads if any(head)]
    lines.append(r"\midrule")
    rows = [
        row
        for row in table.order
        if row < table.configurations or any(table.columns[c].numbers[row] is not None for c in columns)
    ]
    for place, row in enumerate(rows):
        if row >= table.configurations and place and rows[place - 1] < table.configurations:
            lines.append(r"\midrule")
        cells = [_cell(table, c, row) for c in columns]
        lines.append(" & ".join([tex(table.name(row)), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _cell(table: Table, column: int, row: int) -> str:
    shown = re.sub(r"^-(?=\d)", "−", table.cell(column, row))
    written = tex(shown).replace("−", "$-$")
    return rf"\textbf{{{written}}}" if table.is_best(column, row) else written


def tex(text: str) -> str:
    """Text from files as LaTeX that shows it as it is. What its fonts lack loses its accents, or becomes ?."""
    return "".join(SIGNS.get(c) or _known(c) for c in text)


def _known(character: str) -> str:
    if character == "−" or " " <= character <= "~" or "À" <= character <= "ÿ":
        return character
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return "".join(SIGNS.get(c, c) for c in plain if c.isprintable()) or "?"


def _one_line(text: str) -> str:
    return "".join(c if " " <= c <= "~" else "?" if unicodedata.category(c).startswith("C") else c for c in text)

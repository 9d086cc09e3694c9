"""Marks the best of each column, and the configurations that do not differ significantly from it."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from genlab.report.columns import COUNTED, Column
from genlab.report.significance import LEVEL, Pair, pairs

KINDS = ("exact", "bound", "estimate")  # of likelihoods: a bound may hide a better model, an estimate a worse one
NEAR, APART_IF_NORMAL = "≈", "†"


@dataclass(frozen=True)
class Marks:
    """Of one column, by row."""

    best: frozenset[int] = frozenset()
    near: frozenset[int] = frozenset()  # not told apart from the best
    apart_if_normal: frozenset[int] = frozenset()  # by Welch's test, where seeds are too few for the permutation test
    pairs: tuple[Pair, ...] = ()

    def sign(self, row: int) -> str:
        return NEAR if row in self.near else APART_IF_NORMAL if row in self.apart_if_normal else ""


def marks(column: Column, rows: int, left_out: Collection[int] = (), is_budget: bool = False) -> Marks:
    """Of the first ``rows`` of a column, the configurations. ``left_out``: rows whose numbers do not compare;
    ``is_budget``: all were given the same of this, so none is best at it."""
    worths = {row: column.worth(row) for row in range(rows) if row not in left_out}
    finite = {row: worth for row, worth in worths.items() if math.isfinite(worth)}
    if column.kinds:  # of likelihoods, which compare within a kind only
        strongest = next((kind for kind in KINDS if any(column.kinds[row] == kind for row in finite)), None)
        finite = {row: worth for row, worth in finite.items() if column.kinds[row] == strongest}
    if column.direction is None or is_budget or len(set(finite.values())) < 2:
        return Marks()
    best = [row for row, worth in finite.items() if worth == min(finite.values())]
    if column.name in COUNTED:
        return Marks(frozenset(best))
    found = pairs({row: [column.worth_of(number) for number in column.drawn(row)] for row in finite})
    verdicts = {}
    for pair in found:
        for one, other in ((pair.a, pair.b), (pair.b, pair.a)):
            if other == best[0] and one not in best:
                verdicts[one] = pair.verdict
    near, if_normal = (
        frozenset(row for row, verdict in verdicts.items() if verdict == which)
        for which in ("not told apart", "apart if normal")
    )
    return Marks(frozenset(best), near, if_normal, tuple(found))


def legend(all_marks: Sequence[Marks], has_seeds: bool) -> list[str]:
    """What the signs of a table mean, and what can be said at all with so many seeds."""
    lines = []
    if has_seeds:
        lines.append("±: 95 % t-interval of the mean over seeds")
    if any(m.near for m in all_marks):
        lines.append(
            f"{NEAR}: not told apart from the best of the column (two-sided, all pairs corrected by Holm, {LEVEL:.0%})"
        )
    if any(m.apart_if_normal for m in all_marks):
        lines.append(
            f"{APART_IF_NORMAL}: worse than the best if seeds scatter normally (Welch's t-test); there "
            "are too few for a permutation test"
        )
    widest = max((m.pairs for m in all_marks), key=len, default=())
    if widest and min(pair.lowest for pair in widest) > LEVEL:
        lowest = min(pair.lowest for pair in widest) / len(widest)
        enough = next(n for n in range(2, 100) if len(widest) * 2 / math.comb(2 * n, n) <= LEVEL)
        lines.append(
            f"with so few seeds a permutation test gives p = {lowest:.2g} at best, before it is corrected for "
            f"{len(widest)} pairs: it could tell with {enough} seeds each"
        )
    return lines

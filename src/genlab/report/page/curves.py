"""Thins curves for a page: over examples, with the FLOPs and seconds spent."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from genlab.report.logged import GROUPS, Logged

MOST_METRICS = 100  # curves of a run
ROOM = 2_500_000  # characters that all curves of a page may take, and what one point takes
POINT = 14
FEWEST, MOST = 24, 400  # points of a curve
TOLERANCE = 2e-3  # of what was spent in all: progress is kept as a few straight pieces that are nearer than that

Points = list[tuple[float, float]]
Spent = list[tuple[float, ...]]


@dataclass
class Curves:
    metrics: dict[str, Points] = field(default_factory=dict)  # (examples, value), by name
    spent: Spent = field(default_factory=list)  # (examples, FLOPs, seconds)
    left_out: int = 0  # metrics beyond MOST_METRICS
    longest: int = 0  # points of its longest curve, before anything was thinned


def curves_of(logged: Logged) -> Curves:
    """All that a run logged of GROUPS; nothing if it has logged nothing."""
    names = [name for group in GROUPS for name in logged.curves if name.startswith(group)]
    metrics = {name: list(map(tuple, logged.curves[name][:, [0, 3]].tolist())) for name in names[:MOST_METRICS]}
    rows = [] if logged.spent is None else logged.spent.tolist()
    spent = {row[0]: tuple(row) for row in rows if all(map(math.isfinite, row))}
    longest = max((logged.points[name] for name in metrics), default=0)
    return Curves(
        metrics,
        pieces([(0.0, 0.0, 0.0), *(spent[key] for key in sorted(spent) if key > 0)]),
        len(names[MOST_METRICS:]),
        longest,
    )


def points_each(curves: Sequence[Curves]) -> int:
    """How many points a curve may have, so that all of them find room."""
    lengths = sorted(len(points) for c in curves for points in c.metrics.values())
    left = ROOM / POINT
    for done, length in enumerate(lengths):  # short curves leave their share to the longer
        share = left / (len(lengths) - done)
        if length > share:
            return int(min(MOST, max(FEWEST, share)))
        left -= length
    return MOST


def thinned(points: Points, most: int) -> Points:
    """At most ``most`` of the points: the lowest and the highest of each of equally long stretches, and both ends."""
    if len(points) <= most:
        return points
    stretches = max(1, (most - 2) // 2)
    inner = points[1:-1]
    kept = [points[0]]
    for i in range(stretches):
        stretch = inner[i * len(inner) // stretches : (i + 1) * len(inner) // stretches]
        kept += sorted({min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])})
    return [*kept, points[-1]]


def pieces(spent: Spent) -> Spent:
    """As few of the points as make straight pieces near all of them (Ramer 1972; Douglas and Peucker 1973)."""
    if len(spent) < 3:
        return spent
    import numpy as np  # here, since a page without curves does without

    table = np.array(spent)
    table = table / np.maximum(np.abs(table[-1] - table[0]), 1e-9)
    kept = {0, len(spent) - 1}
    stack = [(0, len(spent) - 1)]
    while stack:
        first, last = stack.pop()
        if last - first < 2:
            continue
        inner = table[first + 1 : last]
        share = (inner[:, :1] - table[first, 0]) / (table[last, 0] - table[first, 0])
        away = np.abs(table[first] + share * (table[last] - table[first]) - inner).max(axis=1)
        worst = int(away.argmax())
        if away[worst] > TOLERANCE:
            kept.add(first + 1 + worst)
            stack += [(first, first + 1 + worst), (first + 1 + worst, last)]
    return [spent[i] for i in sorted(kept)]


def as_json(curves: Curves, metrics: Sequence[str], most: int) -> dict[str, object]:
    """``spent`` column by column; ``of``: examples and values, by the place of each metric in ``metrics``."""
    found: dict[str, object] = {}
    for place, name in enumerate(metrics):
        if points := thinned(curves.metrics.get(name, []), most):
            found[str(place)] = [[_short(number) for number in column] for column in zip(*points, strict=True)]
    return {"spent": [[_short(number) for number in column] for column in zip(*curves.spent, strict=True)], "of": found}


def _short(number: float) -> float | int:
    """Six digits; whole numbers all of theirs, since they count examples."""
    if math.isfinite(number) and float(number).is_integer() and abs(number) < 1e15:
        return int(number)
    return float(f"{number:.6g}")

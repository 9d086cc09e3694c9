"""Significance tests of differences between configurations, over seeds.

Two tests of each pair, both corrected by Holm (1979) for all pairs of a column, since the best one is known only
afterwards. First the permutation test of the difference of means: it assumes nothing but that seeds could be swapped,
and is exact up to eight seeds each. But three seeds against three can be dealt in 20 ways only, so its smallest
two-sided p is 0.1: where it cannot reach 5 %, Welch's t-test is used instead, which assumes that
seeds are normally distributed, and its verdict is marked as such. Intervals are Student's and Welch's: a
bootstrap of three seeds is far too narrow (docs/comparison.md has figures).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, groupby
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

LEVEL = 0.05
_MOST_DEALS = 20_000  # of seeds to two configurations; beyond, so many are drawn
_MOST_HELD = 1 << 21  # numbers of dealt seeds at a time
Verdict = Literal["apart", "apart if normal", "not told apart"]


@dataclass(frozen=True)
class Pair:
    """Two configurations, by their rows: the difference of their means, and its significance."""

    a: int
    b: int
    difference: float  # a's mean less b's
    half_width: float  # of Welch's 95 % interval of that, not corrected
    p: float  # of the permutation test, corrected
    p_normal: float  # of Welch's test, corrected
    lowest: float  # the lowest that ``p`` could be with so many seeds

    @property
    def by_welch(self) -> bool:
        """Whether the permutation test could not say anything, whatever the numbers."""
        return self.lowest > LEVEL

    @property
    def told(self) -> float:
        """The p that the verdict goes by."""
        return self.p_normal if self.by_welch else self.p

    @property
    def verdict(self) -> Verdict:
        if self.told > LEVEL:
            return "not told apart"
        return "apart if normal" if self.by_welch else "apart"


def half_width(values: Sequence[float]) -> float | None:
    """Of Student's 95 % interval of the mean. None: there are fewer than two."""
    if len(values) < 2:
        return None
    import numpy as np
    from scipy.special import stdtrit  # not scipy.stats, which takes a second to import

    return float(stdtrit(len(values) - 1, 1 - LEVEL / 2) * np.std(values, ddof=1) / math.sqrt(len(values)))


def pairs(rows: dict[int, Sequence[float]]) -> list[Pair]:
    """Every two of ``rows`` that have two seeds or more each."""
    able = {row: values for row, values in rows.items() if len(values) > 1}
    both = sorted(combinations(able, 2), key=lambda pair: (len(able[pair[0]]), len(able[pair[1]]), pair))
    found: list[Pair] = []
    for (n, m), group in groupby(both, key=lambda pair: (len(able[pair[0]]), len(able[pair[1]]))):
        found += _of_one_size([(a, b, able[a], able[b]) for a, b in group], min(1.0, 2 / math.comb(n + m, n)))
    return sorted(_corrected(found), key=lambda pair: (pair.a, pair.b))


def _of_one_size(both: list[tuple[int, int, Sequence[float], Sequence[float]]], lowest: float) -> list[Pair]:
    """Not corrected yet."""
    import numpy as np
    from scipy.special import stdtr, stdtrit

    first, second = (np.array([pair[k] for pair in both], dtype=float) for k in (2, 3))  # (pairs, seeds)
    difference = first.mean(axis=1) - second.mean(axis=1)
    p_dealt = _permutation_p(first, second)
    errors = [x.var(axis=1, ddof=1) / x.shape[1] for x in (first, second)]
    error = np.sqrt(errors[0] + errors[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = error**4 / sum(e**2 / (x.shape[1] - 1) for e, x in zip(errors, (first, second), strict=True))
        p_normal = 2 * stdtr(freedom, -abs(difference) / error)
    width = stdtrit(freedom, 1 - LEVEL / 2) * error
    varied = error > 0  # else Welch's test knows nothing
    return [
        Pair(a, b, float(d), float(w) if v else 0.0, float(p), float(q) if v else 1.0, lowest)
        for (a, b, *_), d, w, p, q, v in zip(both, difference, width, p_dealt, p_normal, varied, strict=True)
    ]


def _permutation_p(first: "np.ndarray", second: "np.ndarray") -> "np.ndarray":
    """(pairs,) of the seeds (pairs, n) and (pairs, m): two-sided, for the difference of means. All deals are looked at
    where they are at most _MOST_DEALS; else so many are drawn."""
    import numpy as np

    def statistic(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
        return x.mean(axis=axis) - y.mean(axis=axis)

    (count, n), m = first.shape, second.shape[1]
    if math.comb(n + m, n) > _MOST_DEALS:
        from scipy import stats

        drawn = stats.permutation_test(
            (first, second),
            statistic,
            vectorized=True,
            axis=1,
            n_resamples=_MOST_DEALS,
            batch=1000,
            rng=np.random.default_rng(0),
        )
        return np.asarray(drawn.pvalue)
    one = np.array(list(combinations(range(n + m), n)))  # (deals, n): places that the first is dealt
    other = np.array([[i for i in range(n + m) if i not in deal] for deal in one.tolist()])
    p = np.empty(count)
    step = max(1, _MOST_HELD // one.size)
    for start in range(0, count, step):
        block = slice(start, start + step)
        together = np.concatenate([first[block], second[block]], axis=1)
        found = statistic(first[block], second[block], 1)[:, None]
        slack = 1e-13 * np.abs(found)  # deals that are equal but for rounding count
        dealt = statistic(together[:, one], together[:, other], 2)
        p[block] = 2 * np.minimum((dealt <= found + slack).mean(axis=1), (dealt >= found - slack).mean(axis=1))
    return np.minimum(p, 1)


def _corrected(found: list[Pair]) -> list[Pair]:
    p, p_normal = holm([pair.p for pair in found]), holm([pair.p_normal for pair in found])
    return [
        Pair(pair.a, pair.b, pair.difference, pair.half_width, p[i], p_normal[i], min(1.0, pair.lowest * len(found)))
        for i, pair in enumerate(found)
    ]


def holm(p: Sequence[float]) -> list[float]:
    """Corrected p values, such that the probability of any false positive stays below the level."""
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        highest = max(highest, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = highest
    return adjusted

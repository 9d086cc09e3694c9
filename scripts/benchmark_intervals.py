"""Coverage of intervals over few seeds, for docs/comparison.md.

    python scripts/benchmark_intervals.py          # a minute of one core; writes docs/measured/intervals.json

Of sets of 2, 3 and 5 draws from a normal distribution, and from a log-normal one whose logarithm has a standard
deviation of ``SIGMA``: how many of Student's 95 % intervals, and of percentile bootstraps, hold the distribution's
mean, and how many of Welch's hold the difference of two. Then, of comparisons of four equal configurations, in how
many the rule of `scripts/compare.py` tells any two apart.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import stats

from genlab.report.significance import LEVEL, pairs

SIGMA = 0.75
SETS, RESAMPLED, COMPARISONS = 4000, 1000, 300
RECORD = Path(__file__).parents[1] / "docs" / "measured" / "intervals.json"
Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]

NORMAL: Draw = lambda rng, shape: rng.normal(size=shape)  # noqa: E731
LOG_NORMAL: Draw = lambda rng, shape: np.exp(rng.normal(0, SIGMA, shape))  # noqa: E731
STUDENT: Draw = lambda rng, shape: rng.standard_t(3, shape)  # noqa: E731
MEANS = {"normal": 0.0, "log-normal": float(np.exp(SIGMA**2 / 2))}
DRAWS = {"normal": NORMAL, "log-normal": LOG_NORMAL, "t of 3 degrees of freedom": STUDENT}


def student(draws: np.ndarray, mean: float) -> float:
    """The share of the rows of ``draws`` (sets, seeds) whose t-interval holds ``mean``."""
    half = stats.t.ppf(1 - LEVEL / 2, draws.shape[1] - 1) * stats.sem(draws, axis=1)
    return float(np.mean(abs(draws.mean(axis=1) - mean) <= half))


def bootstrap(draws: np.ndarray, mean: float, rng: np.random.Generator) -> float:
    """The same of percentile bootstraps."""
    held = []
    for row in draws:
        means = row[rng.integers(0, len(row), (RESAMPLED, len(row)))].mean(axis=1)
        low, high = np.quantile(means, [LEVEL / 2, 1 - LEVEL / 2])
        held.append(low <= mean <= high)
    return float(np.mean(held))


def welch(a: np.ndarray, b: np.ndarray) -> float:
    """The share of Welch's intervals of the difference of the rows' means, of one distribution, that hold 0."""
    errors = [x.var(axis=1, ddof=1) / x.shape[1] for x in (a, b)]
    freedom = sum(errors) ** 2 / (sum(error**2 for error in errors) / (a.shape[1] - 1))
    half = stats.t.ppf(1 - LEVEL / 2, freedom) * np.sqrt(sum(errors))
    return float(np.mean(abs(a.mean(axis=1) - b.mean(axis=1)) <= half))


def coverage(seeds: int) -> dict[str, float]:
    """A row of the table."""
    rng = np.random.default_rng(seeds)
    found = {}
    for name, mean in MEANS.items():
        draws = DRAWS[name](rng, (SETS, seeds))
        found |= {f"t, {name}": student(draws, mean), f"bootstrap, {name}": bootstrap(draws, mean, rng)}
    pair = [LOG_NORMAL(rng, (SETS, seeds)) for _ in range(2)]
    return found | {"Welch, a difference, log-normal": welch(*pair)}


def false_alarms(seeds: int, kind: str) -> float:
    """The share of comparisons of four equal configurations in which any two are told apart."""
    draws = DRAWS[kind](np.random.default_rng(seeds), (COMPARISONS, 4, seeds))
    return float(np.mean([any(pair.verdict != "not told apart" for pair in pairs(dict(enumerate(rows.tolist()))))
                          for rows in draws]))  # fmt: skip


def main(arguments: list[str]) -> None:
    if arguments:
        sys.exit("error: benchmark_intervals.py takes no arguments.")
    content = {
        "about": f"how often 95 % intervals hold what they are for, of {SETS} sets; log-normal: sigma {SIGMA}",
        "sigma": SIGMA,
        "coverage": {str(seeds): coverage(seeds) for seeds in (2, 3, 5)},
        "false_alarms": {str(seeds): {kind: false_alarms(seeds, kind) for kind in DRAWS} for seeds in (2, 3, 5, 8)},
    }
    RECORD.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {RECORD}. Now: python scripts/docs_tables.py")


if __name__ == "__main__":
    main(sys.argv[1:])

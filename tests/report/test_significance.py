"""What may be called a difference: known p values, and how often luck is taken for one."""

import itertools
import math
import statistics

import numpy as np
import pytest

from genlab.report.significance import LEVEL, half_width, holm, pairs


def test_the_interval_of_a_mean_is_students() -> None:
    assert half_width([1.0, 2.0, 3.0]) == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)  # t of 2 degrees of freedom
    assert half_width([1.0]) is None


def test_three_seeds_against_three_cannot_go_below_a_tenth() -> None:
    (pair,) = pairs({4: [1.0, 1.1, 1.2], 7: [91.0, 91.1, 91.2]})
    assert (pair.a, pair.b, pair.p, pair.lowest) == (4, 7, pytest.approx(0.1), pytest.approx(0.1))
    assert pair.difference == pytest.approx(-90)
    assert pair.p_normal < 1e-6
    assert pair.verdict == "apart if normal"


def test_the_permutation_test_is_exact() -> None:
    a, b = [1.0, 4.0, 2.5, 3.0], [2.0, 6.0, 5.5, 4.5]
    together = a + b
    observed = abs(statistics.fmean(a) - statistics.fmean(b))
    dealt = [abs(sum(together[i] for i in chosen) / 4 - (sum(together) - sum(together[i] for i in chosen)) / 4)
             for chosen in itertools.combinations(range(8), 4)]  # fmt: skip
    (pair,) = pairs({0: a, 1: b})
    assert pair.p == pytest.approx(sum(d >= observed - 1e-9 for d in dealt) / math.comb(8, 4))


def test_five_seeds_can_tell_by_permutation_alone() -> None:
    near, far = [1.0, 1.2, 0.9, 1.1, 1.05], [2.0, 2.2, 1.9, 2.1, 2.05]
    (pair,) = pairs({0: near, 1: far})
    assert (pair.p, pair.verdict) == (pytest.approx(2 / 252), "apart")
    (pair,) = pairs({0: near, 1: [1.03, 1.15, 0.95, 1.0, 1.12]})
    assert pair.verdict == "not told apart"


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_all_pairs_of_a_column_are_corrected_for() -> None:
    rows = {row: [float(row), row + 0.1, row + 0.2, row + 0.3, row + 0.4] for row in range(5)}
    found = pairs(rows)
    assert len(found) == 10
    assert found[0].lowest == pytest.approx(10 * 2 / 252)
    assert {pair.verdict for pair in found} == {"apart if normal"}  # 0.079 at best by permutation


def test_seeds_that_agree_to_the_last_digit_say_nothing_to_welch() -> None:
    (pair,) = pairs({0: [1.0, 1.0, 1.0], 1: [2.0, 2.0, 2.0]})
    assert (pair.p_normal, pair.half_width, pair.verdict) == (1.0, 0.0, "not told apart")


def test_unequal_numbers_of_seeds_and_single_ones() -> None:
    found = pairs({0: [1.0, 2.0], 1: [3.0, 4.0, 5.0], 2: [9.0]})
    assert [(pair.a, pair.b) for pair in found] == [(0, 1)]
    assert found[0].lowest == pytest.approx(2 / math.comb(5, 2))


@pytest.mark.parametrize("seeds", [3, 5])
def test_luck_is_rarely_called_a_difference(seeds: int) -> None:
    """Four configurations that are one: in at most 5 % of comparisons is any of the six pairs told apart."""
    draw = np.random.default_rng(0)
    wrong = sum(
        any(pair.verdict != "not told apart" for pair in pairs(dict(enumerate(rows.tolist()))))
        for rows in draw.normal(size=(200, 4, seeds))
    )
    assert wrong <= 200 * LEVEL
    rows = draw.normal(size=(4, seeds)) * 0.1 + np.arange(4)[:, None]
    assert any(pair.verdict != "not told apart" for pair in pairs(dict(enumerate(rows.tolist()))))

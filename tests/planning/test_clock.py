"""What a step takes on average, from a few that were timed."""

import pytest

from genlab.planning.clock import Step, pace


def steps(*seconds: float, kinds: str = "", opens: int = 10**9, flops: float = 8.0) -> list[Step]:
    """Timed steps, of one kind or of kinds named by letters; every ``opens``-th one opens an epoch."""
    names = [kinds[i % len(kinds)] if kinds else "a" for i in range(len(seconds))]
    return [
        Step(kind, i % opens == 0, wait, 2 * wait, flops * (2 if kind == "b" else 1))
        for i, (kind, wait) in enumerate(zip(names, seconds, strict=True))
    ]


def test_the_first_steps_and_one_that_was_held_up_do_not_count() -> None:
    found = pace(steps(9.0, 5.0, 4.0, 0.1, 0.1, 0.1, 0.1, 3.0), steps_per_epoch=1000)
    assert (found.training, found.wall) == (pytest.approx(0.1), pytest.approx(0.2))
    assert found.flops == 8


def test_kinds_count_as_often_as_they_come() -> None:
    """A dear step in four: 0.1 three times, 0.5 once."""
    found = pace(steps(*[0.1, 0.1, 0.1, 0.5] * 5, kinds="aaab"), steps_per_epoch=1000)
    assert found.training == pytest.approx(0.2, rel=0.02)
    assert found.flops == pytest.approx(8 * 1.25, rel=0.02)


def test_a_kind_that_came_once_costs_by_its_operations() -> None:
    timed = steps(7.0, *[0.1] * 9)
    timed[0] = Step("b", False, 7.0, 7.0, 16.0)  # the first step of all: slow for other reasons
    found = pace(timed, steps_per_epoch=1000)
    assert found.training == pytest.approx(0.9 * 0.1 + 0.1 * 0.2)


def test_what_an_epoch_costs_to_open_is_spread_over_it() -> None:
    seconds = [0.3 if i % 5 == 0 else 0.1 for i in range(30)]
    found = pace(steps(*seconds, opens=5), steps_per_epoch=5)
    assert found.training == pytest.approx((4 * 0.1 + 0.3) / 5)


def test_a_machine_that_is_busy_half_of_the_time_is_half_as_fast() -> None:
    seconds = [0.01] * 3 + [0.01, 0.01, 0.01, 0.01, 0.06] * 60  # 0.02 on average
    assert pace(steps(*seconds), steps_per_epoch=10_000).training == pytest.approx(0.02, rel=0.1)

"""Learning rates follow examples and the budget."""

import pytest

from genlab.model.schedule import Constant, CosineDecay, LinearDecay


@pytest.mark.parametrize("schedule", [Constant(100), CosineDecay(100), LinearDecay(100)])
def test_warm_up(schedule: Constant | CosineDecay | LinearDecay) -> None:
    assert [schedule.scale(examples, 0.0) for examples in (0, 50, 100, 200)] == [0, 0.5, 1, 1]


def test_decay() -> None:
    fractions = (0.0, 0.25, 0.5, 1.0)
    assert [Constant().scale(0, f) for f in fractions] == [1, 1, 1, 1]
    assert [LinearDecay(final=0.2).scale(0, f) for f in fractions] == pytest.approx([1, 0.8, 0.6, 0.2])
    assert [CosineDecay(final=0.2).scale(0, f) for f in fractions] == pytest.approx([1, 0.88284, 0.6, 0.2], abs=1e-5)

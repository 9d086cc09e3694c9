"""Learning rates follow examples and the budget."""

import pytest

from genlab.model.schedule import Constant, CosineDecay, LinearDecay, StepDecay


@pytest.mark.parametrize("schedule", [Constant(100), CosineDecay(100), LinearDecay(100), StepDecay([0.5], warmup=100)])
def test_warm_up(schedule: Constant | CosineDecay | LinearDecay | StepDecay) -> None:
    assert [schedule.scale(examples, 0.0) for examples in (0, 50, 100, 200)] == [0, 0.5, 1, 1]


def test_decay() -> None:
    fractions = (0.0, 0.25, 0.5, 1.0)
    assert [Constant().scale(0, f) for f in fractions] == [1, 1, 1, 1]
    assert [LinearDecay(final=0.2).scale(0, f) for f in fractions] == pytest.approx([1, 0.8, 0.6, 0.2])
    assert [CosineDecay(final=0.2).scale(0, f) for f in fractions] == pytest.approx([1, 0.88284, 0.6, 0.2], abs=1e-5)


def test_steps() -> None:
    schedule = StepDecay([0.7, 0.4], factor=0.5)
    assert [schedule.scale(0, f) for f in (0.0, 0.39, 0.1 + 0.3, 0.69, 0.7, 1.0)] == [1, 1, 0.5, 0.5, 0.25, 0.25]
    with pytest.raises(ValueError, match=r"at must be shares of the budget between 0 and 1, got \[1.5\]\."):
        StepDecay([1.5])

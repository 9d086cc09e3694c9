"""A plan: the table, the recommendation, and what it says of mistakes."""

import re
from pathlib import Path
from typing import Any

import pytest

from genlab.cli import run as command_line
from genlab.errors import ConfigError, ResourceError
from genlab.planning.clock import Pace
from genlab.planning.knobs import Size
from genlab.planning.plan import recommend
from genlab.planning.probe import Failed, Measured
from genlab.planning.table import Row, clock, memory, short
from tiny_run import BARE, MLP

HERE = Path(__file__).parent


def row(parameters: int, steps: float, batch: int = 8, fits: bool = True, changes: dict[str, int] | None = None) -> Row:
    measured = Measured(batch, Pace(0.1, 0.1, 1e6), 10**8, 10**6) if fits else None
    size = Size(1, 1, changes or {}, parameters)
    return Row(size, batch, measured, "" if fits else "out of memory", steps * batch, steps)


def test_the_largest_that_makes_enough_steps() -> None:
    rows = [
        row(100, 9000),
        row(100, 8000, batch=16),
        row(50, 9999),
        row(200, 5000),
        row(400, 4999),
        row(800, 0, fits=False),
    ]
    assert recommend(rows, 5000, chooses=True)[0] is rows[3]
    assert recommend(rows, 8000, chooses=True)[0] is rows[0]  # of its batches the config's own
    best, reason = recommend(rows, 10**6, chooses=True)
    assert best is rows[2]
    assert reason == "No size makes 1,000,000 steps in that time; this one makes the most, 9,999:"
    assert recommend(rows, 5000, chooses=False)[0] is rows[0]  # of a budget of examples the size is the user's
    with pytest.raises(ResourceError, match=r"^no size fits \(out of memory\)\. Try a smaller model"):
        recommend(rows[-1:], 5000, chooses=True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["hours=2", "flops=1e15"], "hours and flops are two budgets. Choose one of hours, flops and examples."),
        (["hours=-1"], "hours must be above 0, got -1."),
        (["hours=two"], "hours must be a number, got 'two'."),
        (["examples=0"], "examples must be a whole number >= 1, got 0."),
        (["trainer.devices=auto"], "trainer.devices=auto: a plan needs their number, e.g. trainer.devices=1."),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(given: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        command_line(["plan", *MLP, *given])


def test_a_plan_survives_a_process_that_does_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of more than 8 are killed, as where memory ends: what fits is found, and recommended."""
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.setattr("genlab.planning.plan._SECONDS", 0.02)
    hungry = "+callbacks.hungry={_target_: hungry.Hungry, most: 8}"
    given = [o for o in (*BARE, *MLP) if not o.startswith(("data.batch_size", "budget"))]
    command_line(["plan", *given, hungry, "data.batch_size=16", "hours=0.01", "steps=1000000000"])
    said = capsys.readouterr().out
    assert re.search(r"as configured +8 .* MB .*\n", said)
    assert re.search(r"as configured +16 +\S+ k? +out of memory", said)
    assert "width ×0.5" in said
    assert "width ×1: model.network.width=8" in said
    line = said.strip().splitlines()[-1]
    assert line.startswith("    genlab train data=digits trainer=cpu ")
    assert "data.batch_size=8" in line
    assert "data.batch_size=16" not in line
    assert line.endswith("budget=seconds budget.value=36")


def test_numbers_in_words() -> None:
    assert (clock(45.4), clock(125), clock(3725)) == ("45 s", "2:05", "1:02:05")
    assert (short(950), short(828_000), short(1.5e12)) == ("950", "828 k", "1.5 T")
    assert (memory(2.5e9), memory(340e6)) == ("2.5 GB", "340 MB")


def test_where_nothing_fits_the_advice_fits_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """A smaller batch helps where steps are too slow; where memory ends, batches down to one example were tried."""

    def ask(settings: dict[str, Any], batch: int, most: int) -> tuple[list[Measured | Failed], None]:
        tried.append(batch)
        if batch > 4 and slow:
            return [Failed(batch, "too slow", memory=False)], None
        if settings["trainer"].get("precision") != "bf16-mixed" and not slow:
            return [Failed(batch, "killed", memory=True)], None
        return [Measured(batch, Pace(0.1, 0.1, 1e6), 10**8, 10**6)], None

    monkeypatch.setattr("genlab.planning.plan._ask", ask)
    typed = ("plan", *BARE, *MLP)
    for slow, advised in ((True, "data.batch_size=4"), (False, "trainer.precision=bf16-mixed")):
        tried: list[int] = []
        with pytest.raises(ResourceError, match=r"no size fits.*Try a smaller model, or (a smaller )?") as refused:
            command_line([*typed])
        assert advised.partition("=4")[0] in str(refused.value)
        assert set(tried) == {8} if slow else tried[:4] == [8, 4, 2, 1]
        command_line([*(line for line in typed if not line.startswith("data.batch_size")), advised])


def test_a_batch_is_no_larger_than_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def ask(settings: dict[str, Any], batch: int, most: int) -> tuple[list[Measured | Failed], None]:
        asked.append((batch, most))
        return [Failed(batch, "the loss is not finite. Lower model.optimizer.lr.", memory=False)], None

    monkeypatch.setattr("genlab.planning.plan._ask", ask)
    typed = ("plan", *MLP, *(line for line in BARE if not line.startswith("data.batch_size")), "data.limit=10")
    with pytest.raises(ResourceError, match=r"^no size could be measured: the loss is not finite\. Lower model"):
        command_line([*typed])
    assert asked[0] == (10, 10), "nobody typed the 16 of the digits"
    assert all(batch == most == 10 for batch, most in asked)
    with pytest.raises(ConfigError, match=r"^data\.batch_size=11 is too large: .* Use data\.batch_size<=10\.$"):
        command_line([*typed, "data.batch_size=11"])

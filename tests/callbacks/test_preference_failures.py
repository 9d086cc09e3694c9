"""Preferences that make all known answers unlikely are named, once, and what is sound is not."""

import csv
from pathlib import Path
from typing import Any

import pytest

from genlab.callbacks.preference_failures import FIRST_STEPS, PreferenceFailures
from genlab.checkpoint import read
from genlab.command.train import Interrupted
from test_preference_runs import began as began
from tiny_run import SignalAt, only_run, resume, same, train


def logged(token: float, chosen: float, rejected: float, kl: float | None = 0.1) -> dict[str, Any]:
    found = {"train/chosen_per_token": token, "train/chosen": chosen, "train/rejected": rejected}
    return found if kl is None else found | {"train/kl": kl}


def begun() -> PreferenceFailures:
    """Answers of ten tokens: -20 nats, and -25."""
    made = PreferenceFailures(chosen_fall=1.0, divergence=2.0)
    for step in range(1, FIRST_STEPS + 1):
        assert not made.knows_start
        made.add_first(logged(-2.0 + 0.1 * (-1) ** step, -20.0, -25.0), 8 * step)
    assert made.knows_start
    return made


def names(failures: PreferenceFailures, *looks: dict[str, Any]) -> list[set[str]]:
    return [{*failures.look(look, 100)} for look in looks]


FALLEN = logged(-3.5, -35.0, -41.0)  # by 15 and by 16
FALLEN_ALONE = logged(-3.5, -35.0, -41.0, kl=None)


@pytest.mark.parametrize(
    ("look", "found"),
    [
        (FALLEN, {"displacement"}),
        (logged(-3.5, -35.0, -35.0), {"displacement"}),
        (logged(-3.5, -35.0, -30.0), {"displacement"}),  # the rejected ones have gained on them
        (logged(-3.05, -30.5, -36.0), {"displacement"}),
        (logged(-2.95, -29.5, -34.0), set()),  # by less than a nat
        (logged(-3.5, -35.0, -56.0), set()),  # by 15, and 16 more than these
        (logged(-3.5, -35.0, -54.0), {"displacement"}),
        (logged(-1.0, -10.0, -60.0), set()),
        (logged(-2.0, -20.0, -40.0, kl=2.1), {"divergence"}),
        (logged(-2.0, -20.0, -40.0, kl=1.9), set()),
        (logged(-3.5, -35.0, -35.0, kl=2.1), {"displacement", "divergence"}),
        (logged(-3.5, -35.0, -35.0, kl=None), {"displacement"}),
    ],
)
def test_three_looks_in_a_row_have_to_agree(look: dict[str, Any], found: set[str]) -> None:
    sound = logged(-2.0, -20.0, -30.0)
    nothing: set[str] = set()
    assert names(begun(), look, look, look, look) == [nothing, nothing, found, found]
    assert names(begun(), look, look, sound, look, look, sound) == [nothing] * 6


def test_nothing_is_said_before_the_start_is_known() -> None:
    failures = PreferenceFailures(1.0, 2.0)
    failures.add_first(logged(-2.0, -20.0, -25.0), 8)
    assert names(failures, *[FALLEN] * 4) == [set()] * 4


def test_a_step_counts_once_and_other_families_have_none() -> None:
    failures = PreferenceFailures(1.0, 2.0)
    for _ in range(2 * FIRST_STEPS):
        failures.add_first(logged(-2.0, -20.0, -25.0), 8)
        failures.add_first({"train/loss": 1.0, "train/chosen": 0.1, "train/rejected": 0.2}, 16)  # of pictures
    assert not failures.knows_start
    assert [len(values) for values in failures.first.values()] == [1, 1, 1]
    assert begun().look({"train/chosen": 5.0, "train/rejected": 0.0, "train/kl": 90.0}, 8) == {}


def test_what_is_advised_fits_the_objective() -> None:
    """One without a reference has no strength of the pull to it."""
    with_one, without = begun(), begun()
    for _ in range(3):
        found = [*with_one.look(FALLEN, 2_880).values(), *without.look(FALLEN_ALONE, 2_880).values()]
    first, second = found
    assert first.startswith("chosen answers become unlikely: after 2,880 examples a token of theirs has lost 1.5 nats ")
    assert "model.objective.beta (of ipo: model.objective.tau)" in first
    assert "Use model/objective=dpo, which" in second
    assert "model.objective.beta" not in second
    for sentence in (first, second):
        assert sentence.endswith("a lower model.optimizer.lr, or a smaller budget.value.")


def said(record: pytest.WarningsRecorder) -> list[str]:
    return [str(warning.message) for warning in record if "failure_monitor" in warning.filename]


SOON = ("trainer.log_every_n_steps=1", "budget.value=160")


def test_a_run_that_loses_its_answers(began: tuple[str, ...], tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """Told once; nothing is changed by who looks, and a run that goes on is not warned again."""
    lost = (*began, *SOON, "model.optimizer.lr=1e-2", "callbacks.monitor.divergence=1e-6")
    with pytest.warns(UserWarning, match="the model is far from its start: after ") as record:
        watched = train(*lost, outputs=tmp_path / "a")
    assert len(said(record)) == 1
    alone = train(*lost, "~callbacks.monitor", outputs=tmp_path / "b")
    for part in ("state_dict", "optimizer_states"):
        assert same(read.newest(watched).content[part], read.newest(alone).content[part])
    recwarn.clear()
    with pytest.raises(Interrupted):
        train(*lost, SignalAt.override(48), outputs=tmp_path / "stopped")
    resume(only_run(tmp_path / "stopped"))
    states = [
        next(value for key, value in read.newest(run).content["callbacks"].items() if "FailureMonitor" in key)
        for run in (watched, only_run(tmp_path / "stopped"))
    ]
    assert same(*states)
    assert len(states[0]["preferences"]["first"]["chosen"]) == FIRST_STEPS
    assert states[0]["said"] == ["divergence"]
    assert len(said(recwarn)) == 1


@pytest.mark.parametrize("objective", ["robust", "orpo"])
def test_a_sound_run_hears_nothing(
    objective: str, began: tuple[str, ...], tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    run = train(*began, *SOON, f"model/objective={objective}", "model.optimizer.lr=1e-3", outputs=tmp_path)
    assert said(recwarn) == []
    with (run / "metrics.csv").open() as file:
        tokens = [float(row["train/chosen_per_token"]) for row in csv.DictReader(file) if row["train/chosen_per_token"]]
    assert len(tokens) == 20
    assert all(-9 < value < -1 for value in tokens)

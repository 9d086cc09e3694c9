"""What becomes of trials: each alone, none lost, none run twice. They follow scripts (see scripted.py)."""

import json
import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from omegaconf import OmegaConf
from scripted import BUDGET, Scripted, ledger, quick, run, states  # noqa: F401

from genlab import redaction
from genlab.errors import ConfigError
from genlab.sweep import grid, loop, rows
from genlab.sweep import ledger as ledger_module
from genlab.sweep.ledger import Trial
from genlab.sweep.loop import Sweep, SweepStopped, TrialsFailed
from genlab.sweep.plain_file import PlainFile

OPTUNA = ("sweep=optuna", "sweep.metric=fid", "sweep.direction=lower")

pytestmark = pytest.mark.usefixtures("quick")


def test_a_grid_is_every_combination_once(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launcher = Scripted()
    run(launcher, "model=gan,vae", "seed=0,1,2", "data=digits", outputs=outputs)
    assert [trial["overrides"] for trial in ledger(outputs)] == [
        [f"model={model}", f"seed={seed}", "data=digits"] for model in ("gan", "vae") for seed in range(3)
    ]
    assert states(outputs) == ["finished"] * 6
    assert [words[:-1] for words, _ in launcher.started] == [trial["overrides"] for trial in ledger(outputs)]
    assert [folder.name for _, folder in launcher.started] == [trial["folder"] for trial in ledger(outputs)]
    assert len({folder for _, folder in launcher.started}) == 6
    content = json.loads((outputs / "s/trials.json").read_text())
    assert (content["metric"], content["direction"]) == ("fid_x_1k", "lower")
    assert content["command"] == f"genlab train -m outputs={outputs} sweep.name=s model=gan,vae seed=0,1,2 data=digits"
    assert f"compare: genlab compare runs={outputs}/s" in capsys.readouterr().out


def test_the_worst_trial_costs_no_other(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = {"seed=1": ["raise"], "seed=2": ["die"], "seed=3": ["refuse"]}
    with pytest.raises(TrialsFailed, match="2 of 5 trials failed") as failed:
        run(Scripted(script, slots=2), "seed=0,1,2,3,4", "sweep.retries=0", outputs=outputs)
    assert failed.value.exit_code == 8
    assert states(outputs) == ["finished", "failed", "failed", "illegal", "finished"]
    said = [(trial["said"], trial["exit_code"]) for trial in ledger(outputs)[1:4]]
    assert said == [("a bad day", 1), ("killed by SIGKILL", -9), ("that cannot be", 2)]
    printed = capsys.readouterr().out
    assert "trial 1 failed seed=1: a bad day" in printed
    assert "2 finished" in printed
    assert not (outputs / "s" / ledger(outputs)[3]["folder"]).exists()  # nothing was made of it


def test_a_trial_that_hangs_is_killed(outputs: Path) -> None:
    launcher = Scripted({"seed=0": ["hang"]})
    with pytest.raises(TrialsFailed):
        run(launcher, "seed=0", "sweep.stall_timeout=0.05", outputs=outputs)
    (hung,) = ledger(outputs)
    assert (hung["state"], hung["said"]) == ("failed", "hung: no sign of life for 0.05 s")
    assert len(launcher.started) == 1  # it would hang again


def test_the_same_command_again_does_what_is_missing(outputs: Path) -> None:
    typed = ["seed=0,1,2,3", "sweep.retries=0"]
    script = {"seed=1": ["raise"], "seed=2": ["save_and_die"]}
    with pytest.raises(TrialsFailed):
        run(Scripted(script), *typed, outputs=outputs)
    before = ledger(outputs)
    launcher = Scripted()
    run(launcher, *typed, outputs=outputs)
    first, second = (outputs / "s" / before[i]["folder"] for i in (1, 2))
    assert [(words, folder) for words, folder in launcher.started] == [
        (["seed=1", f"folder={first}"], first), ([f"run={second}"], second),
    ]  # fmt: skip
    assert states(outputs) == ["finished"] * 4
    assert [(t["number"], t["folder"]) for t in ledger(outputs)] == [(t["number"], t["folder"]) for t in before]
    launcher = Scripted()
    run(launcher, *typed, outputs=outputs)
    assert launcher.started == []


def test_a_checkpoint_without_its_run_is_no_place_to_go_on_from(outputs: Path) -> None:
    """A process that outlived its folder may have saved there once more."""
    with pytest.raises(TrialsFailed):
        run(Scripted({"seed=0": ["save_and_die"]}), "seed=0", "sweep.retries=0", outputs=outputs)
    folder = outputs / "s" / ledger(outputs)[0]["folder"]
    (folder / "config.yaml").unlink()
    launcher = Scripted()
    run(launcher, "seed=0", outputs=outputs)
    assert [words for words, _ in launcher.started] == [["seed=0", f"folder={folder}"]]
    assert states(outputs) == ["finished"]


def test_a_grid_that_has_grown_runs_what_is_new(outputs: Path) -> None:
    run(Scripted(), "seed=0,1", outputs=outputs)
    launcher = Scripted()
    run(launcher, "seed=0,1,2", outputs=outputs)
    assert [words[0] for words, _ in launcher.started] == ["seed=2"]
    assert [trial["number"] for trial in ledger(outputs)] == [0, 1, 2]


def test_a_trial_that_a_signal_ended_goes_on_at_once(outputs: Path) -> None:
    launcher = Scripted({"seed=0": ["save_and_die", "finish"], "seed=1": ["die", "finish"]})
    run(launcher, "seed=0,1", outputs=outputs)
    assert states(outputs) == ["finished", "finished"]
    assert sorted(words[0].partition("=")[0] for words, _ in launcher.started) == ["run", "seed", "seed", "seed"]
    launcher = Scripted({"seed=7": ["die"]})
    with pytest.raises(TrialsFailed):
        run(launcher, "seed=7", "sweep.retries=2", outputs=outputs)
    assert len(launcher.started) == 3


def test_a_trial_that_gets_on_may_lose_its_machine_as_often_as_it_likes(outputs: Path) -> None:
    launcher = Scripted({"seed=0": [*["save_and_lose_its_machine"] * 5, "finish"]})
    run(launcher, "seed=0", "sweep.retries=0", outputs=outputs)
    assert (states(outputs), len(launcher.started)) == (["finished"], 6)
    launcher = Scripted({"seed=7": ["save_and_lose_its_machine", "lose_its_machine"]})
    with pytest.raises(TrialsFailed):
        run(launcher, "seed=7", "sweep.retries=1", outputs=outputs)
    assert len(launcher.started) == 3  # one that got on, one that did not, and its retry
    assert ledger(outputs)[1]["said"] == "preempted or out of time: killed by SIGKILL"


def test_a_trial_that_waits_in_a_queue_does_not_hang(outputs: Path) -> None:
    run(Scripted({"seed=0": ["queue"]}), "seed=0", "sweep.stall_timeout=1.0", outputs=outputs)
    (trial,) = ledger(outputs)
    assert trial["state"] == "finished"
    assert trial["seconds"] < 1.2  # without those in the queue


def test_slots_are_filled_without_a_barrier(outputs: Path) -> None:
    launcher = Scripted(slots=3)
    launcher.curves = {"seed=0": [1.0] * 60}
    run(launcher, "seed=range(0,8)", outputs=outputs)
    assert launcher.most_at_once == 3
    ended = sorted(
        ledger(outputs), key=lambda trial: (outputs / "s" / trial["folder"] / "summary.json").stat().st_mtime_ns
    )
    assert ended[-1]["number"] == 0  # the others did not wait for it


def test_what_was_left_half_made_is_begun_afresh(outputs: Path) -> None:
    with pytest.raises(TrialsFailed):
        run(Scripted({"seed=0": ["die"]}), "seed=0", "sweep.retries=0", outputs=outputs)
    folder = outputs / "s" / ledger(outputs)[0]["folder"]
    (folder / "samples").mkdir()
    (folder / "metrics.csv").write_text("old")
    (folder / "trial.log").write_text("old\n")
    left: list[str] = []

    class Looks(Scripted):
        def start(self, command: Any, env: Any, log: Path, slot: int) -> Any:
            left.extend(path.name for path in log.parent.iterdir())
            return super().start(command, env, log, slot)

    run(Looks(), "seed=0", outputs=outputs)
    assert sorted(left) == [".trial", "trial.log"]


def test_a_trial_that_ended_after_its_sweep_counts(outputs: Path) -> None:
    with pytest.raises(TrialsFailed):
        run(Scripted({"seed=0": ["save_and_die"]}), "seed=0", "sweep.retries=0", outputs=outputs)
    (outputs / "s" / ledger(outputs)[0]["folder"] / "summary.json").write_text('{"metrics": {"fid": 3.0}}')
    launcher = Scripted()
    run(launcher, "seed=0", outputs=outputs)
    assert (launcher.started, states(outputs)) == ([], ["finished"])


def test_two_processes_are_never_in_one_folder(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TrialsFailed):
        run(Scripted({"seed=0": ["save_and_die"]}), "seed=0", "sweep.retries=0", outputs=outputs)
    folder = outputs / "s" / ledger(outputs)[0]["folder"]
    other = FileLock(folder / ".lock")
    other.acquire()
    launcher = Scripted()
    looked = 0

    class Waits(Scripted):
        def start(self, command: Any, env: Any, log: Path, slot: int) -> Any:
            assert not other.is_locked or log.parent != folder
            return super().start(command, env, log, slot)

    original = Sweep._watch

    def watch(self: Sweep) -> None:
        nonlocal looked
        looked += 1
        if looked == 5:
            other.release()
        original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sweep, "_watch", watch)
        launcher = Waits()
        run(launcher, "seed=0,1", outputs=outputs)
    assert [words[0].partition("=")[0] for words, _ in launcher.started] == ["seed", "run"]
    assert "trial 0 waits: another process still uses" in capsys.readouterr().out
    assert states(outputs) == ["finished", "finished"]


@contextmanager
def signals_after(looks: int, *numbers: int) -> Iterator[None]:
    original, looked = Sweep._watch, 0

    def watch(self: Sweep) -> None:
        nonlocal looked
        looked += 1
        if looked in range(looks, looks + len(numbers)):
            os.kill(os.getpid(), numbers[looked - looks])
        original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sweep, "_watch", watch)
        yield


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_sweep_that_is_told_to_stop_lets_trials_save(
    number: int, code: int, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = {"seed=0": ["wait", "finish"], "seed=1": ["wait", "finish"]}
    with signals_after(3, number), pytest.raises(SweepStopped) as stopped:
        run(Scripted(script, slots=2), "seed=0,1,2", outputs=outputs)
    assert stopped.value.exit_code == code
    assert "2 trials were stopped, 1 not begun. Continue with the same command: genlab train -m" in str(stopped.value)
    assert "\n" not in str(stopped.value)
    assert states(outputs) == ["stopped", "stopped", "waiting"]
    launcher = Scripted()
    run(launcher, "seed=0,1,2", outputs=outputs)
    assert [words[0].partition("=")[0] for words, _ in launcher.started] == ["run", "run", "seed"]
    assert states(outputs) == ["finished"] * 3


def test_a_second_ctrl_c_kills(outputs: Path) -> None:
    with signals_after(3, signal.SIGINT, signal.SIGINT), pytest.raises(SweepStopped):
        run(Scripted({"seed=0": ["hang"]}), "seed=0", outputs=outputs)
    assert states(outputs) == ["stopped"]


def test_a_trial_that_does_not_save_in_time_is_killed(outputs: Path) -> None:
    with signals_after(3, signal.SIGTERM), pytest.raises(SweepStopped):
        run(Scripted({"seed=0": ["hang"]}), "seed=0", "sweep.grace=0.01", outputs=outputs)
    assert states(outputs) == ["stopped"]


def test_illegal_combinations_are_said_before_anything_is_made(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(loop, "TICK", 0.0)
    launcher = Scripted()
    run(launcher, "model=gan,vae", "model/generator=dcgan", outputs=outputs)
    assert [words[0] for words, _ in launcher.started] == ["model=gan"]
    assert states(outputs) == ["finished", "illegal"]
    illegal = ledger(outputs)[1]
    assert illegal["said"].startswith("model/generator cannot be chosen: the model has no generator.")
    assert not (outputs / "s" / illegal["folder"]).exists()
    with pytest.raises(ConfigError, match=r"no trial can be run[.] unknown option"):
        run(launcher, "modle=gan,vae", outputs=outputs.with_name("other"))


def test_a_search_draws_learns_and_goes_on(outputs: Path) -> None:
    typed = [*OPTUNA, "model.optimizer.lr=tag(log, interval(1e-5, 1e-3))", "seed=0,1", "sweep.retries=0"]
    launcher = Scripted({"seed=1": ["raise"]}, slots=2)
    with pytest.raises(TrialsFailed):
        run(launcher, *typed, "sweep.n_trials=6", outputs=outputs)
    first = ledger(outputs)
    assert len(first) == 6
    rates = [float(trial["overrides"][0].partition("=")[2]) for trial in first]
    assert all(1e-5 <= rate <= 1e-3 for rate in rates)
    assert len(set(rates)) == 6
    failed = [trial["folder"] for trial in first if trial["state"] == "failed"]
    assert 0 < len(failed) < 6
    launcher = Scripted()
    swept = run(launcher, *typed, "sweep.n_trials=8", outputs=outputs)
    again = [folder.name for _, folder in launcher.started]
    assert again[: len(failed)] == failed
    assert len(again) == len(failed) + 2
    assert states(outputs) == ["finished"] * 8
    assert swept.ledger.study.best_value == 1.0


def test_a_search_draws_nothing_twice(outputs: Path) -> None:
    launcher = Scripted()
    typed = [*OPTUNA, "sweep.n_trials=20", "seed=0,1", "model=gan,vae", "model.optimizer.lr=range(1,3)"]
    run(launcher, *typed, outputs=outputs)
    assert len(launcher.started) == 8
    assert len({folder for _, folder in launcher.started}) == 8


def test_hopeless_trials_are_pruned_and_stay_so(outputs: Path) -> None:
    launcher = Scripted()
    launcher.curves = {f"seed={i}": [10.0 * (i + 1)] * 8 for i in range(4)}
    typed = ["seed=0,1,2,3", "sweep/pruner=asha", "sweep.metric=val/fid", "sweep.direction=lower"]
    run(launcher, *typed, outputs=outputs)
    assert states(outputs) == ["finished", "pruned", "pruned", "pruned"]
    assert [trial["value"] for trial in ledger(outputs)] == [10.0, 20.0, 30.0, 40.0]
    launcher = Scripted()
    run(launcher, *typed, outputs=outputs)
    assert launcher.started == []


def test_higher_is_better_where_the_metric_says_so(outputs: Path) -> None:
    launcher = Scripted()
    launcher.curves = {f"seed={i}": [10.0 * (i + 1)] * 8 for i in range(3)}
    run(launcher, "seed=2,1,0", "sweep/pruner=asha", "sweep.metric=fid", "sweep.direction=higher", outputs=outputs)
    assert states(outputs) == ["finished", "pruned", "pruned"]


def test_a_deleted_folder_is_made_again_when_its_trial_is_missing(outputs: Path) -> None:
    with pytest.raises(TrialsFailed):
        run(Scripted({"seed=0": ["save_and_die"]}), "seed=0", "sweep.retries=0", outputs=outputs)
    shutil.rmtree(outputs / "s" / ledger(outputs)[0]["folder"])
    launcher = Scripted()
    run(launcher, "seed=0", outputs=outputs)
    assert launcher.started[0][0][0] == "seed=0"


def calls_of_a_sweep(count: int, outputs: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often what is costly is done in a sweep of so many trials."""
    counted: Counter[str] = Counter()

    def count_calls(module: Any, name: str) -> None:
        original = getattr(module, name)

        def counting(*arguments: Any) -> Any:
            counted[name] += 1
            return original(*arguments)

        monkeypatch.setattr(module, name, counting)

    for module, name in ((redaction, "redacted"), (ledger_module, "read_row"), (rows, "folder_of"),
                         (rows, "parse"), (grid, "folder_of")):  # fmt: skip
        count_calls(module, name)
    rows.check_overrides.cache_clear()
    run(Scripted(), f"seed=range(0,{count})", outputs=outputs)
    assert states(outputs) == ["finished"] * count
    monkeypatch.undo()
    return dict(counted)


def test_a_trial_costs_no_more_among_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is redacted, read and parsed grows with the number of trials, not with its square."""
    found = {}
    for count in (4, 16):
        with monkeypatch.context() as patch:
            patch.setattr(loop, "TICK", 0.0)
            patch.setattr(Sweep, "_legal", lambda self, trial: OmegaConf.create(BUDGET))
            found[count] = calls_of_a_sweep(count, tmp_path / str(count), patch)
    assert set(found[4]) == {"redacted", "read_row", "folder_of", "parse"}
    for name, few in found[4].items():
        assert found[16][name] <= 4 * few + 8, name


def test_what_is_known_of_a_trial_is_redacted_again_when_a_secret_becomes_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redaction, "_seen", set())
    file, trial = PlainFile(tmp_path, "command"), Trial(0, "a", ["x.y=canary-9182736455"])
    file.write(None, [trial])
    assert "canary" in (tmp_path / "trials.json").read_text()
    redaction.remember({"api_key": "canary-9182736455"})
    file.write(None, [trial])
    assert "canary" not in (tmp_path / "trials.json").read_text()


def test_secrets_are_not_written_down(outputs: Path) -> None:
    run(Scripted(), "seed=0", "logger.wandb.api_key=canary-91827364", outputs=outputs)
    assert "canary" not in (outputs / "s/trials.json").read_text()

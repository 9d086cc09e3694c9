"""While a sweep runs, and when parts of it have failed: what became of each trial, and nothing of it in the table."""

import csv
from pathlib import Path

import pytest
from ledger import ledger, trial
from run_folders import make_run, write

from genlab.errors import ConfigError
from genlab.report.comparison import compare

METRICS = "step,progress/examples,progress/flops,progress/seconds,val/fid_digits64_500\n"


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    monkeypatch.setattr("genlab.report.plots.draw", lambda *_: [])


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    folder = tmp_path / "outputs" / "sweep"
    ledger(
        folder,
        trial(0, "model=gan", "lr=0.1"),
        trial(1, "model=gan", "lr=0.2", state="pruned"),
        trial(2, "model=gan", "lr=0.3", state="running"),
        trial(3, "model=gan", "lr=0.4", state="failed", said="killed by signal 9", exit_code=-9),
        trial(4, "model=gan", "lr=abc", state="illegal", said="lr must be a number", folder=None),
        trial(5, "model=gan", "lr=0.5", state="waiting"),
    )
    for number in range(4):
        make_run(folder / f"trial{number:04}", finished=number < 2, model__optimizer__lr=number + 1.0)
    for number in (1, 2):
        write(folder / f"trial{number:04}" / "metrics.csv", METRICS + f"9,12800,2e9,4.5,\n9,,,,{90 + number}.5\n19,25")
    return folder


def test_every_trial_is_told_of_and_only_what_has_ended_is_compared(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compare([str(sweep)], out=str(sweep / "x"))
    shown = capsys.readouterr().out
    part = shown[shown.index("Sweeps:") :].splitlines()
    assert part[:-3] == [
        "Sweeps:",
        f"  {sweep}: 6 trials: 1 waiting, 1 running, 1 finished, 1 pruned, 1 failed, 1 illegal",
        "",
        "Not finished, so not in the table:",
        "  trial 2 (lr=0.3): running; 12,800 of 64,000 examples (20%)",
        "  trial 3 (lr=0.4): failed; no step recorded; killed by signal 9",
        "  trial 1 (lr=0.2): pruned; 12,800 of 64,000 examples (20%)",
        "  trial 4 (lr=abc): illegal; lr must be a number",
        "  trial 5 (lr=0.5): waiting",
        "",
        "Latest numbers of unfinished runs, each from its last evaluation:",
        "                      state  examples  val/fid_digits64_500",
        "  trial 2 (lr=0.3)  running    12,800                  92.5",
        "  trial 1 (lr=0.2)   pruned    12,800                  91.5",
    ]
    with (sweep / "x" / "comparison.csv").open(newline="") as file:
        assert [Path(row["folder"]).name for row in csv.DictReader(file)] == ["trial0000"]
    written = (sweep / "x" / "comparison.md").read_text()
    assert "* trial 3 (lr=0.4): failed; no step recorded; killed by signal 9" in written
    assert "| trial 2 (lr=0.3) | running | 12,800 | 92.5 |" in written


def test_before_any_trial_has_begun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ledger(tmp_path / "sweep", trial(0, "seed=0", state="waiting"), trial(1, "seed=1", state="waiting"))
    compare([str(folder)], out=str(tmp_path / "x"))
    shown = capsys.readouterr().out
    assert shown.startswith("no run has finished yet\n")
    assert "  trial 0 (seed=0): waiting\n  trial 1 (seed=1): waiting\n" in shown
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == ["comparison.md", "report.html"]


def test_a_run_that_failed_after_its_end_is_said_to_have(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(sweep / "late", model__optimizer__lr=9.0)
    ledger(sweep, trial(0, "lr=0.1"), trial(1, "lr=9", state="failed", said="disk full", folder="late"))
    compare([str(sweep)], out=str(sweep / "x"))
    assert "has a summary.json; the sweep has it as failed: disk full" in capsys.readouterr().out


def test_what_a_trial_said_cannot_steer_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ledger(tmp_path / "s", trial(0, "a=\x1b[2J", state="failed", said="\x1b]0;x\x07 | <b>"))
    compare([str(folder)], out=str(tmp_path / "x"))
    assert "\x1b" not in capsys.readouterr().out
    written = (tmp_path / "x" / "comparison.md").read_text()
    assert "\x1b" not in written
    assert "\\| &lt;b&gt;" in written


DAMAGED = [
    ('{"trials": 3}', "no trials, or"),
    ('{"trials": [], "direction": "sideways"}', "an unknown direction"),
    ('{"trials": [{"number": 0, "state": "odd", "overrides": []}]}', "a trial without a number or a state"),
    ('{"trials": [{"number": 0, "state": "failed", "overrides": [], "folder": "../../etc"}]}', "trial 0 has no"),
    ("[", "cannot read"),
]


@pytest.mark.parametrize(("content", "said"), DAMAGED)
def test_a_damaged_ledger_is_one_line(content: str, said: str, tmp_path: Path) -> None:
    write(tmp_path / "trials.json", content)
    with pytest.raises(ConfigError, match=said) as refused:
        compare([str(tmp_path)])
    assert "\n" not in str(refused.value)


def test_a_trial_of_many_settings_is_told_as_labels_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trials = [
        trial(n, f"model.tokenizer=/data/runs/{part}/codes", "model/optimizer=muon", f"model.optimizer.lr=0.{n}",
              f"x.note={n}{'W' * 99}", f"a.width={n}", f"b.width={n}", state="waiting")
        for n, part in enumerate("ab", 1)
    ]  # fmt: skip
    ledger(tmp_path / "s", *trials)
    make_run(tmp_path / "other")
    compare([str(tmp_path)], out=str(tmp_path / "x"))
    assert "  trial 1 (tokenizer=a/codes lr=0.1 +3 more): waiting\n" in capsys.readouterr().out

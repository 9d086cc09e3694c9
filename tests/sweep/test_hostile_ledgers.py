"""Ledgers and trial folders that a stranger has made: nothing is deleted, nothing is written and nothing is run that
the command would not have made itself."""

import json
import os
import sqlite3
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from optuna.pruners import NopPruner
from optuna.samplers import RandomSampler
from optuna.trial import TrialState, create_trial
from scripted import Scripted, ledger, quick, run, states  # noqa: F401

from genlab.config.overrides import parse
from genlab.errors import ConfigError, StorageError
from genlab.sweep.attempt import Attempt
from genlab.sweep.grid import Grid
from genlab.sweep.ledger import Ledger
from genlab.sweep.loop import TrialsFailed
from genlab.sweep.metric import Metric
from genlab.sweep.rows import read_row
from genlab.sweep.search import Search
from genlab.sweep.space import folder_of, read_space
from genlab.sweep.trial_files import MADE, check_is_own, forget, make_ready

TYPED = ("seed=0", "data=digits")
OWNER = {"host": "elsewhere", "pid": 77, "began": "1"}
STOPPED = {"state": "stopped", "said": "", "exit_code": None, "seconds": 1.0, "value": None}


def attempt(*overrides: str, **others: Any) -> dict[str, Any]:
    """A row as a sweep writes it, but for ``others``."""
    noted = {"folder": folder_of(overrides), "overrides": list(overrides), "number": 0, "owner": OWNER}
    return noted | others


# Rows that are no sweep's. ``VICTIM`` stands for a folder that is there.
UNREADABLE: dict[str, tuple[Any, Any]] = {
    "an absolute folder": (attempt(*TYPED, folder="VICTIM"), STOPPED),
    "a folder above": (attempt(*TYPED, folder="../victim"), STOPPED),
    "a folder far above": (attempt(*TYPED, folder="../" * 40 + "VICTIM"), STOPPED),
    "the sweep's own folder": (attempt(*TYPED, folder="."), STOPPED),
    "the folder of all sweeps": (attempt(*TYPED, folder=".."), STOPPED),
    "no folder": (attempt(*TYPED, folder=""), STOPPED),
    "a folder below": (attempt(*TYPED, folder="a/b"), STOPPED),
    "a neighbor": (attempt(*TYPED, folder="neighbor"), STOPPED),
    "a home": (attempt(*TYPED, folder="~"), STOPPED),
    "a folder of a long name": (attempt(*TYPED, folder="x" * 81), STOPPED),
    "a folder with a zero": (attempt(*TYPED, folder="x\0y"), STOPPED),
    "a folder of two lines": (attempt(*TYPED, folder=folder_of(TYPED) + "\n"), STOPPED),
    "a folder that acts on a terminal": (attempt(*TYPED, folder="\x1b[2J"), STOPPED),
    "a folder that is a list": (attempt(*TYPED, folder=["a"]), STOPPED),
    "a folder that is a number": (attempt(*TYPED, folder=7), STOPPED),
    "another trial's folder": (attempt(*TYPED, folder=folder_of(["seed=1"])), STOPPED),
    "a folder of its own": (attempt(*TYPED, "folder=VICTIM"), STOPPED),
    "a run of its own": (attempt(*TYPED, "run=VICTIM"), STOPPED),
    "a run in other words": (attempt(*TYPED, "++run=VICTIM"), STOPPED),
    "changes that are allowed": (attempt(*TYPED, "allow_changes=true"), STOPPED),
    "a flag": (attempt(*TYPED, "--config-dir=VICTIM"), STOPPED),
    "a short flag": (attempt(*TYPED, "-m"), STOPPED),
    "another sweep": (attempt(*TYPED, "sweep.storage=sqlite:///x"), STOPPED),
    "another launcher": (attempt(*TYPED, "launcher=slurm"), STOPPED),
    "Hydra's own options": (attempt(*TYPED, "hydra.run.dir=VICTIM"), STOPPED),
    "several values": (attempt("seed=0,1"), STOPPED),
    "no option": (attempt("seed"), STOPPED),
    "an empty override": (attempt(""), STOPPED),
    "an override that is too long": (attempt("seed=" + "1" * 20_000), STOPPED),
    "too many overrides": (attempt(*TYPED * 1000), STOPPED),
    "overrides that are a text": (attempt(*TYPED, overrides="seed=0"), STOPPED),
    "overrides that are no texts": (attempt(*TYPED, overrides=[1, None]), STOPPED),
    "no overrides": (attempt(*TYPED, overrides=None), STOPPED),
    "a number that is a text": (attempt(*TYPED, number="0"), STOPPED),
    "a number below zero": (attempt(*TYPED, number=-1), STOPPED),
    "an endless number": (attempt(*TYPED, number=10**400), STOPPED),
    "a number that is a truth": (attempt(*TYPED, number=True), STOPPED),
    "no owner": (attempt(*TYPED, owner=None), None),
    "an owner that is everybody": (attempt(*TYPED, owner=OWNER | {"pid": -1}), None),
    "an owner that is this group": (attempt(*TYPED, owner=OWNER | {"pid": 0}), None),
    "an owner that is a text": (attempt(*TYPED, owner=OWNER | {"pid": "1"}), None),
    "an owner beyond numbers": (attempt(*TYPED, owner=OWNER | {"pid": 1 << 70}), None),
    "an owner from nowhere": (attempt(*TYPED, owner={"pid": 3}), None),
    "no row": (["folder"], STOPPED),
    "an end that is a list": (attempt(*TYPED), []),
    "a state that there is not": (attempt(*TYPED), STOPPED | {"state": "\x1b[31m"}),
    "a state that is no end": (attempt("seed=5"), STOPPED | {"state": "waiting"}),
    "a state that is a list": (attempt(*TYPED), STOPPED | {"state": ["stopped"]}),
    "a value that is a text": (attempt(*TYPED), STOPPED | {"value": "0"}),
    "a value that is endless": (attempt(*TYPED), STOPPED | {"value": 10**400}),
    "a value that is none": (attempt(*TYPED), STOPPED | {"value": float("nan")}),
    "seconds that are a text": (attempt(*TYPED), STOPPED | {"seconds": "x"}),
    "seconds below zero": (attempt(*TYPED), STOPPED | {"seconds": -1.0}),
    "an exit code that is a text": (attempt(*TYPED), STOPPED | {"exit_code": "0"}),
    "an exit code beyond numbers": (attempt(*TYPED), STOPPED | {"exit_code": 1 << 40}),
}
# Rows as a sweep would write them, but of overrides that nobody has typed now.
NOT_TYPED = [
    ("seed=5", "data=digits"), ("seed=0", "data=digits", "metrics.pass_at_k.allow_code=true"),
    ("seed=0", "data=cifar10"), ("seed=0",), ("seed=0", "data=digits", "callbacks.checkpoint.dirpath=/somewhere"),
    ("seed=0", "seed=0", "data=digits"), ("seed='0'", "data=digits"), ("data.root=/etc", "data=digits"),
]  # fmt: skip


def test_a_row_that_no_sweep_writes_is_not_read() -> None:
    assert read_row(attempt(*TYPED), STOPPED) is not None
    for kind, (noted, end) in UNREADABLE.items():
        with pytest.raises(ConfigError) as refused:
            read_row(noted, end)
        assert str(refused.value).isprintable(), kind


@pytest.mark.usefixtures("quick")
def test_of_a_ledger_full_of_them_nothing_is_run_or_deleted(
    outputs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    neighbor = outputs / "s/neighbor"
    for victim in (tmp_path / "victim", outputs / "victim", neighbor):
        victim.mkdir(parents=True)
        (victim / "kept").write_text("kept")
        (victim / MADE).touch()  # even so
    opened = Ledger(outputs / "s", None, Metric("fid", "lower"), NopPruner())
    readable = [(attempt(*overrides), STOPPED) for overrides in NOT_TYPED]
    rows = json.loads(json.dumps([*UNREADABLE.values(), *readable]).replace("VICTIM", str(tmp_path / "victim")))
    for noted, end in rows:
        noted_down = {"attempt": noted, "end": end} if end is not None else {"attempt": noted}
        opened._storage.create_new_trial(opened.study_id, create_trial(state=TrialState.FAIL, user_attrs=noted_down))
    launcher = Scripted()
    run(launcher, "seed=0,1", "data=digits", outputs=outputs)
    assert [words[:-1] for words, _ in launcher.started] == [["seed=0", "data=digits"], ["seed=1", "data=digits"]]
    assert {folder.parent for _, folder in launcher.started} == {outputs / "s"}
    for victim in (tmp_path / "victim", outputs / "victim", neighbor):
        assert sorted(path.name for path in victim.iterdir()) == [MADE, "kept"]
    ours = [trial for trial in ledger(outputs) if trial["state"] == "finished"]
    assert len(ours) == 2
    assert "rows of the ledger" in caplog.text or "of the ledger is ignored" in caplog.text
    assert f"{len(NOT_TYPED)} trials of the ledger do not belong to this command" in capsys.readouterr().out


class Told:
    """A launcher that keeps the commands that it is given."""

    slots = 1

    def __init__(self) -> None:
        self.commands: list[list[str]] = []

    def start(self, command: Any, env: Any, log: Path, slot: int) -> None:
        self.commands.append(list(command))


@pytest.mark.parametrize("typed", ["seed=0,1", "metrics.pass_at_k.allow_code=true"])
def test_no_consent_comes_from_a_ledger(typed: str, tmp_path: Path) -> None:
    """A trial that goes on says consent again: of all rows, only those of overrides that were typed are begun."""
    consent = "metrics.pass_at_k.allow_code=true"
    space = read_space(parse(["seed=0,1", "data=digits", *([typed] if typed == consent else [])], sweep=True), {})
    found = opened(tmp_path)
    for overrides in ((*TYPED, consent), TYPED, (*TYPED, consent, consent), ("seed=0", consent)):
        noted_down = {"attempt": attempt(*overrides), "end": STOPPED}
        found._storage.create_new_trial(found.study_id, create_trial(state=TrialState.FAIL, user_attrs=noted_down))
    for proposals in (Grid(), Search(RandomSampler())):
        (trial,) = proposals.wanted(space, found.trials())
        assert (consent in trial.overrides) == (typed == consent)
        folder = tmp_path / "trial"
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        (folder / "checkpoints/examples=000000000008.ckpt").touch()
        (folder / "config.yaml").write_text(f"overrides: [{consent}]")
        launcher = Told()
        attempted = Attempt(trial, folder, [], launcher, 0, None, OmegaConf.create())  # type: ignore[arg-type]
        assert attempted.goes_on
        assert launcher.commands[0][4:] == [f"run={folder}", *([consent] if typed == consent else [])]


def test_a_draw_that_somebody_has_put_into_the_study_is_not_taken(tmp_path: Path) -> None:
    space = read_space(parse(["model.optimizer.lr=interval(0.1,0.2)", "data=digits"], sweep=True), {})
    found = opened(tmp_path)
    for value in (7.0, 0.15):
        found.study.enqueue_trial({"model.optimizer.lr": value})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trial = Search(RandomSampler(seed=0), n_trials=1).next(space, found)
    assert trial is not None
    assert trial.overrides == ["model.optimizer.lr=0.15", "data=digits"]
    assert [trial.overrides for trial in found.trials()] == [trial.overrides]


def test_only_what_was_typed_is_of_a_space() -> None:
    typed = ["seed=0,1", "data=digits", "model.optimizer.lr=tag(log, interval(1e-5, 1e-3))", "model.beta=range(1,4)"]
    space = read_space(parse(typed, sweep=True), {})
    good = ["seed=0", "data=digits", "model.optimizer.lr=0.0001", "model.beta=2"]
    assert space.gives(good)
    assert space.gives(good[::-1])
    for i, other in enumerate(["seed=2", "data=mnist", "model.optimizer.lr=1.0", "model.beta=9"]):
        assert not space.gives([*good[:i], other, *good[i + 1 :]])
    for other in ("lr=nan", "lr=inf", "lr={_target_:x}", "lr=1e-4,1e-5", "lr='1e-4'", "lrs=1e-4"):
        assert not space.gives([*good[:2], f"model.optimizer.{other}", good[3]])
    assert not space.gives(good[:-1])
    assert not space.gives([*good, "seed=1"])


# --- folders of trials ------------------------------------------------------------------------------------------------


def victim_of(tmp_path: Path) -> Path:
    victim = tmp_path / "victim"
    victim.mkdir()
    for name in ("kept", MADE, "trial.log", ".lock"):
        (victim / name).write_text("kept")
    return victim


def linked(folder: Path, victim: Path) -> None:
    folder.symlink_to(victim)


def linked_file(name: str) -> Callable[[Path, Path], None]:
    def make(folder: Path, victim: Path) -> None:
        folder.mkdir()
        (folder / name).symlink_to(victim / "kept")

    return make


def pipe(name: str) -> Callable[[Path, Path], None]:
    def make(folder: Path, victim: Path) -> None:
        folder.mkdir()
        os.mkfifo(folder / name)

    return make


def unmarked(folder: Path, victim: Path) -> None:
    folder.mkdir()
    (folder / "thesis.txt").write_text("kept")


def a_file(folder: Path, victim: Path) -> None:
    folder.write_text("kept")


FOLDERS = {
    "a link to another folder": linked, "a link to nowhere": lambda folder, victim: folder.symlink_to(victim / "no"),
    "a log that is a link": linked_file("trial.log"), "a lock that is a link": linked_file(".lock"),
    "a mark that is a link": linked_file(MADE), "a log that is a pipe": pipe("trial.log"),
    "a lock that is a pipe": pipe(".lock"), "a mark that is a pipe": pipe(MADE), "no mark": unmarked, "a file": a_file,
}  # fmt: skip


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_that_no_sweep_made_is_left_as_it_is(kind: str, tmp_path: Path) -> None:
    victim, folder = victim_of(tmp_path), tmp_path / "trial"
    FOLDERS[kind](folder, victim)
    before = [(path, path.lstat().st_mtime_ns) for path in sorted(tmp_path.rglob("*"))]
    with pytest.raises(StorageError, match=r"Move .* away"):
        make_ready(folder)
    forget(folder)
    assert [(path, path.lstat().st_mtime_ns) for path in sorted(tmp_path.rglob("*"))] == before
    assert (victim / "kept").read_text() == "kept"


def test_what_a_sweep_made_is_emptied_without_following_links(tmp_path: Path) -> None:
    victim, folder = victim_of(tmp_path), tmp_path / "trial"
    assert not make_ready(folder)
    (folder / "samples").symlink_to(victim)
    (folder / "metrics.csv").symlink_to(victim / "kept")
    (folder / "code/below").mkdir(parents=True)
    (folder / "code/below/link").symlink_to(victim)
    assert not make_ready(folder)
    assert [path.name for path in folder.iterdir()] == [MADE]
    assert len(list(victim.iterdir())) == 4
    forget(folder)
    assert not folder.exists()


def test_a_trial_begun_before_folders_were_marked_goes_on(tmp_path: Path) -> None:
    (tmp_path / "trial/checkpoints").mkdir(parents=True)
    (tmp_path / "trial/checkpoints/examples=000000000008.ckpt").touch()
    (tmp_path / "trial/config.yaml").touch()
    assert make_ready(tmp_path / "trial")
    check_is_own(tmp_path / "trial")


@pytest.mark.usefixtures("quick")
def test_such_a_folder_costs_that_trial_alone(outputs: Path, tmp_path: Path) -> None:
    victim, folder = victim_of(tmp_path), outputs / "s" / folder_of(["seed=0"])
    folder.parent.mkdir(parents=True)
    folder.symlink_to(victim)
    launcher = Scripted()
    with pytest.raises(TrialsFailed):
        run(launcher, "seed=0,1", outputs=outputs)
    assert states(outputs) == ["failed", "finished"]
    assert "is not a folder of this sweep but a link" in ledger(outputs)[0]["said"]
    assert len(list(victim.iterdir())) == 4
    assert [words[0] for words, _ in launcher.started] == ["seed=1"]


# --- the file itself --------------------------------------------------------------------------------------------------


def opened(folder: Path) -> Ledger:
    return Ledger(folder, None, Metric("fid", "lower"), NopPruner())


@pytest.mark.parametrize("kind", ["a link", "a pipe", "a folder", "no data base"])
def test_a_file_that_is_no_ledger_is_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    (tmp_path / "other").write_text("kept")
    {"a link": lambda: path.symlink_to(tmp_path / "other"), "a pipe": lambda: os.mkfifo(path), "a folder": path.mkdir,
     "no data base": lambda: path.write_text("x" * 5000)}[kind]()  # fmt: skip
    with pytest.raises(StorageError) as refused:
        opened(tmp_path)
    assert "ledger" in str(refused.value)
    assert str(refused.value).isprintable()
    assert (tmp_path / "other").read_text() == "kept"


SQL = {
    "what is noted is no JSON": "update trial_user_attributes set value_json = '{'",
    "a state that Optuna does not know": "update trials set state = 'EATEN'",
    "a number that is a text": "update trials set number = 'x'",
    "a number that is none": "update trials set number = null",
    "a table that is gone": "drop table trial_user_attributes",
    "a table of another form": "alter table trials rename column state to states",
    "a date that is none": "update trials set datetime_start = 'yesterday'",
    "a version from the future": "update version_info set schema_version = 9999",
    "a distribution that is none": "insert into trial_params (trial_id, param_name, param_value, distribution_json) "
    'values (1, \'x\', 1.0, \'{"name": "os.system", "attributes": {}}\')',
}


def test_tables_that_somebody_has_changed_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    made = opened(tmp_path / "s")
    noted = {"attempt": attempt(*TYPED), "end": STOPPED}
    made._storage.create_new_trial(made.study_id, create_trial(state=TrialState.FAIL, user_attrs=noted))
    assert [trial.state for trial in opened(tmp_path / "s").trials()] == ["stopped"]
    whole = (tmp_path / "s/ledger.db").read_bytes()
    for kind, statement in SQL.items():
        (tmp_path / "s/ledger.db").write_bytes(whole)
        with sqlite3.connect(tmp_path / "s/ledger.db") as database:
            database.execute(statement)
        database.close()
        try:
            assert len(opened(tmp_path / "s").trials()) <= 1, kind
        except StorageError as error:
            assert str(error).isprintable(), kind  # noqa: PT017


@pytest.mark.parametrize("kind", [
    "trigger t after insert on trials begin delete from trials; end",
    "view t as with recursive c(x) as (select 1 union all select x from c) select * from c",
])  # fmt: skip
def test_a_ledger_that_acts_is_refused(kind: str, tmp_path: Path) -> None:
    opened(tmp_path)
    with sqlite3.connect(tmp_path / "ledger.db") as database:
        database.execute(f"create {kind}")
    database.close()
    with pytest.raises(StorageError, match=f"holds a {kind.split()[0]}"):
        opened(tmp_path)


@pytest.mark.parametrize("ending", ["-journal", "-wal", "-shm"])
def test_a_fifo_beside_a_ledger_is_refused(ending: str, tmp_path: Path) -> None:
    opened(tmp_path)
    os.mkfifo(tmp_path / f"ledger.db{ending}")
    with pytest.raises(StorageError, match=f"ledger.db{ending}"):
        opened(tmp_path)


def test_a_trigger_that_a_journal_brings_along_is_refused(tmp_path: Path) -> None:
    """The journal of a process that was killed holds pages as they were before: here, those with the trigger."""
    opened(tmp_path)
    path, journal = tmp_path / "ledger.db", tmp_path / "ledger.db-journal"
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("create trigger t after insert on trials begin delete from trials; end")
    database.execute("pragma synchronous = full")
    database.execute("pragma cache_spill = 1")
    database.execute("pragma cache_size = 1")
    database.execute("begin")
    database.execute("drop trigger t")
    database.execute("create table large as with recursive c(x) as (select 1 union all select x + 1 from c limit 3000) "
                     "select x, randomblob(100) from c")  # fmt: skip
    left = path.read_bytes(), journal.read_bytes()
    database.execute("rollback")
    database.close()
    path.write_bytes(left[0])
    journal.write_bytes(left[1])
    with pytest.raises(StorageError, match="holds a trigger"):
        opened(tmp_path)

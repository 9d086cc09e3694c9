"""Streams that are closed or full, a current folder that is gone, names that are too long: one line, and a code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tiny_run
from genlab.cli import _exit_code
from genlab.errors import ResourceError
from genlab.machine.memory import enough_memory
from genlab.redaction import for_terminal

LONG = "a" * 300
FULL = "error: cannot write: no space left on device. Choose another place or name, or make room.\n"


@pytest.mark.parametrize(
    ("where", "code", "said"),
    [(">/dev/full", 4, FULL), (">&-", 0, ""),
     (">&- 2>&-", 0, ""), ("| true", 0, "")],
)  # fmt: skip
def test_a_stream_that_takes_nothing(where: str, code: int, said: str) -> None:
    command = f"'{sys.executable}' -m genlab.cli --version {where}"
    for buffered in ("", "1"):
        environment = {**os.environ, "PYTHONUNBUFFERED": buffered}
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment)
        assert (done.returncode, done.stderr) == (code, said)


@pytest.mark.parametrize(
    "typed",
    [["train", f"outputs={LONG}"], ["train", f"folder={LONG}"], ["train", f"run={LONG}"], ["sample", f"run={LONG}"],
     ["train", "--config-dir", LONG], ["compare", f"runs={LONG}"]],
    ids=lambda typed: " ".join(typed)[:16],
)  # fmt: skip
def test_a_name_that_is_too_long(typed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    command, *options = typed
    tiny = [] if command == "compare" else tiny_run.command(*tiny_run.MLP, outputs=Path("outputs"))
    tiny = tiny if command == "train" and "run=" not in typed[-1] and "--config-dir" not in typed else []
    assert _exit_code([command, *tiny, *options]) in (2, 4)
    assert len(capfd.readouterr().err.splitlines()) == 1
    assert not list(tmp_path.rglob("*.yaml"))


@pytest.mark.parametrize("typed", [["train"], ["compare", "runs=x"], ["--help"]], ids=" ".join)
def test_a_current_folder_that_was_deleted(typed: list[str], tmp_path: Path, capfd) -> None:
    before = Path.cwd()
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    try:
        assert _exit_code(typed) == 4
    finally:
        os.chdir(before)
    assert capfd.readouterr().err == "error: the current folder was deleted. Change to one that exists: cd ~\n"


def test_machines_that_nobody_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "OMPI_COMM_WORLD_SIZE", "LSB_JOBID", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    typed = tiny_run.command(*tiny_run.MLP, "trainer.num_nodes=2", outputs=tmp_path / "outputs")
    assert _exit_code(["train", *typed]) == 7
    assert "trainer.num_nodes=2 but nothing starts processes" in capfd.readouterr().err
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    "text",
    ["unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)",
     "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out of "
     "shared memory. Please try to raise your shared memory limit.",
     "DataLoader worker (pid(s) 7) exited unexpectedly"],
)  # fmt: skip
def test_shared_memory_that_is_full(text: str) -> None:
    wanted = r"^a process that loads data died at step 3, .* shared memory .* Try data\.num_workers=0"
    with pytest.raises(ResourceError, match=wanted), enough_memory("at step 3", ""):
        raise RuntimeError(text)


def test_text_for_a_terminal() -> None:
    assert for_terminal("one\n\ttwo é中 \u3000\U0001f600") == "one\n\ttwo é中 \u3000\U0001f600"
    hostile = "\x1b]0;x\x07 \x9b2J \r\x08\x7f\u202e\u2028\ud800"
    assert for_terminal(hostile) == r"\x1b]0;x\x07 \x9b2J \r\x08\x7f\u202e\u2028\ud800"

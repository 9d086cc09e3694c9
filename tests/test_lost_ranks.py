"""A process of a run that dies, fails or stalls takes the others along, and is named."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from genlab.run.processes import Children
from tiny_run import MLP, REPOSITORY, Fault, only_run, start


def ended(process: "subprocess.Popen[str]") -> tuple[int, list[str]]:
    _, errors = process.communicate(timeout=100)
    return process.returncode, [line for line in errors.splitlines() if not line.startswith("training")]


def running(outputs: Path) -> list[str]:
    """Processes whose command line names the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # gone in the meantime
    return [line for line in found if str(outputs) in line]


def lost(run: Path, ends: list[str], said: dict[int, str]) -> str:
    """What the first process says when the others ended so and left these notes, the oldest first."""
    children = Children(lambda: "saved. Go on.")
    scripts = {"well": "pass", "killed": "import os; os.kill(os.getpid(), 9)", "failed": "raise SystemExit(1)",
               "stalls": "import time; time.sleep(100)"}  # fmt: skip
    children.folder = run
    children.processes = [subprocess.Popen([sys.executable, "-c", scripts[end]]) for end in ends]
    for rank, text in said.items():
        (run / f".rank-{rank}.error").write_text(text)
        os.utime(run / f".rank-{rank}.error", (rank_time := len(said) + list(said).index(rank), rank_time))
    try:
        return str(children.lost())
    finally:
        children.kill()


@pytest.mark.parametrize(
    ("ends", "said", "told"),
    [
        (["killed"], {}, "rank 1 of 2 died (SIGKILL); the others were stopped. Saved. Go on."),
        (["failed"], {1: "ValueError: x"}, "rank 1 of 2 failed (ValueError: x); the others were stopped. Saved."),
        (["failed"], {}, "rank 1 of 2 ended with exit code 1; the others were stopped. Saved. Go on."),
        (["failed", "killed"], {1: "waited for another rank"}, "rank 2 of 3 died (SIGKILL); the others were"),
        (["failed", "failed", "failed"], {3: "KeyError: 'a'", 1: "waited for another rank", 2: "KeyError: 'b'"},
         "rank 3 of 4 failed (KeyError: 'a'); the others were"),
        (["failed", "stalls"], {1: "waited for another rank"}, "rank 2 of 3 did not answer in time; all were stopped."),
        (["failed", "failed"], {1: "waited for another rank", 2: "waited for another rank"},
         "rank 0 of 3 did not answer in time; all were stopped."),
    ],
)  # fmt: skip
def test_the_one_that_was_first_is_named(ends: list[str], said: dict[int, str], told: str, tmp_path: Path) -> None:
    assert lost(tmp_path, ends, said).startswith(told)


@pytest.mark.matrix  # two processes that start anew
@pytest.mark.parametrize(
    ("rank", "kind", "code", "said"),
    [
        (1, "raises", 7, "error: rank 1 of 2 failed (ValueError: a bad day); the others were stopped. Saved. Continue"),
        (0, "killed", -9, "error: rank 0 died; the others stop. Continue"),
    ],
)
def test_one_that_is_lost_is_named_and_nobody_stays(rank: int, kind: str, code: int, said: str, tmp_path: Path) -> None:
    process = start(*MLP, "trainer=ddp_cpu", "callbacks.checkpoint.every_minutes=0", Fault.override(rank, kind),
                    outputs=tmp_path)  # fmt: skip
    returned, errors = ended(process)
    assert returned == code
    assert errors == [f"{said} with: python {REPOSITORY / 'train.py'} run={only_run(tmp_path)}"]
    for _ in range(50):
        if not running(tmp_path):
            break
        time.sleep(0.1)
    assert not running(tmp_path)

"""The program is killed (SIGKILL) between a click and its answer: what was answered is on disk, and nothing is asked
twice."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from feedback.folders import Client, choice, folder
from genlab.feedback.session import JUDGMENTS, Session

TEXTS = [(f"one {i}", f"other {i}") for i in range(10)]  # with one again, 11 judgments
KILL = "os.kill(os.getpid(), signal.SIGKILL)"
BEFORE = 3  # judgments that are answered
MOMENTS = {  # what the program does in place of the fourth write
    "before the write": ("write", KILL, 3),
    "in the midst of the write": ("write", f"real(descriptor, content[: len(content) // 2]); {KILL}", 3),
    "before the flush": ("fsync", KILL, 4),
    "after the flush, before the answer": ("fsync", f"real(descriptor); {KILL}", 4),
}
PROGRAM = """
import os, signal, sys
from genlab import cli
from genlab.feedback import session
calls = 0
real = os.{name}
def last(descriptor, content=None):
    global calls
    calls += 1
    if calls > {before}:
        {act}
    return real(descriptor) if content is None else real(descriptor, content)
class Os:
    def __getattr__(self, name):
        return last if name == "{name}" else getattr(os, name)
session.os = Os()
cli.main(["feedback", f"out={{sys.argv[1]}}"])
"""
PLAIN = "import sys; from genlab import cli; cli.main(['feedback', f'out={sys.argv[1]}'])"


@contextmanager
def program(path: Path, code: str = PLAIN) -> Iterator[tuple[Client, "subprocess.Popen[str]"]]:
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.fullmatch(r"open http://(127\.0\.0\.1:(\d+))/(\S+)/\n", line)
            assert found, line
            page = SimpleNamespace(hosts=(found[1],), server_port=int(found[2]), token=found[3])
            yield Client(cast(Any, page)), process
        finally:
            process.kill()


def written(path: Path) -> list[dict[str, Any]]:
    """Whole lines."""
    return [json.loads(line) for line in (path / JUDGMENTS).read_text().split("\n")[:-1]]


@pytest.mark.matrix
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_loses_nothing_that_was_answered(moment: str, tmp_path: Path) -> None:
    path = folder(tmp_path / "f", TEXTS)
    name, act, kept = MOMENTS[moment]
    asked: list[int] = []
    with program(path, PROGRAM.format(name=name, before=BEFORE, act=act)) as (client, process):
        for number in range(BEFORE):
            asked.append(client.state()["showing"])
            assert client.post(choice(number, remark=f"answered {number}"))[0] == 200
        with pytest.raises((OSError, HTTPException)):
            client.post(choice(BEFORE, "right"))
        assert process.wait(60) == -signal.SIGKILL
    there = written(path)
    assert [row["remark"] for row in there[:BEFORE]] == ["answered 0", "answered 1", "answered 2"]
    assert len(there) == kept
    with program(path) as (client, _):
        while (showing := client.state()["showing"]) is not None:
            assert showing == len(written(path))
            asked.append(showing)
            assert client.post(choice(showing))[0] == 200
    assert asked == [*range(BEFORE), *range(kept, 11)]
    assert written(path)[:kept] == there
    assert len(Session(path).judgments) == 11


@pytest.mark.matrix
def test_kills_at_any_moment(tmp_path: Path) -> None:
    """While clicks come in without a pause, from two tabs."""
    path = folder(tmp_path / "f", [(f"one {i}", f"other {i}") for i in range(400)])
    answered = 0
    for kill in range(4):
        with program(path) as (client, process):
            first = client.state()["showing"]
            assert first == len(written(path)) >= answered
            with subprocess.Popen(["sleep", f"{0.05 + 0.07 * kill}"]) as clock:
                showing = first
                while showing is not None:
                    if clock.poll() is not None:
                        process.kill()
                    try:
                        assert client.post(choice(showing, remark=str(showing)))[0] == 200
                    except (OSError, HTTPException):
                        break
                    answered = showing = showing + 1
            assert process.wait(60) == -signal.SIGKILL
        rows = written(path)
        assert len(rows) in (answered, answered + 1)
        assert [row["remark"] for row in rows] == [str(number) for number in range(len(rows))]
    assert answered > 4

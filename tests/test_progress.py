"""Progress in a log: a line once it takes long, and again, also where nothing advances."""

import io
import sys
import threading

import pytest

from genlab import progress as module
from genlab.progress import progress, told


class _Log(io.StringIO):
    """Tells when it has been written to so many times."""

    def __init__(self, lines: int):
        super().__init__()
        self.lines, self.is_full = lines, threading.Event()

    def flush(self) -> None:
        if self.getvalue().count("\n") >= self.lines:
            self.is_full.set()


def test_lines_come_without_a_single_advance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.0)
    monkeypatch.setattr(module, "_AGAIN", 0.001)
    log = _Log(2)
    monkeypatch.setattr(sys, "stderr", log)
    with progress("reading a text", None):
        assert log.is_full.wait(20)
    assert log.getvalue().startswith("reading a text ...\nreading a text ... still at it\n")
    before = log.getvalue()
    with progress("short", None, quiet=True) as advance:
        advance(1)
    assert log.getvalue() == before


def test_what_is_over_soon_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", log := _Log(1))
    with progress("short", 10) as advance:
        advance(5)
    assert log.getvalue() == ""
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("progress")]


def test_how_far() -> None:
    assert [told(0, 10), told(43, 100), told(11, 10), told(5, None), told(0, None)] == [
        "0 %", "43 %", "100 %", "5 so far", "still at it"
    ]  # fmt: skip

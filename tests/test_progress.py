"""Progress in a log: a line once it takes long, and again, also where nothing advances."""

import io
import sys
import threading
import time

import pytest
from rich.console import Console
from rich.progress import Progress

from genlab import progress as module
from genlab.progress import hide_bar, progress, show_bar, told


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
    assert log.getvalue().startswith("reading a text ...\nreading a text ... still running\n")
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


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_of_two_bars_one_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each draws the last line of the terminal, ten times a second: two at once write over each other."""
    monkeypatch.setattr(module, "_PATIENCE", 0.0)
    monkeypatch.setattr(sys, "stderr", terminal := _Terminal())
    training = Progress(console=Console(file=terminal, force_terminal=True, width=80))
    training.add_task("training", total=1)
    show_bar(training)
    with progress("drawing", 10):
        while len(module._bars) < 2:
            time.sleep(0.001)
        with module._lock:
            drawing = module._bars[-1]
        assert not training.live.is_started
        assert drawing.live.is_started
        before = len(terminal.getvalue())
        drawing.refresh()
        assert "training" not in terminal.getvalue()[before:]
    assert training.live.is_started
    assert not drawing.live.is_started
    hide_bar(drawing)  # once more: it is hidden
    hide_bar(training)
    assert not module._bars
    left = terminal.getvalue().count("\n") - terminal.getvalue().count("\x1b[1A")
    assert left == 1, "the drawing leaves no line, and training its last one"


def test_how_far() -> None:
    assert [told(0, 10), told(43, 100), told(11, 10), told(5, None), told(0, None)] == [
        "0 %", "43 %", "100 %", "5 so far", "still running"
    ]  # fmt: skip

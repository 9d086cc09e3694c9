"""Progress on stderr for what may take minutes: a bar, or lines in a log where stderr is not a terminal."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress

_PATIENCE = 2.0  # seconds in which nothing is shown
_AGAIN = 30.0  # seconds between the lines of a log
_bars: list[Progress] = []  # on the terminal, the innermost last: it alone is drawn, since two write over each other
_lock = threading.Lock()  # of that list: a bar is shown by a thread of its own


def show_bar(bar: Progress) -> None:
    """Draw a bar on the last line of the terminal. One that is there already waits until this one is hidden."""
    with _lock:
        if _bars:
            _clear(_bars[-1])
        _bars.append(bar)
        bar.start()


def hide_bar(bar: Progress) -> None:
    """Draw a bar no longer, and go on with the one that waited for it; nothing happens if it was never shown."""
    with _lock:
        if bar not in _bars:
            return  # to stop one that was never started would leave an empty line
        is_drawn = _bars[-1] is bar
        _bars.remove(bar)
        bar.stop()
        if is_drawn and _bars:
            _bars[-1].start()


def _clear(bar: Progress) -> None:
    """Stop it and clear its line; it may start again."""
    transient, bar.live.transient = bar.live.transient, True
    bar.stop()
    bar.live.transient = transient


@contextmanager
def progress(title: str, total: int | None, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """Gives ``advance(amount)``. Work of more than two seconds gets a bar, or a line at once and one every half minute
    where stderr is not a terminal, however seldom it advances.

    Args:
        title: what is going on, e.g. "decoding 50,000 images"
        total: the sum of all amounts; None if it is not known
        quiet: show nothing, as on all ranks but the first
    """
    if quiet:
        yield lambda amount: None
        return
    console = Console(stderr=True)
    bar = Progress(console=console, transient=True)
    task = bar.add_task(title, total=total)
    done = 0
    is_over = threading.Event()

    def advance(amount: int) -> None:
        nonlocal done
        done += amount
        bar.advance(task, amount)

    def show() -> None:  # by a thread of its own: a single long call advances nothing until it is over
        if is_over.wait(_PATIENCE):
            return
        if console.is_terminal:
            show_bar(bar)
            return
        print(f"{title} ...", file=sys.stderr, flush=True)
        while not is_over.wait(_AGAIN):
            print(f"{title} ... {told(done, total)}", file=sys.stderr, flush=True)

    watcher = threading.Thread(target=show, name="progress", daemon=True)
    watcher.start()
    try:
        yield advance
    finally:
        is_over.set()
        watcher.join()
        hide_bar(bar)


def told(done: int, total: int | None) -> str:
    """``43 %``, or the amount done where the total is not known."""
    if total:
        return f"{min(done / total, 1):.0%}".replace("%", " %")
    return f"{done:,} so far" if done else "still running"

"""Progress on stderr for what may take minutes: a bar, or lines in a log where stderr is not a terminal."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress

_PATIENCE = 2.0  # seconds in which nothing is shown
_AGAIN = 30.0  # seconds between the lines of a log


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
            bar.start()
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
        if bar.live.is_started:
            bar.stop()  # one that was never started would leave an empty line


def told(done: int, total: int | None) -> str:
    """``43 %``, or how much where the end is not known."""
    if total:
        return f"{min(done / total, 1):.0%}".replace("%", " %")
    return f"{done:,} so far" if done else "still at it"

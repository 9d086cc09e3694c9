"""A progress bar on stderr for the few things that may take minutes before a run starts."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress

_PATIENCE = 2.0  # seconds in which nothing is shown


@contextmanager
def progress(title: str, total: int | None, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """Gives ``advance(amount)``. Work of more than two seconds gets a bar, or one line where stderr is not a terminal.

    Args:
        title: what is going on, e.g. "decoding 50,000 images"
        total: the sum of all amounts; None if it is not known
        quiet: show nothing, as on all ranks but the first
    """
    console = Console(stderr=True)
    bar = Progress(console=console, transient=True)
    task = bar.add_task(title, total=total)
    start, shown = time.monotonic(), False

    def advance(amount: int) -> None:
        nonlocal shown
        bar.advance(task, amount)
        if not quiet and not shown and time.monotonic() - start > _PATIENCE:
            shown = True
            if console.is_terminal:
                bar.start()
            else:
                print(f"{title} ...", file=sys.stderr, flush=True)

    try:
        yield advance
    finally:
        if shown and console.is_terminal:
            bar.stop()  # one that was never started would leave an empty line

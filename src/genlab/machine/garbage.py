"""Python's search for cycles of garbage, while a program is being imported."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """None in here; and what is there at the end is left out of every later search (``gc.freeze``).

    Importing torch and Lightning makes a million objects that stay. Python looks through them again and again while
    their number grows, which takes a fifth of the time that these imports take.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()

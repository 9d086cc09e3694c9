"""Python's search for cycles of garbage, while a program is being imported."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """None in here; and what is there at the end is left out of every later search (``gc.freeze``).

    Importing torch and Lightning makes a million objects that stay. Looking through them again and again, as Python
    does while their number grows, takes a quarter of that time; and so does each full search in a training later on.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()

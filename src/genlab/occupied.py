"""A run folder belongs to one process at a time, whoever started it and from wherever."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from genlab.errors import StorageError

LOCK = ".lock"  # in the run folder
_PATIENCE = 15.0  # seconds; workers of a process that was killed hold on for some


@contextmanager
def occupied(folder: Path) -> Iterator[None]:
    """No other process trains in ``folder`` meanwhile. Raises StorageError if one does."""
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=_PATIENCE)
    except Timeout as error:
        raise StorageError(f"another process trains in {folder}. Wait for its end, or stop it.") from error
    except (NotImplementedError, OSError):  # a file system without locks
        yield
        return
    try:
        yield
    finally:
        lock.release()


def is_occupied(folder: Path) -> bool:
    """Whether some process trains in ``folder``."""
    if not (folder / LOCK).exists():
        return False
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except (NotImplementedError, OSError):
        return False
    lock.release()
    return False

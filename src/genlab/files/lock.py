"""A lock on a run folder, so that only one process trains in it at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from genlab.errors import StorageError
from genlab.files.regular_file import is_regular, kind_of

LOCK = ".lock"  # in the run folder
_PATIENCE = 15.0  # seconds; workers of a killed process keep the lock for some


@contextmanager
def occupied(folder: Path) -> Iterator[None]:
    """Hold the lock of ``folder`` inside the block. Raises StorageError if another process trains in it."""
    if (kind := kind_of(folder / LOCK)) is not None:
        raise StorageError(f"{folder / LOCK} is {kind}, not a lock file. Remove it.")
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
    if not is_regular(folder / LOCK):
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

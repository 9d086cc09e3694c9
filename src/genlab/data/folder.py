"""Locks folders that the user names, for writing."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from genlab.errors import StorageError
from genlab.files.paths import read_path


@contextmanager
def locked_folder(name: str) -> Iterator[Path]:
    """The folder, made if missing, locked for this process; ``~`` is the home folder.

    Raises:
        StorageError: it, or something inside the ``with`` block, cannot be written.
    """
    folder = read_path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".genlab.lock"):
            yield folder
    except OSError as error:
        cause = (error.strerror or str(error)).lower()
        raise StorageError(f"cannot write to {os.path.join(name, '')} ({cause}).") from error

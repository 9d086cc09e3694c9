"""Atomic writes: a file or folder appears complete, or not at all."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genlab.errors import StorageError
from genlab.files.regular_file import is_folder, make_folder, open_new

PARTIAL = ".partial"  # suffix of what is being written or removed


def write_atomically(path: Path, write: Callable[[Any], None]) -> None:
    """Let ``write`` fill a file that appears under ``path`` complete and flushed to disk, or not at all.

    Raises:
        StorageError: it cannot be written; what was there before is untouched.
    """
    partial = partial_of(path)
    with writing(path.parent):
        try:
            write_flushed(partial, write)
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        _flush_folder(path.parent)


def prepare_file(path: Path) -> None:
    """Make the folder of a file that will be written later. Raises StorageError if the file could not be written."""
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    if path.is_dir():
        raise StorageError(f"cannot write to {path} (is a folder).")


def prepare_folder(path: Path, root: Path) -> None:
    """Make a folder of a run. Raises StorageError: the run's own, ``root``, is gone, or the path goes through a
    link."""
    if not root.is_dir():
        raise StorageError(
            f"{root} is gone: this run's folder was deleted or moved while it ran. Start a new run, "
            "or put the folder back and continue it."
        )
    with writing(path):
        make_folder(path, root)


def partial_of(path: Path) -> Path:
    """The name of ``path`` until it is complete."""
    return path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")


def write_flushed(path: Path, write: Callable[[Any], None]) -> None:
    with open_new(path) as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def replace_folder(partial: Path, path: Path) -> None:
    """Rename a folder whose files are flushed to ``path``, replacing what is there."""
    _flush_folder(partial)
    before = _set_aside(path) if os.path.lexists(path) else None
    os.replace(partial, path)
    _flush_folder(path.parent)
    if before is not None:
        _remove(before)


def take_away(path: Path) -> None:
    """Remove a file or a folder, atomically for other readers."""
    _remove(_set_aside(path)) if is_folder(path) else path.unlink()


def _remove(path: Path) -> None:
    """A folder with its content; of a link, only the link."""
    shutil.rmtree(path) if is_folder(path) else path.unlink()


def _set_aside(path: Path) -> Path:
    """Rename to a name that is cleared away like partial files, and that no partial file has."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.old{PARTIAL}")
    os.replace(path, aside)
    return aside


def remove_partial_files(run_dir: Path) -> None:
    """Remove files that a killed process was writing."""
    for partial in list(run_dir.rglob(f".*{PARTIAL}")):
        _remove(partial)


def _flush_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns errors of the disk that ``folder`` is on into StorageError."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else error.__context__  # torch.save hides the disk's error
        if not isinstance(cause, OSError):
            raise
        raise StorageError(f"cannot write to {folder} ({(cause.strerror or str(cause)).lower()}).") from error


def check_room(folder: Path, needed: int) -> None:
    """Raises StorageError if the disk that ``folder`` is on, or will be, has less than ``needed`` bytes free."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise StorageError(
            f"{there} has {_size(free)} free; this run's checkpoints need about {_size(needed)}. "
            "Make room, or choose another place with outputs=<folder>."
        )


def _size(count: int) -> str:
    """``1.2 GB``, ``340 MB``"""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"

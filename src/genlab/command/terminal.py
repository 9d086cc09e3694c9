"""The terminal of a command: closed streams, a deleted current folder, warnings and log lines of libraries.

Messages of libraries are printed like our own, without control characters from them or from file names.
"""

import errno
import logging
import os
import sys
import warnings
from typing import Any

from genlab.errors import StorageError
from genlab.files.regular_file import IrregularFileError
from genlab.redaction import one_line


def prepare() -> None:
    """To be called before anything is printed: closed streams are replaced, and warnings take one line each."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # python ... >&-
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  as long as the process
    warnings.showwarning = _one_line_warning  # type: ignore[assignment]
    logged = logging.StreamHandler()
    logged.setFormatter(_OneLine())
    logging.basicConfig(handlers=[logged], level=logging.WARNING)


def check_current_folder() -> None:
    """Raises StorageError if it was deleted: relative paths would lead nowhere."""
    try:
        os.getcwd()
    except OSError as error:
        raise StorageError("the current folder was deleted. Change to one that exists: cd ~") from error


def flush() -> None:
    """Write out what was printed. Raises OSError: the reader is gone, or the disk is full."""
    try:
        sys.stdout.flush()
    except OSError:
        give_up_output()
        raise


def give_up_output() -> None:
    """Discard what is printed from now on, since Python flushes once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def is_of_the_disk(error: Exception) -> bool:
    """Whether this is a file error of the system: a bad name or place, or no space left."""
    return isinstance(error, IrregularFileError) or (isinstance(error, OSError) and error.errno in _OF_FILES)


def what_was_wrong(error: Any) -> str:
    """The system's message as a storage error: a name that is too long, a folder that may not be read ..."""
    if isinstance(error, IrregularFileError):
        return f"{error.filename} {error.strerror}. Remove it, or put a regular file there."
    about = f"{error.filename}: " if error.filename is not None else "cannot write: "
    text = one_line(f"{about}{(error.strerror or str(error)).lower()}")
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"
    return f"{text}. Choose another place or name, or make room."


_LONGEST = 300  # characters
_OF_FILES = {errno.ENAMETOOLONG, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR,
             errno.EISDIR, errno.ELOOP, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE}  # fmt: skip


def _one_line_warning(message: Any, *where: Any) -> None:
    print(f"warning: {one_line(message)}", file=sys.stderr)


class _OneLine(logging.Formatter):
    """Formats log records of libraries like our own warnings."""

    def format(self, record: logging.LogRecord) -> str:
        return f"warning: {one_line(record.getMessage())}"

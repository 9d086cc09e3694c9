"""What a command has of its surroundings: streams that may be closed, a current folder that may be gone.

Lines of libraries become lines of ours; nothing of them, or of a file's name, steers the terminal.
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
    """Before anything is printed: streams that were closed lead nowhere, and warnings are one line each."""
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
    """Write out what was printed. Raises OSError: nobody reads it any more, or it goes to a disk that is full."""
    try:
        sys.stdout.flush()
    except OSError:
        give_up_output()
        raise


def give_up_output() -> None:
    """What is printed from now on leads nowhere: Python flushes once more on its way out."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def is_of_the_disk(error: Exception) -> bool:
    """Whether the system objects to a file: to its name, its place, or to how much there is."""
    return isinstance(error, IrregularFileError) or (isinstance(error, OSError) and error.errno in _OF_FILES)


def what_was_wrong(error: Any) -> str:
    """What the system said, as an error of storage: of a name that is too long, a folder that may not be read ..."""
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
    """What libraries log is a warning of ours."""

    def format(self, record: logging.LogRecord) -> str:
        return f"warning: {one_line(record.getMessage())}"

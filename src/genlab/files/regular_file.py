"""Opens files of an untrusted run folder: regular files only, no links followed, sizes bounded.

What is not a regular file raises OSError before it is opened, so that a FIFO never waits, a device is never read and a
link never leads out of the folder. Paths that the user types now (``out=...``, a folder of data) are not restricted
like this.
"""

import contextlib
import errno
import io
import os
import stat
from pathlib import Path
from typing import BinaryIO, TextIO

LARGEST_TEXT = 64 << 20  # bytes of a file that is read as a whole: a config, a summary, a tokenizer
LARGEST_TABLE = 1 << 30  # of one that is read line by line: metrics.csv
LARGEST_PICTURE = 64 << 20
LARGEST_CHECKPOINT = 1 << 40
LONGEST_NAME = 255  # bytes of the name of a file, on every common file system

_KINDS = (
    (stat.S_ISLNK, "a link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class IrregularFileError(OSError):
    """A path is not a regular file, or the file is too large: ``strerror`` says which."""


def open_regular(path: Path, root: Path | None = None, largest: int = LARGEST_TEXT) -> BinaryIO:
    """A file open for reading, in binary.

    Args:
        root: no link is followed below this folder, an ancestor of ``path``; the folder that ``path`` is in by default
        largest: bytes that the file may have

    Raises:
        FileNotFoundError: it does not exist.
        IrregularFileError: it is not a regular file, or too large.
        OSError: it cannot be read.
    """
    descriptor = _open(path, root, os.O_RDONLY)
    size = os.fstat(descriptor).st_size
    if size > largest:
        os.close(descriptor)
        raise _irregular(path, f"has {size:,} bytes; at most {largest:,} are read")
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path, root: Path | None = None, largest: int = LARGEST_TEXT) -> bytes:
    """All of a file; raises as :func:`open_regular` does, and for a file that has grown beyond ``largest``."""
    with open_regular(path, root, largest) as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise _irregular(path, f"grows; at most {largest:,} bytes are read")
    return content


def read_text(path: Path, root: Path | None = None, largest: int = LARGEST_TEXT, errors: str = "strict") -> str:
    """All of a file in UTF-8. Raises as :func:`read_bytes` does, and UnicodeDecodeError."""
    return read_bytes(path, root, largest).decode("utf-8", errors)


def open_text(path: Path, root: Path | None = None, largest: int = LARGEST_TABLE, errors: str = "strict") -> TextIO:
    """A file in UTF-8 open for reading line by line, line ends as they are. Raises as :func:`open_regular` does."""
    return io.TextIOWrapper(open_regular(path, root, largest), encoding="utf-8", errors=errors, newline="")


def open_new(path: Path) -> BinaryIO:
    """A file open for writing that did not exist: an existing file or link is removed, not written into."""
    if os.path.lexists(path):
        os.unlink(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o666), "wb")


def open_to_append(path: Path, root: Path | None = None) -> TextIO:
    """An existing file in UTF-8 open for appending. Raises as :func:`open_regular` does."""
    descriptor = _open(path, root, os.O_WRONLY | os.O_APPEND)
    return io.TextIOWrapper(os.fdopen(descriptor, "ab"), encoding="utf-8", newline="")


def make_folder(path: Path, root: Path) -> None:
    """Make a folder below ``root``, which exists, and those above it.

    Raises:
        IrregularFileError: a part of the path is a link or not a folder.
        OSError: it cannot be made.
    """
    step = root
    for part in path.relative_to(root).parts:
        step = step / part
        with contextlib.suppress(FileExistsError):
            os.mkdir(step)
        if not is_folder(step):
            raise _irregular(step, f"{part} is {kind_of(step) or 'a file'}, not a folder")


def is_regular(path: Path) -> bool:
    """Whether this is a regular file, not a link. False for names that no file can have."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether this is a folder, not a link."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


def kind_of(path: Path, *, follow: bool = False) -> str | None:
    """What is there instead of a regular file: ``a link``, ``a FIFO`` ...; None for a regular file, or nothing.

    ``follow``: look at the target of a link, for files of the user's own data.
    """
    try:
        mode = os.stat(path, follow_symlinks=follow).st_mode
    except (OSError, ValueError):
        return None
    return _kind(mode)


def _kind(mode: int) -> str | None:
    if stat.S_ISREG(mode):
        return None
    return next((name for is_kind, name in _KINDS if is_kind(mode)), "not a regular file")


def _open(path: Path, root: Path | None, flags: int) -> int:
    """Step by step from ``root``, each step from the folder that was opened before it."""
    root = path.parent if root is None else root
    *folders, name = path.relative_to(root).parts
    above = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # the root itself may be a link
    try:
        for folder in folders:
            below = _step(folder, above, path)
            os.close(above)
            above = below
        kind = _kind(os.lstat(name, dir_fd=above).st_mode)
        if kind is not None:
            raise _irregular(path, f"is {kind}, not a regular file")
        try:  # O_NONBLOCK: a file replaced by a FIFO meanwhile must not block
            descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=above)
        except OSError as error:
            raise type(error)(error.errno, error.strerror, str(path)) from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise _irregular(path, "is not a regular file")
        return descriptor
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
    finally:
        os.close(above)


def _step(folder: str, above: int, path: Path) -> int:
    if folder == ".." or stat.S_ISLNK(os.lstat(folder, dir_fd=above).st_mode):
        raise _irregular(path, f"lies behind a link ({folder})")
    return os.open(folder, _DIRECTORY, dir_fd=above)


def _irregular(path: Path, cause: str) -> IrregularFileError:
    return IrregularFileError(errno.EINVAL, cause, str(path))

"""Reads text files, and lists those under a folder."""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from genlab.data.array_cache import digest
from genlab.errors import DataError
from genlab.files.paths import read_path

_COARSE = 3 * 10**9  # ns: FAT has a time resolution of 2 seconds
_WIDE = (b"\xff\xfe", b"\xfe\xff")  # what a file in UTF-16 starts with


def read_text(path: str | Path) -> str:
    """The text of a file in UTF-8, with its line ends, without a byte order mark.

    Raises:
        DataError: there is no such file, it cannot be read, or it is not UTF-8.
    """
    try:
        content = read_path(path).read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}.") from error
    except OSError as error:
        raise DataError(f"cannot read {path} ({(error.strerror or str(error)).lower()}).") from error
    return decode(content, str(path)).removeprefix("\ufeff")


def decode(content: bytes, name: str) -> str:
    """``content`` as UTF-8. Raises DataError with the first invalid byte; ``name``: of the file."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        encoding = "UTF-16" if content.startswith(_WIDE) else "LATIN1"
        raise DataError(
            f"{name} is not UTF-8: byte 0x{content[error.start]:02X} at offset {error.start} (line {line}). "
            f"Convert with: iconv -f {encoding} -t UTF-8."
        ) from error


def stamp_of(paths: Sequence[str | Path], *settings: object) -> str | None:
    """32 hex digits that change when a file is written to, or the settings change: a hash of paths, sizes, and
    times, including ctime, which nobody can set.

    None if a file cannot be read, or was written seconds ago, since on a file system with coarse times another write
    could leave the time unchanged. Changes are missed on a file system that always reports the same size and times.
    """
    seen = []
    for path in paths:
        try:
            place = os.path.realpath(read_path(path))
            status = os.stat(place)
        except OSError:
            return None
        if max(status.st_mtime_ns, status.st_ctime_ns) > time.time_ns() - _COARSE:
            return None
        seen.append((place, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return digest(1, seen, settings)


def list_texts(root: str, pattern: str) -> list[str]:
    """The files under ``root`` that match a glob pattern, by their names relative to it, sorted; hidden ones are
    skipped.

    Raises:
        DataError: there is no such folder, or no such file in it.
    """
    top = read_path(root)
    if not top.is_dir():
        raise DataError(f"{root} is not a folder. Set data.root to a folder of texts.")
    try:
        found = (path.relative_to(top) for path in top.glob(pattern) if path.is_file())
        names = sorted(path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts))
    except (ValueError, NotImplementedError) as error:
        raise DataError(f"data.pattern={pattern} is not a pattern like **/*.txt ({str(error).lower()}).") from error
    if not names:
        raise DataError(f"no texts found in {root} (looked for {pattern}). Set data.pattern.")
    return names


def read_texts(root: str, names: Sequence[str]) -> Iterator[str]:
    """Each file, one after the other. Raises DataError as :func:`read_text` does."""
    return (read_text(read_path(root) / name) for name in names)

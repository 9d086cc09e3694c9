"""Files of text: reading them, the ones under a folder, and which of those are held out."""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from genlab.data.array_cache import digest
from genlab.errors import DataError
from genlab.files.paths import read_path

_COARSE = 3 * 10**9  # ns: the times of FAT are even seconds
_WIDE = (b"\xff\xfe", b"\xfe\xff")  # what a file in UTF-16 starts with


def read_text(path: str | Path) -> str:
    """A file in UTF-8 as it is, line ends included, but for a byte order mark at its start.

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
    """``content`` as UTF-8. Raises DataError, with the first byte that is not, of the file ``name``."""
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
    """32 hex digits that change when one of the files is written to, or the settings: of paths, sizes, and times of
    change, also the one that nobody can set (ctime).

    None, which says nothing, for a file that cannot be looked at, or was written in these seconds: on a file system
    whose clock is coarse it could be written again without another time. What is missed is a file system that tells
    the same size and times whatever is written.
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
    """The files under ``root`` that match a glob pattern, by their names relative to it, sorted; hidden ones are passed
    over.

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

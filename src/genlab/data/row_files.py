"""Reads files that rows of a data set name, only from within the data set."""

import os
import re
from pathlib import Path

from genlab.errors import DataError
from genlab.files.paths import read_path
from genlab.files.regular_file import LARGEST_PICTURE, open_regular, read_bytes

_HOP = "::"  # fsspec's separator between a member and its archive
_MEMBER = re.compile(r"(zip|tar|gzip|bz2|xz)://")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


def read_row_file(path: str, data_set: str, name: str) -> bytes:
    """The content of a file that the row ``name`` of ``data_set`` names: in its folder, in an archive there, or, for a
    data set at the Hub, at the Hub.

    Raises:
        DataError: it is elsewhere, is behind a link out of the folder, is not a regular file, or cannot be
            read.
    """
    *members, outermost = path.split(_HOP)
    folder = read_path(data_set)
    if not all(_MEMBER.match(member) for member in members) or not outermost:
        raise _elsewhere(path, name)
    try:
        if not folder.is_dir():
            if not outermost.startswith(f"hf://datasets/{data_set}@"):
                raise _elsewhere(path, name)
            return _open(path)
        if _SCHEME.match(outermost):
            raise _elsewhere(path, name)
        real = _inside(folder, outermost)
        if real is None:
            raise _elsewhere(path, name)
        if not members:
            return read_bytes(real, largest=LARGEST_PICTURE)
        open_regular(real, largest=1 << 40).close()
        return _open(_HOP.join([*members, str(real)]))
    except DataError:
        raise
    except Exception as error:  # of the network, an archive, ...
        told = error.strerror if isinstance(error, OSError) else None
        raise DataError(f"cannot read {name} ({' '.join((told or str(error)).split())}).") from error


def _inside(folder: Path, path: str) -> Path | None:
    """The resolved path, relative to ``folder`` or absolute; None if it is not inside. Files in the Hub's own cache
    are links into the folder beside it."""
    root = Path(os.path.realpath(folder))
    if root.parent.name == "snapshots":
        root = root.parents[1]
    found = [Path(os.path.realpath(place)) for place in (folder / path, path)]
    inside = [real for real in found if root in real.parents]
    return next((real for real in inside if real.exists()), inside[0] if inside else None)


def _open(path: str) -> bytes:
    import fsspec

    with fsspec.open(path, "rb") as file:
        content: bytes = file.read(LARGEST_PICTURE + 1)
    if len(content) > LARGEST_PICTURE:
        raise ValueError(f"more than {LARGEST_PICTURE:,} bytes")
    return content


def _elsewhere(path: str, name: str) -> DataError:
    shown = path if len(path) <= 100 else f"{path[:100]}..."
    return DataError(
        f"{name} names the file {shown!r}, which is not part of the data set. Save the images themselves "
        "in its rows, or put the files into its folder."
    )

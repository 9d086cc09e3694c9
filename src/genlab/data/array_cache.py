"""Decoded images and tokens on disk: made once, mapped into memory by every process and every later run.

An entry is verified by its checksum when it is made and whenever its file differs in size or time from its seal; else
it is only mapped, so that a start does not read gigabytes. That misses bytes that a failing disk changes without a
write, and writers that reset the file's time. Entries can be deleted at any time.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock

from genlab.errors import StorageError
from genlab.files.paths import read_path
from genlab.files.regular_file import open_new, read_text
from genlab.progress import progress

_BACK = 60 * 10**9  # ns by which the file of an entry is dated back, so that any later write changes its time
_CHECKED_BYTES = 2 << 30  # read at most when a cache is opened; a larger one is checked on evenly spaced rows


def default_folder() -> Path:
    """``$GENLAB_CACHE``, else ``~/.cache/genlab``."""
    return read_path(os.environ.get("GENLAB_CACHE") or "~/.cache/genlab")


def digest(*parts: object) -> str:
    """32 hex digits, a hash of the plain values that an entry depends on, for its key."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def cached_rows(
    folder: Path, key: str, rows: Callable[[], Iterable[np.ndarray | None]]
) -> tuple[np.ndarray, np.ndarray]:
    """:func:`cached_array` for single rows. A row that is None is left out.

    Returns:
        the array (N, ...), and the positions (N,) that its rows had among what was yielded
    """
    return _places(*_cached(folder, key, lambda: (row if row is None else row[None] for row in rows())))


def found_rows(folder: Path, key: str) -> tuple[np.ndarray, np.ndarray] | None:
    """What :func:`cached_rows` returns, if it is there."""
    try:
        found = _open(folder / f"{key}.npy")
    except OSError:
        return None
    return None if found is None else _places(*found)


def _places(array: np.ndarray, left_out: list[int]) -> tuple[np.ndarray, np.ndarray]:
    return array, np.delete(np.arange(len(array) + len(left_out)), left_out)


def cached_array(folder: Path, key: str, blocks: Callable[[], Iterable[np.ndarray]]) -> np.ndarray:
    """The blocks that ``blocks()`` yields, one after the other, from disk if they are there.

    On disk are ``<key>.npy`` and ``<key>.json``, a seal with its length and checksum, which is written last. An array
    that does not match its seal is made again. Processes that want the same key wait for the one that makes it.

    Args:
        folder: of the cache, made if missing
        key: a hash of all that the blocks depend on; a valid file name
        blocks: yields at least one array (n, ...), all with the same other dimensions; called only if needed

    Returns:
        the array (N, ...), mapped; writing to it changes nothing on disk

    Raises:
        StorageError: the folder cannot be written, or is full.
    """
    return _cached(folder, key, blocks)[0]


def _cached(folder: Path, key: str, blocks: Callable[[], Iterable[np.ndarray | None]]) -> tuple[np.ndarray, list[int]]:
    """The array, and the positions of rows that were left out."""
    path = folder / f"{key}.npy"
    try:
        found = _open(path)
        if found is None:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / f"{key}.lock"):
                found = _open(path)  # another process may have made it meanwhile
                if found is None:
                    _write(path, blocks())
                    found = _open(path)
    except OSError as error:
        cause = (error.strerror or str(error)).lower()
        instead = "set GENLAB_CACHE to" if folder == default_folder() else "set cache_dir to"
        raise StorageError(
            f"cannot keep prepared data in {folder} ({cause}). Make room, or {instead} another folder."
        ) from error
    assert found is not None, "just written"
    return found


def _open(path: Path) -> tuple[np.ndarray, list[int]] | None:
    """None if there is no entry, or a damaged one."""
    try:
        seal = json.loads(read_text(path.with_suffix(".json")))
        status = path.stat()
        if status.st_size != seal["bytes"]:
            return None
        array = np.lib.format.open_memmap(path, mode="c")  # copy on write: torch wants writable arrays
        if status.st_mtime_ns != seal.get("modified"):
            if _checksum(array) != seal["checksum"]:
                return None
            _seal_time(path, seal)
        return array, [int(position) for position in seal["left_out"]]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, blocks: Iterable[np.ndarray | None]) -> None:
    partial = path.with_suffix(".npy.part")  # one name, under the lock: remains of a killed process are overwritten
    left_out: list[int] = []
    try:
        with open_new(partial) as file:  # not a mapping: a full disk must raise, not kill
            _write_blocks(file, blocks, left_out)
            file.flush()
            os.fsync(file.fileno())
        array = np.lib.format.open_memmap(partial, mode="c")
        seal = {
            "bytes": partial.stat().st_size,
            "modified": _dated_back(partial),
            "checksum": _checksum(array),
            "left_out": left_out,
        }
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    _write_seal(path, seal)


def _dated_back(path: Path) -> int:
    """Date a file back. Returns its new time in nanoseconds."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - _BACK))
    return path.stat().st_mtime_ns


def _seal_time(path: Path, seal: dict[str, Any]) -> None:
    """Write the time of a file that was just verified into its seal: it was copied here, or made before seals had
    times. Without write permission it is verified each time."""
    try:
        _write_seal(path, {**seal, "modified": _dated_back(path)})
    except OSError:
        return


def _write_seal(path: Path, seal: dict[str, Any]) -> None:
    sealed = path.with_suffix(".json.part")
    with open_new(sealed) as file:
        file.write(json.dumps(seal).encode())
        file.flush()
        os.fsync(file.fileno())
    os.replace(sealed, path.with_suffix(".json"))


def _write_blocks(file: BinaryIO, blocks: Iterable[np.ndarray | None], left_out: list[int]) -> None:
    first: np.ndarray | None = None
    count = 0
    for block in blocks:
        if block is None:
            left_out.append(count + len(left_out))
            continue
        if first is None:
            first = block
            _write_header(file, 0, first)
        assert (block.shape[1:], block.dtype) == (first.shape[1:], first.dtype)
        file.write(block.tobytes())
        count += len(block)
    assert first is not None, "the caller has at least one block"
    file.seek(0)
    _write_header(file, count, first)  # NumPy leaves room for the first dimension to grow in place


def _write_header(file: BinaryIO, count: int, block: np.ndarray) -> None:
    header = {"descr": block.dtype.str, "fortran_order": False, "shape": (count, *block.shape[1:])}
    np.lib.format.write_array_header_1_0(file, header)


def _checksum(array: np.ndarray) -> int:
    step = -(-array.nbytes // _CHECKED_BYTES) or 1
    checksum = zlib.crc32(str(array.shape).encode())
    with progress(f"checking {array.nbytes:,} bytes of prepared data", len(array)) as advance:
        for start in range(0, len(array), 4096 * step):
            checksum = zlib.crc32(np.ascontiguousarray(array[start : start + 4096 * step : step]).data, checksum)
            advance(4096 * step)
    return checksum

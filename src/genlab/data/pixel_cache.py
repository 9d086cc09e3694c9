"""Decoded images on disk: made once, mapped into memory by every process and every later run."""

import json
import os
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from filelock import FileLock

from genlab.errors import StorageError

_CHECKED_BYTES = 2 << 30  # read at most when a cache is opened; a larger one is checked on evenly spaced rows


def default_folder() -> Path:
    """``$GENLAB_CACHE``, else ``~/.cache/genlab``."""
    return Path(os.environ.get("GENLAB_CACHE") or "~/.cache/genlab").expanduser()


def cached_pixels(
    folder: Path, key: str, rows: Callable[[], Iterable[np.ndarray | None]]
) -> tuple[np.ndarray, np.ndarray]:
    """The rows that ``rows()`` yields, from disk if they are there.

    On disk are ``<key>.npy`` and ``<key>.json``, a seal with its length and checksum, which is written last. What does
    not fit its seal is made again. Processes that want the same key wait for the one that makes it.

    Args:
        folder: of the cache, made if need be
        key: names all that the rows depend on; fit for a file name
        rows: yields arrays of one shape (C, H, W) uint8, or None for a row to leave out; called only if need be

    Returns:
        the pixels (N, C, H, W), read-only and mapped, and the positions (N,) that they had among what was yielded

    Raises:
        StorageError: the folder cannot be written, or is full.
    """
    path = folder / f"{key}.npy"
    try:
        found = _open(path)
        if found is None:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / f"{key}.lock"):
                found = _open(path)  # another process may have made it meanwhile
                if found is None:
                    _write(path, rows())
                    found = _open(path)
    except OSError as error:
        cause = (error.strerror or str(error)).lower()
        raise StorageError(
            f"cannot keep decoded images in {folder} ({cause}). Make room, or set data.cache_dir to another folder."
        ) from error
    assert found is not None, "just written"
    return found


def _open(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """None if there is nothing, or nothing whole."""
    try:
        seal = json.loads(path.with_suffix(".json").read_text())
        if path.stat().st_size != seal["bytes"]:
            return None
        pixels = np.lib.format.open_memmap(path, mode="c")  # copy on write: torch wants writable arrays
        if _checksum(pixels) != seal["checksum"]:
            return None
        left_out = np.array(seal["left_out"], dtype=np.int64)
        return pixels, np.delete(np.arange(len(pixels) + len(left_out)), left_out)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, rows: Iterable[np.ndarray | None]) -> None:
    partial = path.with_suffix(".npy.part")  # one name, under the lock: what a killed process left is written over
    left_out: list[int] = []
    try:
        with open(partial, "wb", buffering=1 << 20) as file:  # not a mapping: a full disk must raise, not kill
            _write_rows(file, rows, left_out)
            file.flush()
            os.fsync(file.fileno())
        pixels = np.lib.format.open_memmap(partial, mode="c")
        seal = {"bytes": partial.stat().st_size, "checksum": _checksum(pixels), "left_out": left_out}
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    sealed = path.with_suffix(".json.part")
    with open(sealed, "w") as text:
        json.dump(seal, text)
        text.flush()
        os.fsync(text.fileno())
    os.replace(sealed, path.with_suffix(".json"))


def _write_rows(file: BinaryIO, rows: Iterable[np.ndarray | None], left_out: list[int]) -> None:
    shape: tuple[int, ...] | None = None
    count = 0
    for position, row in enumerate(rows):
        if row is None:
            left_out.append(position)
            continue
        if shape is None:
            shape = row.shape
            _write_header(file, (0, *shape))
        assert (row.shape, row.dtype) == (shape, np.uint8)
        file.write(row.tobytes())
        count += 1
    assert shape is not None, "the caller has at least one image"
    file.seek(0)
    _write_header(file, (count, *shape))  # NumPy leaves room for the first dimension to grow in place


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _checksum(pixels: np.ndarray) -> int:
    step = -(-pixels.nbytes // _CHECKED_BYTES) or 1
    checksum = zlib.crc32(str(pixels.shape).encode())
    for start in range(0, len(pixels), 4096 * step):
        checksum = zlib.crc32(np.ascontiguousarray(pixels[start : start + 4096 * step : step]).data, checksum)
    return checksum

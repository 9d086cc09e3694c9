"""Image folders packed as a zip or tar archive, unpacked once into the cache."""

import os
import shutil
from pathlib import Path

from filelock import FileLock

from genlab.data.archive import unpack_tar, unpack_zip, wholesome, zip_names
from genlab.data.array_cache import digest
from genlab.errors import StorageError
from genlab.files.paths import read_path

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")


def is_archive(path: str) -> bool:
    """Whether ``path`` is a file with the suffix of an archive."""
    return path.lower().endswith(SUFFIXES) and read_path(path).is_file()


def unpacked_root(root: str, cache: Path) -> str:
    """``root`` itself, or the folder in ``cache`` that an archive is unpacked into; the inner folder, if the archive
    holds a single one.

    Raises:
        DataError: the archive is damaged, has paths outside of its folder or links, or holds more than its size allows.
        StorageError: the cache cannot be written.
    """
    if not is_archive(root):
        return root
    path = read_path(root)
    status = path.stat()
    folder = cache / f"archive-{digest(1, os.path.realpath(path), status.st_size, status.st_mtime_ns)}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                _unpack(path, root, folder)
    except OSError as error:
        cause = (error.strerror or str(error)).lower()
        raise StorageError(f"cannot unpack {root} into {cache} ({cause}). Make room, or unpack it yourself.") from error
    return str(_innermost(folder))


def _unpack(path: Path, shown: str, folder: Path) -> None:
    """Unpack atomically."""
    partial = folder.with_name(f"{folder.name}.part")  # one name, under the lock
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        with wholesome(shown, "Unpack it yourself if you trust it, and name the folder."):
            if shown.lower().endswith(".zip"):
                unpack_zip(path, partial, [name for name in zip_names(path) if not name.endswith("/")])
            else:
                unpack_tar(path, partial)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _innermost(folder: Path) -> Path:
    """The first folder that does not hold just one other folder."""
    while True:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.name != "__MACOSX"]
        if len(entries) != 1 or not entries[0].is_dir():
            return folder
        folder = entries[0]

"""Small facts about files in the cache, under a hash of all that they depend on."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from genlab.files.regular_file import open_new, read_text


def recall(folder: Path, key: str) -> dict[str, Any] | None:
    """The facts saved under ``key``. None if there are none, or damaged ones."""
    try:
        found = json.loads(read_text(_path(folder, key)))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def remember(folder: Path, key: str, facts: dict[str, Any]) -> None:
    """Save ``facts``, plain values. No error is raised if that fails, since they can be determined again."""
    path = _path(folder, key)
    partial = path.with_name(f"{path.name}.part")  # one name, under the lock: remains of a kill are overwritten
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{key}.lock"):
            try:
                with open_new(partial) as file:
                    file.write(json.dumps(facts).encode())
                os.replace(partial, path)
            finally:
                partial.unlink(missing_ok=True)
    except OSError:
        return


def of_array(folder: Path, key: str, name: str, make: Callable[[], str]) -> str:
    """A short text computed from an entry of :mod:`genlab.data.array_cache`: once, and again if the entry's file
    was written since."""
    try:
        status = (folder / f"{key}.npy").stat()
    except OSError:
        return make()
    stamp = [status.st_size, status.st_mtime_ns]
    facts = recall(folder, key) or {}
    if facts.get("stamp") != stamp or not isinstance(facts.get(name), str):
        facts = {**(facts if facts.get("stamp") == stamp else {}), "stamp": stamp, name: make()}
        remember(folder, key, facts)
    return str(facts[name])


def _path(folder: Path, key: str) -> Path:
    return folder / f"{key}.facts"

"""A home folder and a cache folder for users who have no writable one, e.g. in a container of another user."""

import os
import warnings
from pathlib import Path

from genlab.files.paths import read_path


def ensure_home(outputs: str) -> None:
    """Give libraries that keep files in the user's home a folder beside the runs, with one warning.

    Where there is no home at all (HOME is not set, and the system does not know the user), HOME is ``<outputs>/.home``.
    Where ``~/.cache`` cannot be written, caches are in ``<outputs>/.cache``; what can be read of the home is still
    read, a login for example. What the user has set is kept.
    """
    runs = read_path(outputs).absolute()
    try:
        home = Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(runs / ".home")
        _say("this user has no home folder", runs / ".home", "Set HOME")
        return
    cache = read_path(os.environ.get("GENLAB_CACHE") or home / ".cache" / "genlab")
    if _can_be_written(cache) or "GENLAB_CACHE" in os.environ:  # reported when it is used
        return
    if (hugging_face := home / ".cache" / "huggingface").exists():  # models that are there, and its login
        os.environ.setdefault("HF_HOME", str(hugging_face))
    os.environ["GENLAB_CACHE"] = str(runs / ".cache" / "genlab")
    os.environ.setdefault("XDG_CACHE_HOME", str(runs / ".cache"))
    os.environ.setdefault("MPLCONFIGDIR", str(runs / ".cache" / "matplotlib"))
    _say(f"{cache} cannot be written", runs / ".cache", "Set GENLAB_CACHE")


def _say(why: str, where: Path, remedy: str) -> None:
    warnings.warn(f"{why}: caches are kept in {where}. {remedy} to keep them elsewhere.", stacklevel=3)


def _can_be_written(folder: Path) -> bool:
    """Whether the folder, or its nearest parent that exists, is writable."""
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)

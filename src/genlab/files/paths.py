"""Reads paths that users name on a command line, in a config or in the environment."""

import os
from pathlib import Path

from genlab.errors import ConfigError

_LONGEST, _LONGEST_NAME = 4000, 255  # bytes, of a path and of a name in it, that all usual systems take


def read_path(path: str | Path) -> Path:
    """The path, with ``~`` as the home folder and ``~name`` as that of another user. A Path object is returned as it
    is.

    Raises:
        ConfigError: there is no such home folder, or no file can have that name.
    """
    if isinstance(path, Path):
        return path
    found = Path(expanded(path))
    return Path.cwd() / found if str(found).startswith("~") else found  # ./~x, which would be read as a home later


def expanded(path: str) -> str:
    """The same as text, a slash at its end and a ``./`` at its start included. Raises ConfigError."""
    if not path or "\0" in path:
        raise ConfigError(f"{path!r} is not a path. Write the name of a file or folder.")
    found = os.path.expanduser(path)
    if len(os.fsencode(found)) > _LONGEST or any(len(os.fsencode(part)) > _LONGEST_NAME for part in found.split("/")):
        raise ConfigError(
            f"{found[:40]!r}... is not a path: it is longer than {_LONGEST} bytes, or a name in it than "
            f"{_LONGEST_NAME}. Write the name of a file or folder."
        )
    if path.startswith("~") and found == path:
        home = path.partition("/")[0]
        raise ConfigError(
            f"{path}: there is no home folder {home}. Write the whole path, or ./{path} for one in this folder."
        )
    return found

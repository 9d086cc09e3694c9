"""Recognizes runs that this user's own commands made: their configs are sealed with a key in the user's home.

A run of somebody else, or one whose config was edited by hand, has no valid seal. It can still be opened, but
unusual settings in its config are used only if they are typed now.
"""

import hashlib
import hmac
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from genlab.errors import ConfigError
from genlab.files.atomic import write_atomically
from genlab.files.paths import read_path
from genlab.files.regular_file import read_bytes

SEAL = ".seal"  # in the run folder
_SEALED = ("config.yaml", "overrides.yaml")
_KEY_BYTES = 32


def key_file() -> Path:
    """Where the user's key is. Raises ConfigError if there is no home folder."""
    return read_path(os.environ.get("XDG_CONFIG_HOME") or "~/.config") / "genlab" / "key"


def seal(folder: Path) -> None:
    """Seal the config in ``folder`` as this user's. Nothing is written if no key can be kept, or if
    others could read it. Raises StorageError."""
    key = _key() or _new_key()
    if key is not None:
        write_atomically(folder / SEAL, lambda file: file.write(_digest(folder, key).encode()))


def is_own(folder: Path) -> bool:
    """Whether the config in ``folder`` is unchanged since a command of this user wrote it."""
    key = _key()
    try:
        return key is not None and hmac.compare_digest(
            read_bytes(folder / SEAL, largest=64), _digest(folder, key).encode()
        )
    except OSError:
        return False


def _digest(folder: Path, key: bytes) -> str:
    parts = [hashlib.sha256(read_bytes(folder / name)).digest() for name in _SEALED]
    return hmac.new(key, b"".join(parts), "sha256").hexdigest()


def _key() -> bytes | None:
    """The user's key, if there is one that others cannot read."""
    try:
        status = os.lstat(path := key_file())
        private = status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
        key = read_bytes(path, largest=_KEY_BYTES) if private else b""
    except (OSError, ConfigError):
        return None
    return key if len(key) == _KEY_BYTES else None


def _new_key() -> bytes | None:
    """Make a key once; of several processes that make one, the first one's is kept."""
    with suppress(OSError, ConfigError):
        path = key_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            partial = path.with_name(f".{path.name}.part")  # one name, under the lock: a kill may have left it
            partial.unlink(missing_ok=True)
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(_KEY_BYTES))
            with suppress(FileExistsError):
                os.link(partial, path)
            partial.unlink()
    return _key()

"""Runs programs that a model wrote, isolated as far as the system allows.

There are three ways, and the safest that works here is used:

* ``bubblewrap``, where it is installed (``bwrap``);
* ``namespaces``, made here, where the system lets this user make them;
* ``bounds``, elsewhere.

All of them: another user if it is root who measures, no rights beyond those of an ordinary user, no environment, no
input, output thrown away, Python without the user's own packages (``-I``); bounds on memory, on processor time, on the
size of a file, on open files and on processes; after the time is over all of its processes are killed. On x86-64 and
ARM it is refused the calls of :mod:`genlab.metrics.system_calls`: no sockets but those within this machine, no mounts,
no namespaces, no other processes.

The first two also: no network, no processes but its own, no ``/proc`` and no ``/sys``, and of the files only Python and
the system's libraries, for reading. It can write to a bounded temporary memory.

What is not contained: with ``bounds`` alone, a program may read what the user may read, write where the user may write,
and fill the disk. In all of them it may use the kernel, and may escape through a bug in it. Measure on a
machine without valuable data.
"""

import contextlib
import functools
import json
import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from genlab.errors import ConfigError, ResourceError
from genlab.metrics import sandbox_inside
from genlab.metrics.system_calls import call_filter

Way = Literal["bubblewrap", "namespaces", "bounds"]
_FOLDER = "/program"  # where a program runs, if it has files of its own
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_SYSTEM = ("/usr", "/bin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime")
_ROOM = 64 << 20  # bytes, of a program's files together
_MOST_FILES = 10_000
_TRIAL = 60.0  # seconds, for the program that shows whether a way works
_LONGEST = 10_000_000  # characters of a program
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sandbox:
    """Bounds for one program."""

    seconds: float = 5.0  # on the clock; a program's processor time is bounded by as much, rounded up, and 1 more
    memory: int = 1 << 30  # bytes of addresses, of each process
    file_size: int = 1 << 20  # bytes
    processes: int = 32  # of the user, as the system counts: threads too

    def passes(self, program: str) -> bool:
        """Whether a program of Python runs to its end within the bounds: an exception, ``sys.exit`` half-way through
        and a signal all mean no, and so does a program that leaves what cannot be deleted.

        The program cannot know what it has to say at its end, short of reading the memory of its own interpreter.
        Raises ResourceError if the system starts no more processes.
        """
        way = best_way()
        assert way is not None, "check_sandbox comes first"
        return len(program) <= _LONGEST and self.passes_in(way, program)

    def passes_in(self, way: Way, program: str) -> bool:
        word = secrets.token_hex(16)
        read, write = os.pipe()
        folder = Path(tempfile.mkdtemp(prefix="genlab-"))
        try:
            self._run(way, folder, json.dumps([word, program]), write)
        finally:
            os.close(write)
            os.set_blocking(read, False)  # a process that got away may hold the other end
            said = b""
            with contextlib.suppress(BlockingIOError):
                said = os.read(read, 64)
            os.close(read)
            is_gone = remove_whatever_it_is(folder)
        return is_gone and said.startswith(word.encode())  # it says it more often if it forked

    def _run(self, way: Way, folder: Path, source: str, says: int) -> None:
        with tempfile.TemporaryFile() as given:
            given.write(source.encode())
            given.seek(0)
            try:
                process = subprocess.Popen(
                    self._command(way, folder, says),
                    stdin=given,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd=folder,
                    env={},
                    start_new_session=True,
                    pass_fds=(says,),
                )
            except BlockingIOError as error:
                raise ResourceError(
                    "no process can be started for a program of the model's: this user has reached its limit. End "
                    "others, or set metrics.pass_at_k.workers=1."
                ) from error
        try:
            process.wait(self.seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # all that is left of the group, also of one that has ended
            process.wait()

    def _command(self, way: Way, folder: Path, says: int) -> list[str]:
        seconds = int(-(-self.seconds // 1)) + 1
        told: dict[str, Any] = {
            "python": sys.executable,
            "says": says,
            "folder": str(folder) if way == "bounds" else _FOLDER,
            "user": _another_user() if os.geteuid() == 0 else None,
            "call_filter": call_filter(alone=way != "bounds").hex(),
            "bounds": {
                "AS": self.memory,
                "CPU": seconds,
                "FSIZE": self.file_size,
                "NPROC": self.processes,
                "NOFILE": 64,
                "CORE": 1,  # byte: with 0 the kernel may still start a program that is to take the core
            },
            "makes_namespaces": way == "namespaces",
        }
        if way == "namespaces":
            told |= {
                "root": str(folder),
                "shown": _shown(),
                "links": _all_links(),
                "devices": _DEVICES,
                "room": f"size={_ROOM},nr_inodes={_MOST_FILES},mode=1777",
            }
        python = [sys.executable, "-I", "-S", "-c", Path(sandbox_inside.__file__).read_text(encoding="utf-8")]
        return [*(_bubblewrap() if way == "bubblewrap" else ()), *python, json.dumps(told)]


def _another_user() -> int:
    """One that nobody is, so that the bound on its processes counts these alone."""
    lines = Path("/proc/self/uid_map").read_text().split()
    known = int(lines[0]) + int(lines[2])  # those that this container has
    return 1_900_000_000 + secrets.randbelow(100_000_000) if known > 1 << 31 else known - 2 - secrets.randbelow(1000)


@functools.cache
def _shown() -> list[str]:
    """What a program sees of this machine's files: the system's libraries, and where Python's are."""
    asked = [
        sys.executable,
        "-I",
        "-c",
        "import json, sys; print(json.dumps([sys.prefix, sys.base_prefix, *sys.path]))",
    ]
    found = json.loads(subprocess.run(asked, capture_output=True, check=True, stdin=subprocess.DEVNULL).stdout)
    paths = [*_SYSTEM, *map(os.path.abspath, found), str(Path(sys.executable).parent)]
    there = [path for path in dict.fromkeys(paths) if path != "/" and Path(path).exists() and path not in _links()]
    return sorted(path for path in there if not any(path.startswith(f"{other}/") for other in there))


@functools.cache
def _links() -> dict[str, str]:
    """``/bin`` -> ``usr/bin``, where it is so."""
    return {path: os.readlink(path) for path in _SYSTEM[1:5] if Path(path).is_symlink()}


def _all_links() -> dict[str, str]:
    """Also of ``/tmp``, which programs take to be there."""
    is_free = not any(path.startswith("/tmp/") for path in _shown())
    return _links() | ({"/tmp": _FOLDER} if is_free else {})


def _bubblewrap() -> list[str]:
    """The command that starts bubblewrap."""
    rights = ["--cap-drop", "ALL"]
    if os.geteuid() == 0:  # to become another user; as that, it has none
        rights += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        rights += ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    above = dict.fromkeys(str(folder) for path in _shown() for folder in list(Path(path).parents)[-2::-1])
    shown = [word for folder in ("/dev", *above) for word in ("--perms", "0755", "--dir", folder)]
    shown += [word for path in _shown() for word in ("--ro-bind", path, path)]
    links = [word for link, target in _all_links().items() for word in ("--symlink", target, link)]
    devices = [word for device in _DEVICES for word in ("--dev-bind", device, device)]
    memory = [
        word
        for size, folder in ((_ROOM, _FOLDER), (16 << 20, "/dev/shm"))
        for word in ("--perms", "1777", "--size", str(size), "--tmpfs", folder)
    ]
    return [
        shutil.which("bwrap") or "bwrap",
        "--unshare-pid",
        "--unshare-net",
        "--unshare-ipc",
        "--unshare-uts",
        "--unshare-cgroup-try",
        "--die-with-parent",
        *rights,
        *shown,
        *links,
        *devices,
        *memory,
        "--remount-ro",
        "/",
        "--chdir",
        _FOLDER,
        "--",
    ]


@functools.cache
def works(way: Way) -> bool:
    """Whether a program that does nothing passes."""
    if not sys.platform.startswith("linux") or (way == "bubblewrap" and shutil.which("bwrap") is None):
        return False
    try:
        return Sandbox(_TRIAL).passes_in(way, "pass")
    except (OSError, subprocess.CalledProcessError):
        return False


def best_way() -> Way | None:
    """The best isolation that works here; None: none does."""
    return next((way for way in get_args(Way) if works(way)), None)


def check_sandbox(allow_root: bool, option: str) -> None:
    """Raises ConfigError where programs cannot be run within bounds, or root would without bubblewrap. ``option``: of
    what would run them, as it is typed."""
    group, _, name = option.rpartition(".")
    what = f"{group.replace('.', '/')}={name}"
    if not sys.platform.startswith("linux"):
        raise ConfigError(
            f"{what} limits programs by means that only Linux has. Leave it out of {group.replace('.', '/')}=[...]."
        )
    is_root, way = os.geteuid() == 0, best_way()
    if way is None:
        raise ConfigError(
            f"{what} cannot run programs within bounds here. Be another user than root that may run this Python."
            if is_root
            else f"{what} cannot run programs within bounds here: this Python does not start with -I. Leave it out of "
            f"{group.replace('.', '/')}=[...]."
        )
    if is_root and way != "bubblewrap" and not allow_root:
        raise ConfigError(
            f"{what} runs programs that the model writes, and root has no bubblewrap here to keep them apart. Install "
            "it (apt install bubblewrap), or be another user. On a machine without valuable data, set "
            f"{option}.allow_root=true."
        )


def what_is_open(way: Way | None) -> str:
    """A warning of what a program can do that it should not; empty: nothing is known."""
    if way != "bounds":
        return ""
    network = "" if call_filter(alone=False) else " and reach the network"
    return f"this system allows no namespaces: programs of the model can read and write this user's files{network}."


def remove_whatever_it_is(folder: Path) -> bool:
    """Delete a folder that a program filled: nested beyond Python's recursion or path limits, closed to
    its owner, with names that are not text. Returns whether that worked, and warns of remains.

    Links are not followed: a folder's folders are moved up beside it and deleted in turn.
    """
    moved, names = 0, secrets.token_hex(8)  # that the program has not taken
    try:
        while entries := list(os.scandir(folder)):
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                    continue
                os.chmod(entry.path, 0o700)
                for below in list(os.scandir(entry.path)):
                    if below.is_dir(follow_symlinks=False):
                        os.chmod(below.path, 0o700)
                        moved += 1
                        os.rename(below.path, folder / f"{names}.{moved}")
                    else:
                        os.unlink(below.path)
                os.rmdir(entry.path)
        folder.rmdir()
    except OSError as error:
        _log.warning("a program of the model left files in %s that cannot be deleted (%s).", folder, error.strerror)
        return False
    return True

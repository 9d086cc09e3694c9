"""What happens inside the sandbox before a model's program runs: every door is shut, and then it begins.

The text of this file is run by an interpreter of its own, which is why it uses nothing but Python's library. It shuts
what it is told to shut and knows no second best: where the system does not let it, it ends, and nothing has run.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

_NAMESPACES = 0x6E020000  # CLONE_NEW: NS, CGROUP, UTS, IPC, PID, NET
_NEW_USER = 0x10000000
_PRIVATE, _BIND, _NOSUID, _NODEV = 0x44000, 0x5000, 2, 4  # with all that is mounted below
_DETACH = 2
_MOUNT_SETATTR, _RECURSIVE = 442, 0x8000
_DIE_WITH_PARENT, _SECCOMP, _NO_NEW_PRIVILEGES, _BY_FILTER = 1, 22, 38, 2
_NOBODY = 65534

# The first thing that the program's interpreter runs. It reads a word, and says it when the program is at its end.
_BEGIN = """
import os, sys
write, word, source = os.write, os.read(0, 64), open(sys.argv[1], encoding="utf-8").read()
says = int(sys.argv[2])
os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
sys.argv[:] = sys.argv[1:2]
exec(compile(source, "program", "exec"), {"__name__": "__main__"})
write(says, word)
"""


def main() -> None:
    told: dict[str, Any] = json.loads(sys.argv[1])
    word, source = json.loads(sys.stdin.buffer.read())
    libc = ctypes.CDLL(None, use_errno=True)
    _call(libc.prctl, _DIE_WITH_PARENT, int(signal.SIGKILL), 0, 0, 0)
    if told["makes_namespaces"]:
        _make_namespaces(libc, told)
        _wait_unless_child(told)  # the first process of a namespace is its child
        _begin_as(libc, told)
        _wait_unless_child(told)  # and is deaf to signals of its own: the program is the second
    else:
        _begin_as(libc, told)
    folder = Path(told["folder"])
    os.chdir(folder)
    Path("program.py").write_text(source, encoding="utf-8", errors="replace")
    for name, bound in told["bounds"].items():
        kind = getattr(resource, f"RLIMIT_{name}")
        most = resource.getrlimit(kind)[1]
        bound = bound if most == resource.RLIM_INFINITY else min(bound, most)
        resource.setrlimit(kind, (bound, bound))
    read, write = os.pipe()
    os.write(write, word.encode())
    os.close(write)
    os.dup2(read, 0)
    os.close(read)
    environment = {
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "LC_ALL": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    _call(libc.prctl, _NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    _refuse_calls(libc, bytes.fromhex(told["call_filter"]))
    os.execve(told["python"], [told["python"], "-I", "-c", _BEGIN, "program.py", str(told["says"])], environment)


def _call(function: Any, *arguments: Any) -> None:
    """Raises OSError."""
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _wait_unless_child(told: dict[str, Any]) -> None:
    """Go on in a child, and end with it."""
    child = os.fork()
    if child:
        os.close(told["says"])  # the child's to say
        while os.waitpid(-1, 0)[0] != child:  # the first of a namespace also buries the others' children
            pass
        os._exit(0)


def _begin_as(libc: Any, told: dict[str, Any]) -> None:
    """As another user, if it is root who measures."""
    if told["user"] is not None:
        if not told["makes_namespaces"]:
            _give(told)
        os.setgroups([])
        os.setresgid(told["user"], told["user"], told["user"])
        os.setresuid(told["user"], told["user"], told["user"])
        _call(libc.prctl, _DIE_WITH_PARENT, int(signal.SIGKILL), 0, 0, 0)  # forgotten with the user
    elif told["makes_namespaces"]:
        _call(libc.prctl, _DIE_WITH_PARENT, int(signal.SIGKILL), 0, 0, 0)  # a child's is its own


def _give(told: dict[str, Any]) -> None:
    """The folder to who is to write in it, unless everybody may."""
    if not os.stat(told["folder"]).st_mode & 0o002:
        os.chown(told["folder"], told["user"], told["user"])


def _make_namespaces(libc: Any, told: dict[str, Any]) -> None:
    """No network, no other processes, and of the files only those that Python needs, for reading."""
    user, group = os.getuid(), os.getgid()
    _call(libc.unshare, _NAMESPACES | (0 if told["user"] is not None else _NEW_USER))
    if told["user"] is None:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{_NOBODY} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{_NOBODY} {group} 1")
    root = Path(told["root"])
    _call(libc.mount, None, b"/", None, _PRIVATE, None)
    _mount_memory(libc, root, "size=1m,mode=0755")
    for path in told["shown"]:
        _show(libc, root, path)
    for link, target in told["links"].items():
        _below(root, link).symlink_to(target)
    for device in told["devices"]:
        _below(root, device).touch()
    folders = {told["folder"]: told["room"], "/dev/shm": "size=16m,nr_inodes=100,mode=1777"}
    for folder in folders:
        _below(root, folder).mkdir()
    _only_for_reading(libc, root)
    for device in told["devices"]:
        _call(libc.mount, os.fsencode(device), os.fsencode(_below(root, device)), None, _BIND, None)
    for folder, options in folders.items():
        _mount_memory(libc, _below(root, folder), options)
    os.chdir(root)
    _call(libc.pivot_root, b".", b".")
    _call(libc.umount2, b".", _DETACH)
    os.chdir("/")


def _below(root: Path, path: str) -> Path:
    there = root / path.lstrip("/")
    there.parent.mkdir(parents=True, exist_ok=True)
    return there


def _mount_memory(libc: Any, place: Path, options: str) -> None:
    _call(libc.mount, b"tmpfs", os.fsencode(place), b"tmpfs", _NOSUID | _NODEV, options.encode())


def _show(libc: Any, root: Path, path: str) -> None:
    there = _below(root, path)
    if Path(path).is_dir():
        there.mkdir(exist_ok=True)
    else:
        there.touch()
    _call(libc.mount, os.fsencode(path), os.fsencode(there), None, _BIND, None)


def _only_for_reading(libc: Any, root: Path) -> None:
    attributes = (ctypes.c_uint64 * 4)(1 | _NOSUID | _NODEV, 0, 0, 0)  # struct mount_attr
    _call(
        libc.syscall,
        _MOUNT_SETATTR,
        -100,
        os.fsencode(root),
        _RECURSIVE,
        ctypes.byref(attributes),
        ctypes.sizeof(attributes),
    )


def _refuse_calls(libc: Any, filter_: bytes) -> None:
    class Program(ctypes.Structure):
        _fields_ = (("count", ctypes.c_ushort), ("lines", ctypes.c_char_p))

    if filter_:
        program = Program(len(filter_) // 8, filter_)
        _call(libc.prctl, _SECCOMP, _BY_FILTER, ctypes.byref(program), 0, 0)


if __name__ == "__main__":
    main()

"""Programs that a model wrote, run apart from everything else as far as an ordinary user can.

What holds on any Linux: a process group of its own, no environment, no input, output thrown away, an empty folder that
is deleted afterwards, Python without the user's own packages (``-I``); bounds on memory, on processor time, on the size
of a file, on open files and (unless root measures) on processes; and after the time is over the group is killed.

Where the system lets users make namespaces (``unshare`` of util-linux), also: no network, processes that cannot see
others and that all end with the first of them, and none of root's rights, should it be root who measures.

What is not contained: a program may read what the user may read and write where the user may write, fill the disk with
many files, and without namespaces reach the network, and leave the group with ``setsid`` and so live on. Measure on a
machine with nothing to lose, in a container or as a user of its own.
"""

import contextlib
import functools
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from genlab.errors import ConfigError

_APART = ("--user", "--map-root-user", "--net", "--pid", "--ipc", "--fork", "--kill-child", "--mount-proc")

# The first thing that runs: bounds that what follows cannot lift, then the program, as a module of its own.
_BEGIN = """
import resource, sys
for name, bound in zip(("AS", "CPU", "FSIZE", "NPROC", "NOFILE", "CORE"), map(int, sys.argv[2:8])):
    kind = getattr(resource, "RLIMIT_" + name)
    most = resource.getrlimit(kind)[1]
    bound = bound if most == resource.RLIM_INFINITY else min(bound, most)
    resource.setrlimit(kind, (bound, bound))
source = open(sys.argv[1], encoding="utf-8").read()
sys.argv[:] = [sys.argv[1]]
exec(compile(source, "program", "exec"), {"__name__": "__main__"})
"""


@dataclass(frozen=True)
class Sandbox:
    """Bounds for one program."""

    seconds: float = 5.0  # on the clock; a program's processor time is bounded by as much, rounded up, and 1 more
    memory: int = 1 << 30  # bytes of addresses, of each process
    file_size: int = 1 << 20  # bytes
    processes: int = 32  # of the user, as the system counts: threads too

    def passes(self, program: str) -> bool:
        """Whether a program of Python runs to its end within the bounds: an exception, ``sys.exit`` half-way through
        and a signal all mean no.

        The program cannot know what it has to say at its end, short of reading its own source.
        """
        word = secrets.token_hex(16)
        read, write = os.pipe()
        try:
            with tempfile.TemporaryDirectory(prefix="genlab-", ignore_cleanup_errors=True) as folder:
                last = f"__import__('os').write({write}, {word.encode()!r})"
                source = Path(folder) / "program.py"
                source.write_text(f"{program}\n\n{last}\n", encoding="utf-8", errors="replace")
                self._run(source, write)
            os.close(write)
            write = -1
            os.set_blocking(read, False)  # a process that got away may hold the other end
            with contextlib.suppress(BlockingIOError):
                return os.read(read, 64).startswith(word.encode())  # more often, if the program forked
            return False
        finally:
            os.close(read)
            if write >= 0:
                os.close(write)

    def _run(self, source: Path, write: int) -> None:
        seconds = int(-(-self.seconds // 1)) + 1
        bounds = (self.memory, seconds, self.file_size, self.processes, 64, 0)
        command = [*_apart(), sys.executable, "-I", "-c", _BEGIN, str(source), *map(str, bounds)]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            cwd=source.parent, env={"HOME": str(source.parent), "TMPDIR": str(source.parent), "LC_ALL": "C.UTF-8",
                                    "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True, pass_fds=(write,),
        )  # fmt: skip
        try:
            process.wait(self.seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # all that is left of the group, also of one that has ended
            process.wait()


@functools.cache
def _apart() -> tuple[str, ...]:
    """The command that makes namespaces, where the system lets it; else nothing."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return ()
    tried = subprocess.run([unshare, *_APART, "true"], capture_output=True, stdin=subprocess.DEVNULL, check=False)
    # the first process of a namespace is deaf to signals of its own: a shell, so that the program is the second
    return (unshare, *_APART, "/bin/sh", "-c", '"$@"; exit', "sh") if tried.returncode == 0 else ()


def is_apart() -> bool:
    """Whether programs have neither network nor a view of other processes."""
    return bool(_apart())


def check_sandbox() -> None:
    """Raises ConfigError where there is nothing to set bounds with."""
    if not sys.platform.startswith("linux"):
        raise ConfigError("metrics=pass_at_k runs programs within bounds that Linux alone has. Leave it out.")

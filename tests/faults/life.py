"""A command line in a forked child, which has imported everything before it starts."""

import atexit
import mmap
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from genlab import cli

KILLED = 137
PATIENCE = 180.0  # seconds; the longest life takes ten


class Life:
    """One process from its start to its end, whatever that is."""

    def __init__(
        self,
        arguments: Sequence[str],
        log: Path,  # what it prints; two files, .out and .err
        env: Mapping[str, str] | None = None,
        prepare: Callable[[], None] = lambda: None,  # called in the child first
    ):
        self.out, self.err = log.with_suffix(".out"), log.with_suffix(".err")
        self.began = time.monotonic()
        self.code: int | None = None  # as subprocess has it: -9 for SIGKILL
        self.pid = os.fork()
        if self.pid == 0:
            _live(arguments, self.out, self.err, env or {}, prepare)

    def wait(self, seconds: float = PATIENCE) -> int | None:
        """The exit code, or None if it is still running after that time."""
        end = time.monotonic() + seconds
        while self.code is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                self.code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() >= end:
                return None
            else:
                time.sleep(min(0.005, max(0.0, end - time.monotonic())))
        return self.code

    def end(self) -> int:
        """Wait for it. A life that does not end is an AssertionError."""
        code = self.wait()
        if code is None:
            self.kill()
            raise AssertionError(f"it hangs; last words: {self.said()[-3:]}")
        return code

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.wait()

    def send(self, number: int) -> None:
        if self.code is None:
            os.kill(self.pid, number)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def said(self) -> list[str]:
        """The lines on stderr, but for the progress bar's."""
        lines = self.err.read_text(errors="replace").replace("\r", "\n").splitlines()
        return [line for line in lines if line.strip() and not line.startswith("training")]


def _live(
    arguments: Sequence[str], out: Path, err: Path, env: Mapping[str, str], prepare: Callable[[], None]
) -> NoReturn:
    code = 70
    try:
        for path, number in ((out, 1), (err, 2)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        for other in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(other, signal.SIG_DFL)
        os.environ.update(env)
        tempfile.tempdir = None  # TMPDIR may be another
        sys.argv = ["train.py", *arguments[1:]]
        prepare()
        cli.main(list(arguments))
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def on_ranks(ranks: int, start: Callable[[dict[str, str]], Life]) -> list[int]:
    """Exit codes of lives that find the environment torchrun makes. The first that dies takes the others with it, as
    torchrun sees to."""
    if ranks == 1:
        return [start({}).end()]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    alike = {"WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "GROUP_RANK": 0, "GROUP_WORLD_SIZE": 1,
             "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": f"faults-{port}",
             "TORCHELASTIC_RESTART_COUNT": 0, "TORCHELASTIC_MAX_RESTARTS": 0}  # fmt: skip
    lives = [start({k: str(v) for k, v in alike.items()} | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
             for rank in range(ranks)]  # fmt: skip
    while None in [life.wait(0.01) for life in lives]:  # each is looked at
        if any(life.code == KILLED for life in lives) or lives[0].seconds > PATIENCE:
            for life in lives:
                life.kill()
    return [int(life.code or 0) for life in lives]


class Shared:
    """A number that a child writes and its parent reads, also after a SIGKILL."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8)

    def set(self, value: int) -> None:
        self._memory[:8] = value.to_bytes(8, "little")

    def get(self) -> int:
        return int.from_bytes(self._memory[:8], "little")

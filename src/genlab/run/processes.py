"""Watches the processes of a run: when one dies or stalls, all stop, and one line names it and the cause."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch.distributed as dist
from omegaconf import DictConfig
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.strategies.launchers import subprocess_script

from genlab import started_as
from genlab.errors import GenlabError
from genlab.files.lock import occupied
from genlab.files.regular_file import is_regular, open_new, read_text
from genlab.redaction import one_line, redact
from genlab.run import run_folder
from genlab.trust.places import typed_flags

RUN_DIR = "GENLAB_RUN_DIR"  # tells the processes that the first one starts which folder it made
_FIRST = "GENLAB_FIRST_PROCESS"  # and that one's id
_PATIENCE = 5.0  # seconds in which child processes may report their errors
_PERIOD = 0.2


class RankLost(GenlabError):
    """A process of the run is gone, or does not answer."""

    exit_code = 7


class Children:
    """Watches the processes that this one started, rank 1 to the last.

    A process that dies takes the others with it: those that wait for it in a collective operation find out there, and
    where that may take long, as on a GPU, a thread finds out.
    """

    def __init__(self, remedy: Callable[[], str]):
        self.remedy = remedy
        self.processes: Sequence[subprocess.Popen[bytes]] = ()
        self.folder = Path()  # of the run, where they say what was wrong with them
        self.finished = False  # the first process is done

    def watch(self, processes: Sequence["subprocess.Popen[bytes]"]) -> None:
        self.processes = processes  # first: whatever goes wrong from here on, they end with this one
        self.folder = Path(os.environ[RUN_DIR])
        for rank in range(1, len(processes) + 1):
            _said(self.folder, rank).unlink(missing_ok=True)  # of an earlier start
        threading.Thread(target=self._watch, name="watch ranks", daemon=True).start()

    def _watch(self) -> None:
        while not self._failed():
            if self.finished or all(process.poll() == 0 for process in self.processes):
                return
            time.sleep(_PERIOD)
        time.sleep(_PATIENCE + 1)  # what the first process has to say itself
        if not self.finished:
            error = self.lost()
            print(one_line(f"{error.prefix}{error}"), file=sys.stderr, flush=True)
            self.kill()
            os._exit(error.exit_code)

    def _failed(self) -> list[int]:
        """The ranks that failed."""
        return [rank for rank, process in enumerate(self.processes, 1) if process.poll() not in (None, 0)]

    def lost(self) -> RankLost:
        """Waits until a process has died or reported an error, and returns it."""
        until = time.monotonic() + _PATIENCE
        while not self._failed() and time.monotonic() < until:
            time.sleep(_PERIOD)
        ranks = range(1, len(self.processes) + 1)
        said = {rank: path for rank in ranks if is_regular(path := _said(self.folder, rank))}
        killed = [rank for rank in self._failed() if rank not in said]
        world = len(self.processes) + 1
        if killed:
            code = self.processes[killed[0] - 1].returncode
            how = f"died ({signal.Signals(-code).name})" if code < 0 else f"ended with exit code {code}"
            return self._error(f"rank {killed[0]} of {world} {how}; the others were stopped")
        own = {rank: path for rank, path in said.items() if not read_text(path, errors="replace").startswith(_WAITED)}
        if own:
            first = min(own, key=lambda rank: own[rank].stat().st_mtime)
            cause = read_text(own[first], errors="replace")
            return self._error(f"rank {first} of {world} failed ({cause}); the others were stopped")
        silent = [str(rank) for rank in range(1, world) if rank not in said] or ["0"]
        return self._error(f"rank {', '.join(silent)} of {world} did not answer in time; all were stopped")

    def _error(self, text: str) -> RankLost:
        remedy = self.remedy()
        return RankLost(f"{text}. {remedy[0].upper()}{remedy[1:]}")

    def kill(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
        for process in self.processes:
            process.wait()


_WAITED = "waited for another rank"


def _said(folder: Path, rank: int) -> Path:
    return folder / f".rank-{rank}.error"


@contextmanager
def one_fate(remedy: Callable[[], str]) -> Iterator[None]:
    """Raises RankLost in the first process if another caused an error inside the block. The others exit.

    ``remedy``: gives the command to continue with.
    """
    if RUN_DIR in os.environ and os.environ.get("LOCAL_RANK", "0") != "0":
        with _started_by_the_first():
            yield
        return
    children = Children(remedy)
    before = subprocess_script._launch_process_observer
    # Lightning's own silently kills the first process.
    subprocess_script._launch_process_observer = children.watch  # type: ignore[assignment]
    try:
        yield
    except GenlabError:
        raise
    except Exception as error:
        if not children.processes or not (is_of_the_group(error) or children._failed()):
            raise
        raise children.lost() from error
    finally:
        subprocess_script._launch_process_observer = before
        children.finished = True
        children.kill()


@contextmanager
def _started_by_the_first() -> Iterator[None]:
    first = int(os.environ.get(_FIRST, os.getppid()))  # who may be gone by now: importing torch takes seconds
    threading.Thread(target=_leave_with, args=(first,), name="watch rank 0", daemon=True).start()
    folder, rank = Path(os.environ[RUN_DIR]), int(os.environ["LOCAL_RANK"])
    try:
        yield
    except Exception as error:
        said = _WAITED if is_of_the_group(error) else _in_words(error)
        with open_new(_said(folder, rank)) as file:
            file.write(redact(said).encode())
        if said == _WAITED:
            time.sleep(5 * _PERIOD)  # if it was the first process that was lost, the thread says so now
        os._exit(getattr(error, "exit_code", 1))  # nothing that is still to be closed is this process's


def _leave_with(first: int) -> None:
    """Ends this process when the first one, its parent, is gone."""
    while os.getppid() == first:
        time.sleep(_PERIOD)
    if os.environ["LOCAL_RANK"] == "1":
        print(
            one_line(
                f"error: rank 0 died; the others stop. Continue with: {started_as.command('train')}"
                f"{typed_flags()} run={os.environ[RUN_DIR]}"
            ),
            file=sys.stderr,
            flush=True,
        )
    os._exit(RankLost.exit_code)


def _in_words(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, GenlabError) else f"{type(error).__name__}: {text}"[:500]


def is_of_the_group(error: BaseException) -> bool:
    """Whether an error is a collective operation's, raised because another process does not take part."""
    words = ("gloo", "Connection closed", "Connection reset", "imed out", "NCCL", "Broken pipe")
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


@contextmanager
def folder_of_all_ranks(
    config: DictConfig, run: Path | None, new: Path | None, trial: Trainer, model: LightningModule
) -> Iterator[Path]:
    """The run's folder, made by its first process if it is new, and that one's alone.

    Processes that the first one starts are told through the environment; those that torchrun or SLURM started are told
    through the process group, which Lightning then finds set up.
    """
    told = os.environ.get(RUN_DIR)
    folder = Path(told) if told else run
    is_first = trial.is_global_zero and not told
    if folder is None and is_first:
        named = run_folder.name_of(config)
        folder = run_folder.create(config.outputs, named) if new is None else run_folder.begin(new)
    environment = getattr(trial.strategy, "cluster_environment", None)  # a single device has none
    if not told and environment is not None and environment.creates_processes_externally:
        trial.strategy.connect(model)  # sharded weights need it
        trial.strategy.setup_environment()
        folder = trial.strategy.broadcast(folder)
    assert folder is not None
    os.environ[RUN_DIR] = str(folder)
    if is_first:
        os.environ[_FIRST] = str(os.getpid())
    try:
        with occupied(folder) if is_first else nullcontext():
            yield folder
    finally:
        if not told:
            del os.environ[RUN_DIR]
            os.environ.pop(_FIRST, None)

"""The launcher protocol: starts the trials of a sweep. Each kind of launcher is a class with these methods."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable


class Job(Protocol):
    """A trial's process, with its children."""

    is_queued: bool  # it has not begun: it waits for a machine
    was_taken: bool  # it ended because it lost the machine: preempted, or out of time

    def poll(self) -> int | None:
        """None while it runs; then its exit code, or minus the signal that ended it."""

    def stop(self) -> None:
        """Tell it to save and exit, like SIGTERM. Returns at once."""

    def kill(self) -> None:
        """End it and its children now, even if it does not answer."""


@runtime_checkable
class Launcher(Protocol):
    slots: int  # trials at a time

    def start(self, command: Sequence[str], env: Mapping[str, str], log: Path, slot: int) -> Job:
        """Start a command; what it prints is appended to ``log``.

        Args:
            env: variables beside those that the launcher sets
            log: a file in a folder that exists
            slot: 0 to slots - 1; no two jobs have the same at a time
        """

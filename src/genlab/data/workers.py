"""Ends data loader workers that cannot continue, so that training does not wait for them forever."""

import os
from multiprocessing.queues import Queue
from typing import Any

from genlab.errors import GenlabError


def begin_worker(number: int) -> None:
    """To be called first in each worker. If a batch cannot be sent, e.g. because shared memory is full, the process
    ends: otherwise Python would print a traceback and go on, and training would wait for that batch forever."""
    Queue._on_queue_feeder_error = staticmethod(_leave)  # type: ignore[attr-defined]


def plain_error(error: GenlabError) -> GenlabError:
    """The error that a worker raised, without the traceback that torch writes around its text; others as they are."""
    text = str(error)
    if not text.startswith("Caught ") or "\n" not in text:
        return error
    return type(error)(text.strip().rpartition(f"{type(error).__name__}: ")[2])


def _leave(error: Exception, batch: Any) -> None:
    os._exit(1)

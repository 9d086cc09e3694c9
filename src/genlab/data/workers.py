"""Ends data loader workers that cannot continue, so that training does not wait for them forever."""

import os
from multiprocessing.queues import Queue
from typing import Any


def begin_worker(number: int) -> None:
    """To be called first in each worker. If a batch cannot be sent, e.g. because shared memory is full, the process
    ends: otherwise Python would print a traceback and go on, and training would wait for that batch forever."""
    Queue._on_queue_feeder_error = staticmethod(_leave)  # type: ignore[attr-defined]


def _leave(error: Exception, batch: Any) -> None:
    os._exit(1)

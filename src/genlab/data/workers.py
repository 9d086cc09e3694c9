"""The processes that load data end where they cannot go on, so that the training does not wait for them."""

import os
from multiprocessing.queues import Queue
from typing import Any


def begin_worker(number: int) -> None:
    """To be called first in each of them. What was loaded and cannot be handed on, since shared memory is full, say,
    ends the process: Python would print a page and go on, and the training would wait for that batch for ever."""
    Queue._on_queue_feeder_error = staticmethod(_leave)  # type: ignore[attr-defined]


def _leave(error: Exception, batch: Any) -> None:
    os._exit(1)

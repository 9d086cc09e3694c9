"""To come."""

from collections.abc import Iterator

from faults.trial import Trial

PROMISE = ""


def trials(scale: float) -> Iterator[Trial]:
    yield from ()

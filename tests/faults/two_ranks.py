"""Of two processes that train as one, one is killed."""

from collections.abc import Iterator
from functools import partial

from faults.runs import Place, variants
from faults.shards import live_through
from faults.trial import Trial, spread

PROMISE = "two ranks with the same weights (DDP), one killed at any moment: as above"
KILLS = 4  # of one trial


def trials(scale: float) -> Iterator[Trial]:
    for name, variant in spread(variants(), 10 * scale):
        yield Trial(f"two_ranks/{name}", partial(kill_and_go_on, variant), tried=KILLS)


def kill_and_go_on(variant: str, place: Place) -> None:
    left = KILLS
    while left:
        _, left = live_through(place, place.runs.reference(variant, ranks=2), place.runs.overrides(variant, 2), left)

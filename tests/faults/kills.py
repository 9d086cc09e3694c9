"""A kill at any moment costs no checkpoint, and changes nothing of what the run comes to."""

from collections.abc import Iterator
from functools import partial

from faults.runs import Place, begun, check_same_end, finished, length_of, newest_run, variants
from faults.trial import Trial, spread

PROMISE = "a kill at any moment: the newest checkpoint loads, the end is bit-identical"
KILLS = 5  # of one trial


def trials(scale: float) -> Iterator[Trial]:
    for name, variant in spread(variants(), 200 / KILLS * scale):
        yield Trial(f"kills/{name}", partial(kill_and_go_on, variant), tried=KILLS)


def kill_and_go_on(variant: str, place: Place) -> None:
    """Runs of one family, one after the other, until enough lives of them have been killed; each is then finished."""
    left = KILLS
    while left:
        left = live_through(place, variant, left)


def live_through(place: Place, variant: str, left: int) -> int:
    """One run, killed up to ``left`` times and then finished. -> the kills that are left."""
    reference = place.runs.reference(variant)
    outputs, run = place.outputs(), None
    while True:
        if run is None:
            life = place.begin(outputs := place.outputs(), *place.runs.overrides(variant))
        else:
            life = place.go_on(run)
        if not left:
            life.end()
        elif life.wait(place.chance.uniform(0, length_of(reference)["seconds"])) is None:
            life.kill()
        place.check_saved(newest_run(outputs))
        left -= life.code == -9
        if life.code != -9 or finished(outputs):
            break
        run = begun(outputs)
    assert life.code in (0, -9), f"exit code {life.code}: {life.said()}"
    check_same_end(newest_run(outputs), reference)
    assert not list(place.temporary.iterdir()), "files are left in TMPDIR"
    return left

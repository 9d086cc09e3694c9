"""A full disk destroys nothing."""

from collections.abc import Iterator
from functools import partial

from faults.disk import fill_up
from faults.life import Shared
from faults.runs import Place, begun, check_same_end, finished, length_of, newest_run, variants
from faults.trial import Trial, spread

PROMISE = "a disk that is full at any byte: exit 4 and one line, nothing destroyed, the end is bit-identical"


def trials(scale: float) -> Iterator[Trial]:
    for name, variant in spread(variants(), 50 * scale):
        yield Trial(f"full_disk/{name}", partial(fill_and_go_on, variant))


def fill_and_go_on(variant: str, place: Place) -> None:
    reference = place.runs.reference(variant)
    overrides = place.runs.overrides(variant)
    room = place.chance.randrange(int(length_of(reference)["bytes"]))
    outputs = place.outputs()
    life = place.begin(outputs, *overrides, prepare=partial(fill_up, outputs, room, Shared()))
    code, said = life.end(), life.said()
    place.check_saved(newest_run(outputs))
    what = f"{room} bytes: exit code {code}, {said}"
    assert len(said) == 1, what
    assert (code, said[0][:7]) in ((4, "error: "), (0, "warning")), what
    assert code or finished(outputs), what
    if not finished(outputs):
        run = begun(outputs)
        life = place.begin(outputs := place.outputs(), *overrides) if run is None else place.go_on(run)
        assert life.end() == 0, (what, life.said())
    check_same_end(newest_run(outputs), reference)

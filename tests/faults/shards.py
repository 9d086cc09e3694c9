"""A kill while several processes save together costs no checkpoint either."""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from faults.life import KILLED, on_ranks
from faults.runs import Place, begun, check_same_end, finished, length_of, newest_run
from faults.trial import Trial
from genlab.checkpoint import read

PROMISE = "weights sharded over two processes (FSDP2), one killed at any moment: as above"
KILLS = 4  # of one trial


def trials(scale: float) -> Iterator[Trial]:
    for number in range(max(1, round(10 * scale))):
        yield Trial(f"shards/{number}", kill_and_go_on, tried=KILLS)


def kill_and_go_on(place: Place) -> None:
    left = KILLS
    while left:
        run, left = live_through(place, place.runs.sharded_reference(), place.runs.sharded(), left)
        assert read.saved(run)[0].is_dir()


def live_through(place: Place, reference: Path, overrides: Sequence[str], left: int) -> tuple[Path, int]:
    """One run on two processes, of which one dies up to ``left`` times, and then finished.

    -> the run, and the deaths that are left
    """
    outputs, run = place.outputs(), None
    while True:
        due = place.chance.uniform(0, length_of(reference)["seconds"]) if left else None
        victim = str(place.chance.randrange(2))
        prepare = partial(_die_after, due, victim)
        if run is None:
            outputs = place.outputs()
            begin = partial(place.begin, outputs, *overrides, prepare=prepare)
        else:
            begin = partial(place.go_on, run, prepare=prepare)
        codes = on_ranks(2, lambda env, begin=begin: begin(env=env))  # type: ignore[misc]
        place.check_saved(newest_run(outputs))
        died = KILLED in codes
        left -= died
        if not died or finished(outputs):
            break
        run = begun(outputs)
    assert died or codes == [0, 0], codes
    run = newest_run(outputs)
    assert run is not None
    check_same_end(run, reference)
    assert not list(place.temporary.iterdir()), "files are left in TMPDIR"
    return run, left


def _die_after(seconds: float | None, victim: str) -> None:
    """In a child: from then on it is gone, if it is the one."""

    def die() -> None:
        assert seconds is not None
        time.sleep(seconds)
        os._exit(KILLED)

    if seconds is not None and os.environ["RANK"] == victim:
        threading.Thread(target=die, daemon=True).start()

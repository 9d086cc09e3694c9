"""A kill while a run is being judged: what the judgment was of is saved, and it comes out the same afterwards."""

import os
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from faults.life import KILLED
from faults.runs import Place, begun, check_same_end, newest_run, variants
from faults.trial import Trial, spread
from genlab.evaluation.evaluation import Evaluation

PROMISE = "a kill while the run is evaluated, halfway or at the end: as above"
EVALUATIONS = 2  # of a run that nobody harms
KILLS = 4  # of one trial: each evaluation twice


def trials(scale: float) -> Iterator[Trial]:
    for name, variant in spread(variants(), 10 * scale):
        yield Trial(f"evaluations/{name}", partial(kill_and_go_on, variant), tried=KILLS)


def kill_and_go_on(variant: str, place: Place) -> None:
    reference = place.runs.reference(variant)
    for number in range(KILLS):
        outputs = place.outputs()
        seconds = place.chance.uniform(0, 0.3)
        killed = partial(dying_in_evaluation, number % EVALUATIONS, seconds)
        life = place.begin(outputs, *place.runs.overrides(variant), prepare=killed)
        assert life.end() in (KILLED, 0), life.said()
        place.check_saved(newest_run(outputs))
        if life.code:
            run = begun(outputs)
            assert run is not None, "nothing was saved before the evaluation"
            assert place.go_on(run).end() == 0
        check_same_end(newest_run(outputs), reference)


def dying_in_evaluation(number: int, seconds: float) -> None:
    """In a child: it is gone so long after its evaluation of that number began, at the latest when that ends."""
    measure, begun_before = Evaluation.run, [0]

    def die() -> None:
        time.sleep(seconds)
        os._exit(KILLED)

    def measured(self: Evaluation, *given: Any, **named: Any) -> Any:
        its_last = begun_before[0] == number
        begun_before[0] += 1
        if its_last:
            threading.Thread(target=die, daemon=True).start()
        found = measure(self, *given, **named)
        if its_last:
            os._exit(KILLED)
        return found

    Evaluation.run = measured  # type: ignore[method-assign]

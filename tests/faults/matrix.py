"""A run that is stopped anywhere, on any number of ranks and workers, goes on to the same end."""

import os
import signal
from collections.abc import Iterator
from functools import partial
from itertools import product

from faults.life import KILLED, on_ranks
from faults.runs import BATCH, Place, check_same_end, newest_run, variants
from faults.trial import Trial, spread
from genlab.checkpoint import read

PROMISE = "a resume equals never having stopped: every family, wherever it stops, 0 and 2 workers, 1 and 2 ranks"
STOPS = {"first step": 1, "mid-epoch": 3, "epoch end": 5, "validation": 7}  # the step that is running; 5 an epoch


def trials(scale: float) -> Iterator[Trial]:
    cells = ["/".join(cell) for cell in product(variants(), STOPS, ("0", "2"), ("1", "2"))]
    for name, cell in spread(cells, len(cells) * scale):
        variant, stop, workers, ranks = cell.split("/")
        yield Trial(f"matrix/{name}", partial(stop_and_go_on, variant, stop, int(workers), int(ranks)))


def stop_and_go_on(variant: str, stop: str, workers: int, ranks: int, place: Place) -> None:
    reference = place.runs.reference(variant, ranks)  # with 0 workers: the data do not depend on them
    overrides = (*place.runs.overrides(variant, ranks), f"data.num_workers={workers}")
    outputs = place.outputs()
    prepare = partial(_stop_in_validation if stop == "validation" else _stop_in_step, STOPS[stop])
    codes = on_ranks(ranks, lambda env: place.begin(outputs, *overrides, prepare=prepare, env=env))
    run = newest_run(outputs)
    assert run is not None
    if stop == "validation":  # that is not worth its end: the process is gone
        assert KILLED in codes, codes
    else:
        assert codes == [130] * ranks, codes
        examples = read.newest(run).progress.examples
        assert examples in (STOPS[stop] * BATCH, (STOPS[stop] + 1) * BATCH), f"it stopped after {examples} examples"
    codes = on_ranks(ranks, lambda env: place.go_on(run, env=env))
    assert codes == [0] * ranks, codes
    check_same_end(run, reference)


def _stop_in_step(step: int) -> None:
    """In a child: a signal during a step, on the first rank."""
    from genlab.budget import Budget

    begin = Budget.on_train_batch_start

    def stop(self, trainer, pl_module, batch, batch_idx):  # type: ignore[no-untyped-def]
        begin(self, trainer, pl_module, batch, batch_idx)
        if pl_module.progress.examples == (step - 1) * BATCH and trainer.is_global_zero:
            os.kill(os.getpid(), signal.SIGINT)

    Budget.on_train_batch_start = stop  # type: ignore[method-assign]


def _stop_in_validation(step: int) -> None:
    """In a child: the end, in the middle of an evaluation, of the last rank."""
    from genlab.evaluation.evaluation import Evaluation

    measure = Evaluation.run

    def last_rank_dies(self, *arguments, **options):  # type: ignore[no-untyped-def]
        if os.environ.get("RANK", "1") == "1":
            os._exit(KILLED)
        return measure(self, *arguments, **options)

    Evaluation.run = last_rank_dies  # type: ignore[method-assign]

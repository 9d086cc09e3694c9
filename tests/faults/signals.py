"""A signal at any moment loses a step at most, and says how to go on."""

import re
import signal
from collections.abc import Iterator
from functools import partial
from typing import Any

from faults.life import Shared
from faults.runs import BATCH, Place, begun, check_same_end, finished, length_of, newest_run, variants
from faults.trial import Trial, spread
from genlab.budget import Budget
from genlab.checkpoint import read

PROMISE = "SIGTERM, SIGINT, SIGUSR1 at any moment: its exit code, how to go on, a step lost at most"
SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1")


def trials(scale: float) -> Iterator[Trial]:
    cells = [f"{variant}/{name}" for variant in variants() for name in SIGNALS]
    for name, cell in spread(cells, 100 * scale):
        yield Trial(f"signals/{name}", partial(signal_and_go_on, *cell.split("/")))


def signal_and_go_on(variant: str, name: str, place: Place) -> None:
    reference = place.runs.reference(variant)
    number = signal.Signals[name]
    overrides = (*place.runs.overrides(variant), "callbacks.checkpoint.every_minutes=10")
    stepped, outputs = Shared(), place.outputs()
    life = place.begin(outputs, *overrides, prepare=partial(_note_steps, stepped))
    if life.wait(place.chance.uniform(0, length_of(reference)["seconds"])) is None:
        life.send(number)
    code, said, run = life.end(), life.said(), begun(outputs)
    saved = 0 if run is None else read.newest(run).progress.examples
    assert stepped.get() - saved <= BATCH, f"{stepped.get()} examples seen, {saved} saved"
    if code == -number:  # before it listens, or when all is done
        assert not said
        assert finished(outputs) or not stepped.get(), "it died without a word"
    elif code != 0:
        assert code == 128 + number, (code, said)
        assert len(said) == 1, said
        told = re.search(r"python train\.py (run=\S+)$", said[0])
        assert bool(told) == (run is not None), said
        assert run is None or (told is not None and told[1] == f"run={run}"), said
    if not finished(outputs):
        life = place.begin(outputs := place.outputs(), *overrides) if run is None else place.go_on(run)
        assert life.end() == 0, life.said()
    check_same_end(newest_run(outputs), reference)


def _note_steps(stepped: Shared) -> None:
    """In a child: tell how many examples have been trained on."""
    end = Budget.on_train_batch_end

    def noted(self: Budget, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        end(self, trainer, pl_module, outputs, batch, batch_idx)
        stepped.set(pl_module.progress.examples)

    Budget.on_train_batch_end = noted  # type: ignore[method-assign]

"""A service that metrics also go to may fail in any way; the run does not notice."""

import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger

from faults.disk import fill_up
from faults.life import Life, Shared
from faults.runs import Place, check_same_end, length_of, newest_run, variants
from faults.trial import Trial, spread
from genlab.logger.isolated import IsolatedLogger

PROMISE = "W&B's process killed, a logger that raises, hangs, or has a full disk: one warning, nothing lost"
CALLS = ("init", "hyperparams", "metrics", "save", "finalize")


def trials(scale: float) -> Iterator[Trial]:
    kinds = ["wandb/killed"] * 4 + [f"{how}/{where}" for how in ("raises", "hangs", "fills") for where in CALLS]
    for number, (_, kind) in enumerate(spread(kinds, 30 * scale)):
        yield Trial(f"outages/{kind}/{number}", partial(outage, *kind.split("/")))


def outage(how: str, where: str, place: Place) -> None:
    variant = place.chance.choice(variants())
    reference = place.runs.reference(variant)
    outputs = place.outputs()
    node = f"{{_target_: faults.outages.Broken, how: {how}, where: {where}, file: {place.folder / 'log'}}}"
    service = "logger=[wandb]" if how == "wandb" else f"+logger.broken={node}"
    life = place.begin(
        outputs, *place.runs.overrides(variant), service, prepare=partial(_prepare, place.folder / "log")
    )
    if how == "wandb":
        kill_children(life, place.chance.uniform(0, length_of(reference)["seconds"]))
    code, said = life.end(), life.said()
    assert code == 0, (code, said)
    assert how == "wandb" or len(said) == 1, said
    assert len(said) <= 1, said
    assert all(line.startswith("warning: ") and "metrics.csv" in line for line in said), said
    check_same_end(newest_run(outputs), reference)


def kill_children(life: Life, seconds: float) -> None:
    """Kill the service processes of a life as soon as there are some, and ``seconds`` have passed."""
    moment = time.monotonic() + seconds
    while life.wait(0.02) is None:
        found = subprocess.run(["pgrep", "-P", str(life.pid)], capture_output=True, text=True).stdout.split()
        if found and time.monotonic() > moment:
            for pid in found:
                subprocess.run(["kill", "-9", pid], stderr=subprocess.DEVNULL)
            return


def _prepare(log: Path) -> None:
    """In a child: little patience, and little room where :class:`Broken` writes."""
    IsolatedLogger.patience = 0.5
    fill_up(log, 20, Shared())


class Broken(Logger):
    """Breaks in one of its methods: ``how`` it does, ``where``."""

    name, version = "broken", ""

    def __init__(self, how: str, where: str, file: str):
        super().__init__()
        self.how, self.where, self.file = how, where, file
        self._called("init")

    def _called(self, where: str) -> None:
        if where != self.where:
            return
        if self.how == "raises":
            raise ConnectionResetError("the service died")
        if self.how == "hangs":
            time.sleep(10_000)
        with open(self.file, "a") as file:
            file.write("more than there is room for\n")

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self._called("hyperparams")

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self._called("metrics")

    def save(self) -> None:
        self._called("save")

    def finalize(self, status: str) -> None:
        self._called("finalize")

"""Measures the time of training steps, by kind of step."""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from genlab.errors import GenlabError
from genlab.model.base import Model

_WARM_UP = 3  # steps that are not timed; nor is the first of each kind, in which operations are counted
_LEAST = 4  # least number of timed steps
_STRETCH = 0.3  # seconds, and
_FEWEST = 4  # least number of stretches for a median


class TooSlow(GenlabError):
    """The time did not suffice to measure a step."""


@dataclass(frozen=True)
class Step:
    """A training step as it was timed."""

    kind: str  # of steps that cost the same
    opens_epoch: bool
    training: float  # seconds, as a budget counts them
    wall: float  # seconds since the step before, with all that callbacks do
    flops: float


@dataclass(frozen=True)
class Pace:
    """What a step takes on average over a run."""

    training: float
    wall: float
    flops: float


class StepClock(Callback):
    """Times steps until there are enough of them, then ends the training. Must be the last callback."""

    def __init__(self, seconds: float, patience: float):
        self.seconds = seconds  # of timed steps
        self.patience = patience  # seconds after the first step, after which fewer timed steps suffice
        self._until = 0.0
        self.steps: list[Step] = []
        self.kind = ""
        self._before = (0.0, 0.0, 0.0)  # training seconds, FLOPs and the time at the last step's end

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Model)
        self._before = (pl_module.progress.seconds, pl_module.progress.flops, time.perf_counter())

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        assert isinstance(pl_module, Model)
        self.kind = pl_module.step_kind(batch_idx)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Model)
        now = (pl_module.progress.seconds, pl_module.progress.flops, time.perf_counter())
        training, flops, wall = (after - before for after, before in zip(now, self._before, strict=True))
        if not self.steps:  # slow for any size
            self._until = time.perf_counter() + self.patience
        self.steps.append(Step(self.kind, batch_idx == 0, training, wall, flops))
        self._before = now
        timed = _timed(self.steps)
        if len(timed) >= _LEAST and sum(step.wall for step in timed) >= self.seconds:
            trainer.should_stop = True
        if time.perf_counter() > self._until:
            if not timed:
                raise TooSlow("too slow")
            trainer.should_stop = True


def pace(steps: Sequence[Step], steps_per_epoch: int) -> Pace:
    """The average step of a run that starts with these: each kind's median, weighted by its frequency, times the
    slowdown of steps in the median stretch of time, since a machine may have other work to do."""
    timed = _timed(steps)
    inside = [step for step in timed if not step.opens_epoch] or timed  # an epoch may be of one step
    opening = [step for step in timed if step.opens_epoch] if inside is not timed else []
    often = _frequencies(steps)
    flops = {step.kind: step.flops for step in steps}
    average = {}
    for what in ("training", "wall"):
        usual = _medians(inside, what)
        rate = sum(usual.values()) / max(1.0, sum(flops[kind] for kind in usual))
        usual = {kind: usual.get(kind, flops[kind] * rate) for kind in often}  # a kind may be too rare to be timed
        extra = [getattr(step, what) - usual[step.kind] for step in opening]
        mean = sum(often[kind] * usual[kind] for kind in often) * _slowdown(inside, what, usual)
        average[what] = mean + (median(extra) / steps_per_epoch if extra else 0.0)
    return Pace(average["training"], average["wall"], sum(often[kind] * flops[kind] for kind in often))


def _medians(steps: Sequence[Step], what: str) -> dict[str, float]:
    kinds = {step.kind for step in steps}
    return {kind: median(getattr(step, what) for step in steps if step.kind == kind) for kind in kinds}


def _slowdown(steps: Sequence[Step], what: str, usual: Mapping[str, float]) -> float:
    """The time of steps relative to the usual: the median over stretches of time."""
    ratios, took, expected = [], 0.0, 0.0
    for step in steps:
        took, expected = took + getattr(step, what), expected + usual[step.kind]
        if took >= _STRETCH:
            ratios.append(took / expected)
            took, expected = 0.0, 0.0
    return median(ratios) if len(ratios) >= _FEWEST else 1.0


def _timed(steps: Sequence[Step]) -> list[Step]:
    """Without those that warm up."""
    seen: set[str] = set()
    kept = []
    for number, step in enumerate(steps):
        if step.kind in seen and number >= _WARM_UP:
            kept.append(step)
        seen.add(step.kind)
    return kept


def _frequencies(steps: Sequence[Step]) -> dict[str, float]:
    """The share of each kind among a run's steps; kinds alternate."""
    positions: dict[str, list[int]] = defaultdict(list)
    for position, step in enumerate(steps):
        positions[step.kind].append(position)
    once = {kind: 1 / len(steps) for kind, seen in positions.items() if len(seen) == 1}
    often = {k: (len(seen) - 1) / (seen[-1] - seen[0]) for k, seen in positions.items() if k not in once}
    rest = (1 - sum(once.values())) / max(sum(often.values()), 1e-12)
    return once | {kind: share * rest for kind, share in often.items()}

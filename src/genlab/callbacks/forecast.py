"""Forecast of how long a run will take, evaluations included, once its first steps are timed."""

import time
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from genlab.callbacks.caption_samples import CaptionSamples
from genlab.callbacks.evaluation import PeriodicEvaluation
from genlab.callbacks.samples import SampleGrid
from genlab.callbacks.text_samples import TextSamples
from genlab.model.base import GenerativeModel, Grows, Model, in_eval_mode
from genlab.sampling.draw import asked_of
from genlab.seeding import RandomStream

_WARM_UP = 3  # steps that are not timed: the first one counts operations, and memory is asked for
_TRIED = 16  # samples that are drawn for timing


class Forecast(Callback):
    """Prints, once, what the whole run is expected to take: its training, and its samples for grids and evaluations.

    Steps are timed for ``seconds``, so that a shorter run says nothing. Then a few samples are drawn from a separate
    random stream, so training is bitwise the same without it. On several devices nothing is drawn,
    since ranks would have to agree when, and the line covers training only.
    """

    def __init__(self, seconds: float = 5.0):
        self.seconds = seconds
        self._steps = 0
        self._began = (0.0, 0.0)  # seconds of training and share of the budget where the timed steps begin
        self._said = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Model)
        if self._said or not trainer.is_global_zero:
            return
        if isinstance(pl_module, Grows) and not pl_module.is_grown:
            return  # later steps take longer
        self._steps += 1
        now = pl_module.progress
        if self._steps <= _WARM_UP:
            self._began = (now.seconds, now.fraction)
        elif now.seconds - self._began[0] >= self.seconds and now.fraction > self._began[1]:
            self._said = True
            if now.fraction < 1:
                print(self.text(trainer, pl_module), flush=True)

    def text(self, trainer: Trainer, model: Model) -> str:
        seconds, fraction = self._began
        training = (1 - model.progress.fraction) * (model.progress.seconds - seconds)
        training /= model.progress.fraction - fraction
        count = samples_ahead(trainer, model)
        if not count or not isinstance(model, GenerativeModel) or trainer.world_size > 1:
            drawn = f", and {count:,} samples to draw and evaluate" if count else ""
            return f"expected:   about {in_words(training)} of training to go{drawn}"
        drawing = count * seconds_a_sample(model)
        return (
            f"expected:   about {in_words(training + drawing)} to go: {in_words(training)} of training, "
            f"{in_words(drawing)} to draw {count:,} samples"  # fits a terminal of 100 columns
        )


def samples_ahead(trainer: Trainer, model: Model) -> int:
    """How many samples the rest of the run draws: for its grids, its periodic evaluations, and the full one."""
    fraction, count = model.progress.fraction, 0
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, SampleGrid):
            count += callback.milestones.ahead(fraction) * callback.rows * callback.columns
        elif isinstance(callback, TextSamples | CaptionSamples):
            count += callback.milestones.ahead(fraction) * callback.count
        elif isinstance(callback, PeriodicEvaluation) and callback.evaluation.metrics:
            at_the_end = bool(callback.milestones.times)  # that point is the full evaluation's
            count += max(0, callback.milestones.ahead(fraction) - at_the_end) * callback.num_samples
            count += callback.evaluation.num_samples * callback.evaluation.num_seeds
    return count


def seconds_a_sample(model: GenerativeModel) -> float:
    """Measured on one small batch, which is thrown away."""
    stream, evaluations = RandomStream.for_samples(0, range(_TRIED), model.device), model.evaluations
    with in_eval_mode(model), torch.no_grad():
        began = time.perf_counter()
        model.sample(_TRIED, asked_of(model, range(_TRIED)), stream).cpu()
        seconds = time.perf_counter() - began
    model.evaluations = evaluations
    return seconds / _TRIED


def in_words(seconds: float) -> str:
    """45 -> "45 s", 200 -> "3 min 20 s", 8000 -> "2 h 13 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"

"""Estimates the time of evaluations and sample grids from a few samples, images and batches."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch

from genlab.callbacks.caption_samples import CaptionSamples
from genlab.callbacks.evaluation import PeriodicEvaluation
from genlab.callbacks.samples import SampleGrid
from genlab.callbacks.text_samples import TextSamples
from genlab.evaluation.evaluation import Evaluation
from genlab.evaluation.reference import CHUNK, outputs
from genlab.model.base import GenerativeModel, Model, in_eval_mode
from genlab.sampling.draw import asked_of, draws

_PATIENCE = 2.0  # seconds for one of these measurements; if it needs more, a part is measured
_FEW = 4  # samples


@dataclass(frozen=True)
class Upkeep:
    """Seconds."""

    periodic: float  # evaluations during training, all of them together
    grids: float  # of samples, all of them together
    final: float  # the full evaluation

    @property
    def total(self) -> float:
        return self.periodic + self.grids + self.final


def measure_upkeep(trainer: pl.Trainer, model: Model, evaluation: Evaluation, callbacks: Sequence[Any]) -> Upkeep:
    """Measure the upkeep of a run with these callbacks. ``model``: on its device, some steps into its training."""
    draws = evaluation.metrics or any(isinstance(c, SampleGrid | TextSamples | CaptionSamples) for c in callbacks)
    sample = _seconds_a_sample(model, evaluation.batch_size) if draws and isinstance(model, GenerativeModel) else 0.0
    losses, answers = _losses(trainer, model), 0.0
    if evaluation.of_models:
        answers = _answers(trainer, model, evaluation, losses)
    periodic = next((c for c in callbacks if isinstance(c, PeriodicEvaluation)), None)
    metrics, fixed = (0.0, 0.0) if not evaluation.metrics else _metrics(trainer, model, evaluation, periodic)

    def one(samples: int) -> float:
        return losses + answers + (samples * (sample + metrics) if evaluation.metrics else 0.0)

    times = 0 if periodic is None else max(0, periodic.milestones.times - 1)
    few = 0 if periodic is None else periodic.num_samples
    grids = sum(c.milestones.times * c.rows * c.columns for c in callbacks if isinstance(c, SampleGrid))
    grids += sum(c.milestones.times * c.count for c in callbacks if isinstance(c, TextSamples | CaptionSamples))
    final = 0.0 if periodic is None else evaluation.num_seeds * one(evaluation.num_samples) + fixed
    return Upkeep(times * one(few), grids * sample, final)


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _seconds_a_sample(model: GenerativeModel, batch_size: int) -> float:
    """Timed on a few samples together, and on more while that is fast, up to a whole batch."""
    count = min(_FEW, batch_size)
    _draw(model, count)  # once for nothing: it is slower
    while (seconds := _seconds(partial(_draw, model, count))) < _PATIENCE / 2 and count < batch_size:
        count = min(4 * count, batch_size)
    return seconds / count


def _draw(model: GenerativeModel, count: int) -> None:
    with in_eval_mode(model):
        for samples in draws(model, range(count), asked_of(model, range(count)), 0, count):
            samples.cpu()


def _losses(trainer: pl.Trainer, model: Model) -> float:
    """Seconds for losses on the held-out split, from its first batches."""
    datamodule = trainer.datamodule  # type: ignore[attr-defined]
    loader = datamodule.val_dataloader()
    began, number = time.perf_counter(), 0
    with in_eval_mode(model), torch.no_grad():
        for number, batch in enumerate(loader, 1):  # noqa: B007
            moved = {key: value.to(model.device) for key, value in batch.items()}
            sum(float(loss) for loss in model.losses(datamodule.on_after_batch_transfer(moved, 0)).values())
            if time.perf_counter() - began > _PATIENCE / 2:
                break
    return (time.perf_counter() - began) / max(number, 1) * len(loader)


def _answers(trainer: pl.Trainer, model: Model, evaluation: Evaluation, losses: float) -> float:
    """Seconds for the metrics that measure the model on held-out data."""
    metrics, evaluation.metrics = evaluation.metrics, {}
    try:
        if losses * len(evaluation.of_models) > _PATIENCE:
            return losses * len(evaluation.of_models)  # each looks at the split once
        return _seconds(lambda: evaluation.run(model, trainer.datamodule, weights="raw"))  # type: ignore[attr-defined]
    finally:
        evaluation.metrics = metrics


def _metrics(
    trainer: pl.Trainer, model: Model, evaluation: Evaluation, periodic: PeriodicEvaluation | None
) -> tuple[float, float]:
    """Seconds per sample for the metrics of samples, and for the reference if it is not cached."""
    data, device = trainer.datamodule, evaluation.device_of(model)  # type: ignore[attr-defined]
    count = evaluation.num_samples if periodic is None else periodic.num_samples
    assert isinstance(model, GenerativeModel), "it has samples to be measured"
    task = evaluation.on(data).sized(count, model)
    reference = task.reference()
    few = reference.rows(slice(CHUNK))[task.key]
    look = 0.0
    if evaluation.extractor is not None:
        extractor, wanted = evaluation.extractor, evaluation._wanted()
        outputs(few[:1], extractor, wanted, device)  # once for nothing: it is slower
        look = _seconds(lambda: outputs(few, extractor, wanted, device)) / len(few)
    if look * (len(reference) + count) > _PATIENCE:
        return look, look * len(reference)
    examples = reference.rows(torch.arange(count) % len(reference))
    first = _seconds(lambda: evaluation.score(examples, data, device))
    again = _seconds(lambda: evaluation.score(examples, data, device)) if first < _PATIENCE else first
    return again / count, first - again

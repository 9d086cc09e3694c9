"""Tries a model size in a separate process, so that running out of memory ends only that process."""

import contextlib
import copy
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from genlab.callbacks.caption_samples import CaptionSamples
from genlab.callbacks.checkpoint import Checkpoints, NoCheckpoints
from genlab.callbacks.evaluation import PeriodicEvaluation
from genlab.callbacks.finite_guard import FiniteGuard
from genlab.callbacks.forecast import Forecast
from genlab.callbacks.progress import ProgressBar
from genlab.callbacks.reconstructions import Reconstructions
from genlab.callbacks.samples import SampleGrid
from genlab.callbacks.shared_buffers import SharedBuffers
from genlab.callbacks.text_samples import TextSamples
from genlab.checkpoint.write import expected_bytes
from genlab.command.train import fit, peak_memory, quiet
from genlab.config.build import build
from genlab.data.base import DataModule
from genlab.errors import GenlabError, ResourceError
from genlab.machine.quick_cpu import quick_cpu
from genlab.planning.clock import Pace, StepClock, pace
from genlab.planning.upkeep import measure_upkeep
from genlab.run.assemble import build_callbacks, build_evaluation, build_model, build_trainer
from genlab.run.cpu_choice import chosen_for, of_run, put
from genlab.run.elsewhere import PutParts

_ENDLESS = 10**15  # examples
_PATIENCE = 10.0  # seconds for all steps of a batch size
_BRISK = 0.1  # seconds; if steps take longer, larger batches are not faster
_QUICKER = 1.1  # required speedup in examples per second before a larger batch is tried
# Their cost is measured separately, since their frequency is known.
_SAMPLES = (SampleGrid, TextSamples, CaptionSamples, Reconstructions)
_APART = (*_SAMPLES, PeriodicEvaluation, Checkpoints, Forecast, ProgressBar)


@dataclass(frozen=True)
class Measured:
    """A batch size of one model."""

    batch_size: int
    step: Pace
    memory: int  # peak bytes: of the GPU, else of the process
    checkpoint: int  # bytes


@dataclass(frozen=True)
class Failed:
    """Why a batch size could not be measured."""

    batch_size: int
    why: str
    memory: bool  # was too little


@dataclass(frozen=True)
class Trying:
    """Announces the next batch size: if nothing follows, the process has died."""

    batch_size: int


def probe(settings: Mapping[str, Any], batch_size: int, seconds: float, most: int, told: Connection) -> None:
    """Measure batch sizes and send the results.

    Args:
        settings: a resolved config, for one device
        batch_size: the first
        seconds: of timed steps
        most: the largest; the batch size is doubled as long as that is faster
        told: receives Trying, and then Measured or Failed, for each batch size; with the first an Upkeep
    """
    with contextlib.suppress(OSError):  # when memory runs out, the system should kill this process
        Path("/proc/self/oom_score_adj").write_text("1000")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    with quiet():
        rate, upkeep = 0.0, True
        while True:
            told.send(Trying(batch_size))
            try:
                measured = _try(settings, batch_size, seconds, told, upkeep)
            except GenlabError as error:
                told.send(Failed(batch_size, str(error), isinstance(error, ResourceError)))
                return
            quicker = batch_size / measured.step.training > _QUICKER * rate
            rate, upkeep = batch_size / measured.step.training, False
            if not (2 * batch_size <= most and quicker and measured.step.training < _BRISK):
                return
            batch_size *= 2


def _try(settings: Mapping[str, Any], batch_size: int, seconds: float, told: Connection, upkeep: bool) -> Measured:
    config = copy.deepcopy(dict(settings))
    config["data"]["batch_size"] = batch_size
    config["trainer"]["max_epochs"] = None
    config["budget"] = {"_target_": "genlab.budget.Examples", "value": _ENDLESS}
    on_cpu = config["trainer"].get("accelerator") == "cpu" or not torch.accelerator.is_available()
    put(chosen_for(config, on_cpu), config)
    with tempfile.TemporaryDirectory() as folder:
        data: DataModule = build(config["data"], DataModule, "data")
        model, evaluation = build_model(config, tokenizer=data.tokenizer), build_evaluation(config)
        built = build_callbacks(config, evaluation)
        model.at_full_cost()
        clock = StepClock(seconds, _PATIENCE)
        callbacks: list[pl.Callback] = [PutParts(config["pretrained"]), FiniteGuard(), SharedBuffers(), NoCheckpoints()]
        callbacks += [*(callback for callback in built if not isinstance(callback, _APART)), clock]
        trainer = build_trainer(config, model, callbacks, [], Path(folder))
        device = trainer.strategy.root_device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        data.check(trainer.world_size)
        with quick_cpu(device.type == "cpu", **of_run(config)):
            fit(trainer, model, data, None)
            step = pace(clock.steps, int(trainer.num_training_batches))
            if upkeep:  # before the memory is looked at: an evaluation needs some too
                model.to(device)
                told.send(measure_upkeep(trainer, model, evaluation, built))
            measured = Measured(batch_size, step, peak_memory(device), expected_bytes(model))
            told.send(measured)
    return measured

"""``dry_run=true``: build everything, take one step, draw one sample, and write nothing."""

import os
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig
from pytorch_lightning import LightningModule, Trainer

from genlab.budget import Budget
from genlab.callbacks.checkpoint import NoCheckpoints
from genlab.callbacks.ema import averaged_weights
from genlab.callbacks.finite_guard import FiniteGuard
from genlab.config.build import build
from genlab.config.tree import resolved
from genlab.data.base import DataModule
from genlab.model.base import GenerativeModel, in_eval_mode
from genlab.model.network.quantized_weight import number_of_weights
from genlab.run.assemble import (
    build_callbacks,
    build_evaluation,
    build_model,
    build_trainer,
    check_callbacks,
    trial_model,
)
from genlab.run.cpu_choice import computed_alike
from genlab.run.elsewhere import PutParts
from genlab.run.judged import check_tokens
from genlab.run.processes import RUN_DIR, folder_of_all_ranks
from genlab.run.start import BeginFrom, begins_elsewhere, read_start
from genlab.sampling.draw import asked_of
from genlab.seeding import RandomStream


class OneSample(pl.Callback):
    """Draws one sample at the end of the training, while sharded weights can still be gathered."""

    def __init__(self) -> None:
        self.shape: tuple[int, ...] | None = None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if isinstance(pl_module, GenerativeModel):
            with averaged_weights(trainer, pl_module), in_eval_mode(pl_module):
                stream = RandomStream.for_samples(0, range(1), pl_module.device)
                self.shape = tuple(pl_module.sample(1, asked_of(pl_module, range(1)), stream).shape[1:])


def try_out(config: DictConfig, data: DataModule, fit: Any) -> None:
    """One step of the run of ``config`` on all of its devices. ``fit``: trains (trainer, model, data, checkpoint)."""
    is_told = RUN_DIR in os.environ  # by the first process, whose folder it is
    with nullcontext(os.environ.get(RUN_DIR)) if is_told else tempfile.TemporaryDirectory() as folder:
        assert folder is not None
        config.run_dir, config.run_id = folder, "check"
        plain = resolved(config)
        model, evaluation = build_model(plain, tokenizer=data.tokenizer), build_evaluation(plain)
        check_callbacks(build_callbacks(plain, evaluation), model)
        evaluation.check(model, data)
        check_tokens(plain, data)
        start = read_start(plain, trial_model(plain)) if begins_elsewhere(plain) else None
        model.check_data(data)
        plain["budget"] = {"_target_": "genlab.budget.Examples", "value": 1}
        drawn = OneSample()
        callbacks: list[pl.Callback] = [PutParts(plain["pretrained"]), FiniteGuard()]
        callbacks += [] if start is None else [BeginFrom(start)]
        callbacks += [build(plain["budget"], Budget, "budget"), drawn, NoCheckpoints()]
        trial = build_trainer(plain | {"callbacks": {}}, model, [NoCheckpoints()], [], Path(folder))
        data.check(trial.world_size)
        with (
            folder_of_all_ranks(config, Path(folder), None, trial, model) as run_dir,
            computed_alike(config, trial, model),
        ):
            plain["trainer"] = resolved(config)["trainer"]
            trainer = build_trainer(plain | {"callbacks": {}}, model, callbacks, [], run_dir)
            fit(trainer, model, data, None)
    if trainer.is_global_zero:
        parameters = number_of_weights(model)
        losses = ", ".join(
            f"{name} {value:.4f}" for name, value in trainer.callback_metrics.items() if name.startswith("train/")
        )
        sample = "" if drawn.shape is None else f", one sample {drawn.shape}"
        print(f"dry run passed: {parameters:,} parameters, one step ({losses}){sample}.", flush=True)

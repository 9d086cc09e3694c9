"""``genlab train``: fit, evaluate and write the results of one run, new or continued."""

import logging
import os
import resource
import secrets
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from signal import Signals
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from pytorch_lightning.callbacks import LambdaCallback

from genlab import started_as
from genlab.callbacks.checkpoint import Checkpoints, NoCheckpoints
from genlab.callbacks.evaluation import OnlyEvaluate, PeriodicEvaluation, curve_names
from genlab.callbacks.finite_guard import FiniteGuard
from genlab.callbacks.monitored_names import MonitoredNames
from genlab.callbacks.profile import Profile
from genlab.callbacks.shared_buffers import SharedBuffers
from genlab.callbacks.stop import StopOnSignal, Stopped, stopped_by
from genlab.checkpoint import read
from genlab.checkpoint.write import expected_bytes
from genlab.command.final_numbers import cost_lines, floor_of, number_lines
from genlab.command.overview import clip_batch_size, show
from genlab.config.tree import resolved
from genlab.data.base import DataModule
from genlab.data.conversation_data import ConversationData
from genlab.data.workers import plain_error
from genlab.errors import CheckpointError, GenlabError
from genlab.evaluation.evaluation import Evaluation
from genlab.evaluation.failures import raise_first
from genlab.evaluation.protocol import Result
from genlab.files.atomic import check_room
from genlab.files.paths import read_path
from genlab.logger.isolated import IsolatedLogger
from genlab.logger.metrics_file import MetricsFile
from genlab.logger.tracking import kept_by_wandb
from genlab.machine.memory import enough_memory, smaller_batch
from genlab.model.base import Classifies, ComparesCaptions, Generates, GenerativeModel, HasCaptionLikelihood, Model
from genlab.model.network.quantized_weight import number_of_weights
from genlab.redaction import check_can_be_kept, for_terminal, redacted
from genlab.run import run_folder
from genlab.run.assemble import (
    build_callbacks,
    build_data,
    build_evaluation,
    build_loggers,
    build_model,
    build_trainer,
    check_callbacks,
    trial_model,
)
from genlab.run.cpu_choice import computed_alike
from genlab.run.dry_run import try_out
from genlab.run.elsewhere import PutParts, check_parts, keep_old_parts, keep_parts
from genlab.run.judged import check_tokens
from genlab.run.processes import folder_of_all_ranks, is_of_the_group, one_fate
from genlab.run.resume import ChangedOptimizer, check_changes, check_same_data, last_checkpoint, used_up
from genlab.run.start import BeginFrom, begins_elsewhere, read_start
from genlab.sampling.pictures import FOLDER as SAMPLES
from genlab.sampling.pictures import save_pictures
from genlab.seeding import derive_seed
from genlab.trust.places import typed_flags


class Interrupted(GenlabError):
    """A signal ended the run; this is not a failure."""

    prefix = ""

    def __init__(self, number: int, message: str):
        super().__init__(f"stopped by {Signals(number).name}; {message}")
        self.exit_code = 128 + number


def train(
    config: DictConfig,
    overrides: Sequence[str],
    run: Path | None = None,
    *,
    folder: Path | None = None,
    allow_changes: bool = False,
) -> None:
    """Train and evaluate. ``run``: continue that run with ``config``, whose settings that affect training may differ
    only if allowed; None: start one, in ``folder`` or in a folder with a generated name."""
    stop = StopOnSignal()
    try:
        with (
            quiet(),
            stop,
            one_fate(lambda: _how_to_continue(config)),
            enough_memory("before the first step", "a smaller model"),
        ):
            _train(config, overrides, run, folder, stop, allow_changes)
    except BaseException as error:
        stopped = stopped_by(error)
        if stopped is None:
            raise
        if os.environ.get("LOCAL_RANK", "0") != "0":
            sys.exit(128 + stopped.number)  # the first process speaks for all
        raise Interrupted(stopped.number, _how_to_continue(config)) from None


def _how_to_continue(config: DictConfig) -> str:
    run_dir = None if OmegaConf.is_missing(config, "run_dir") else Path(config.run_dir)
    states = [] if run_dir is None else read.saved(run_dir)
    if run_dir is None or not states:
        return "nothing had been saved yet."
    if used_up(read.newest(run_dir), resolved(config)):
        return f"trained and saved, not evaluated. Evaluate with: {_again()} run={run_dir}"
    return f"saved. Continue with: {_again()} run={run_dir}"


def _again() -> str:
    return started_as.command("train") + typed_flags()


def _train(
    config: DictConfig,
    overrides: Sequence[str],
    run: Path | None,
    folder: Path | None,
    stop: StopOnSignal,
    allow_changes: bool,
) -> None:
    data = build_data(config, run)
    clip_batch_size(config, data, overrides)
    if config.dry_run:
        try_out(config, data, fit)
        return
    check_can_be_kept(OmegaConf.to_container(config))
    plain = _without_folder(config)
    model = build_model(plain, old_parts=True, tokenizer=data.tokenizer)
    sketch = trial_model(plain, old_parts=True)
    evaluation = build_evaluation(plain, run)
    callbacks = build_callbacks(plain, evaluation)
    check_callbacks(callbacks, model)
    evaluation.check(model, data)
    trial = build_trainer(
        plain, model, [NoCheckpoints()], [], Path()
    )  # refuses what is impossible, before there is a folder
    data.check(trial.world_size)
    kept = next((c.keep for c in callbacks if isinstance(c, Checkpoints)), 0)
    needed = (kept + 1) * expected_bytes(sketch)
    check_room(run or folder or read_path(config.outputs), needed)
    last = last_checkpoint(run, plain, data) if run is not None else None
    changed = {} if run is None else check_changes(run_folder.read_config(run), plain, run, allow_changes)
    other_data = [] if last is None or run is None else check_same_data(last, data, run, allow_changes)
    if run is None:
        check_tokens(plain, data)
    start = read_start(plain, trial_model(plain)) if run is None and begins_elsewhere(plain) else None
    model.check_data(data)
    if run is not None and trial.is_global_zero:
        check_parts(plain["pretrained"], run)
    if trial.is_global_zero:
        num_parameters = number_of_weights(sketch)
        show(config, data, num_parameters, overrides)  # everything is checked: from here on it runs
        if start is not None:
            print(for_terminal(f"start:      {start.told}"))
        for path, (before, now) in changed.items():
            print(for_terminal(f"changed:    {path} {before} -> {now}"))
        if other_data:
            print(f"changed:    data (other {', '.join(other_data)})")

    with folder_of_all_ranks(config, run, folder, trial, model) as run_dir, computed_alike(config, trial, model):
        config.run_dir = str(run_dir)
        if run is None:
            config.run_id = run_dir.name if folder is None else f"{run_dir.name}-{secrets.token_hex(3)}"
        if trial.is_global_zero:
            keep_parts(config, run_dir)
            if start is not None:
                config.start.sha256 = start.sha256
                with open_dict(config.start):
                    config.start.update(start.cost)
            if last is not None:
                keep_old_parts(config, sketch, last.state, run_dir)
        plain = resolved(config)
        callbacks = [PutParts(plain["pretrained"], run_dir), stop, FiniteGuard(), SharedBuffers(), MonitoredNames()]
        callbacks += [BeginFrom(start)] if start is not None else []
        callbacks += [Profile(run_dir)] if plain.get("profile") else []
        callbacks += build_callbacks(plain, evaluation)
        if changed:
            callbacks.append(ChangedOptimizer(changed))
        metrics_file = MetricsFile(run_dir)
        if last is not None:
            metrics_file.forget_after(last.step)
            metrics_file.restore(last.content.get("metrics", []))
            callbacks += [OnlyEvaluate()] * bool(used_up(last, plain))
        services = build_loggers(plain, run_dir)
        trainer = build_trainer(plain, model, callbacks, [metrics_file, *services], run_dir)
        if trainer.is_global_zero:
            learned = None if data.tokenizer is None else data.tokenizer.state()
            template = data.template.state() if isinstance(data, ConversationData) else None
            told = run_folder.write_start(run_dir, plain, overrides, learned, template)
            print(for_terminal(f"run folder: {run_dir}"), flush=True)
            starts_processes = trainer.world_size > 1 or data.num_workers > 0  # better not beside a thread at work
            for service in services:
                service.start(told, curve_names(evaluation), wait=starts_processes)
        began = time.monotonic()
        fit(trainer, model, data, None if last is None else last.path)
    if stop.agreed is not None:
        raise Stopped(stop.agreed)
    if trainer.is_global_zero:
        seconds, offline = time.monotonic() - began, kept_by_wandb(plain, run_dir)
        finish(trainer, model, run_dir, seconds, offline, partial(_floor, evaluation, data, model, trainer))


def fit(trainer: pl.Trainer, model: Model, data: DataModule, last: Path | None) -> None:
    torch.manual_seed(derive_seed(model.seed))  # of the initial weights, the same on every rank
    restored = LambdaCallback(on_train_start=lambda *_: started.append(True))
    started: list[bool] = []
    trainer.callbacks.append(restored)  # type: ignore[attr-defined]
    try:
        with enough_memory(lambda: _step(trainer, data), _smaller_batch(trainer, model, data)):
            trainer.fit(model, datamodule=data, ckpt_path=None if last is None else str(last), weights_only=True)
    except GenlabError as error:
        if (plain := plain_error(error)) is error:
            raise
        raise plain from None
    except Exception as error:
        if last is None or started or is_of_the_group(error):
            raise
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        raise CheckpointError(
            f"cannot continue from {last} ({cause}). Remove it to continue from an earlier one, or start a new run."
        ) from error


def _step(trainer: pl.Trainer, data: DataModule) -> str:
    return f"at step {trainer.fit_loop.epoch_loop._batches_that_stepped + 1} (batch {data.batch_size})"


def _smaller_batch(trainer: pl.Trainer, model: Model, data: DataModule) -> str:
    smaller = smaller_batch(data.batch_size, model.accumulation.every, trainer.world_size)
    return smaller if model.checkpoints_activations else f"{smaller}, or trainer.activation_checkpointing=true"


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Lightning's tips, and its warnings about what is done on purpose here."""
    with warnings.catch_warnings():
        for message in (
            "num_workers",
            "dataloader is not resumable",
            "LeafSpec",
            "pytree",
            "litlogger",
            "in eval mode",
            "log_every_n_steps",
            "Checkpoint directory",
            "validation_step",
            "GPU available but not used",
            "train_dataloader",
            "array is not writable",
            "srun",
        ):
            warnings.filterwarnings("ignore", f"(?s).*{message}")
        for name in ("pytorch_lightning", "lightning_fabric"):
            for logger in (logging.getLogger(name), logging.getLogger(f"{name}.utilities.rank_zero")):
                logger.setLevel(logging.ERROR)
        yield


def _without_folder(config: DictConfig) -> dict[str, Any]:
    """The resolved config before its run has a folder."""
    trial = config.copy()
    trial.run_dir, trial.run_id = "", ""
    return resolved(trial)


def _floor(
    evaluation: Evaluation, data: DataModule, model: Model, trainer: pl.Trainer, final: Result
) -> dict[str, float]:
    if not final.values or trainer.world_size > 1 or not isinstance(model, GenerativeModel):
        return {}
    return floor_of(final, evaluation, data, model)


def finish(
    trainer: pl.Trainer,
    model: Model,
    run_dir: Path,
    seconds: float,
    offline: str | None,
    floor: Callable[[Result], dict[str, float]],
) -> None:
    """Write ``summary.json``, and print the results of the run and what to do next."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    final = next((c.final for c in callbacks if isinstance(c, PeriodicEvaluation)), None)
    final = Result({}, {}) if final is None else final
    summary = {
        **final.report(),
        **asdict(model.progress),
        "wall_seconds": seconds,
        "num_train": _num_train(trainer),
        "parameters": number_of_weights(model),
        "peak_memory_bytes": peak_memory(trainer.strategy.root_device),
    }
    run_folder.write_summary(run_dir, summary)
    save_pictures(final.pictures, run_dir, f"examples={model.progress.examples:012d}")
    grids = sorted((run_dir / SAMPLES).glob("examples=*"))
    lines = ["", f"finished: {model.progress.examples:,} examples in {model.progress.seconds:,.0f} s of training"]
    lines += [*number_lines(final, floor(final)), *cost_lines(final, summary)]
    lines += [f"samples:    {grids[-1]}"] if grids else []
    lines += [f"run folder: {run_dir}"]
    lines += [] if offline is None else [f"W&B:        offline; send it with: wandb sync {offline}"]
    lines += [f"next:       {_next(model, run_dir)}"]
    print(for_terminal("\n".join(lines)), flush=True)
    for service in trainer.loggers:
        if isinstance(service, IsolatedLogger):
            service.summarize(redacted(summary))
            service.send_model(run_folder.files(run_dir, read.saved(run_dir)[:1]))
    raise_first(final.failures, run_dir / run_folder.SUMMARY)


def _num_train(trainer: pl.Trainer) -> int | None:
    """The training examples that there are; None: the run was over, and looked at none."""
    return None if trainer.train_dataloader is None else len(trainer.train_dataloader.dataset)


def _next(model: Model, run_dir: Path) -> str:
    """The command to try next with the run."""
    if not isinstance(model, GenerativeModel):
        if isinstance(model, Classifies):
            return f"{started_as.command('train')}{typed_flags()} model=... data=... metrics.extractor={run_dir}"
        if isinstance(model, ComparesCaptions):
            judged = f"metrics=[clip_score] metrics.clip_score.model={run_dir}"
            return (
                f"{started_as.command('train')}{typed_flags()} model=... data=... model.conditions=[caption] {judged}"
            )
        return f"{started_as.command('evaluate')}{typed_flags()} run={run_dir}"
    if (run_dir / run_folder.TEMPLATE).exists():
        return f"{started_as.command('chat')}{typed_flags()} run={run_dir}"
    asked = "n=64 seed=1"
    if isinstance(model, HasCaptionLikelihood):
        asked = "image=picture.png"
    elif (run_dir / run_folder.TOKENIZER).exists():
        asked = "n=1 seed=1" + (" model.sample_length=1000" if isinstance(model, Generates) else "")
    return f"{started_as.command('sample')}{typed_flags()} run={run_dir} {asked}"


def peak_memory(device: torch.device) -> int:
    """Peak memory in bytes: of the GPU if the run used one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

"""Resumes a run: finds its last state, and checks changes of settings and data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from genlab.budget import Budget
from genlab.checkpoint import read
from genlab.config.build import build
from genlab.config.differences import differences
from genlab.data.base import DataModule
from genlab.errors import CheckpointError, ConfigError
from genlab.redaction import HIDDEN, one_line
from genlab.run import run_folder
from genlab.run.assemble import load_tokenizer, trial_model

# Settings that training steps do not depend on: where it runs, how long, and who watches.
FREE = ("budget", "outputs", "dry_run", "profile", "rank_timeout", "logger", "metrics", "evaluation", "task",
        "milestones", "spec", "pretrained", "portable", "run_dir", "run_id", "trainer.accelerator", "trainer.devices",
        "trainer.num_nodes", "trainer.strategy", "trainer.max_epochs", "trainer.log_every_n_steps",
        "trainer.activation_checkpointing", "data.num_workers",
        "data.root", "data.path", "data.val_root", "data.val_path", "data.cache_dir", "data.download")  # fmt: skip
WATCHERS = "callbacks"  # but for the weights that samples are drawn with, which are a part of the model
SAID_OF_CONDITIONS = (".names", ".empty", ".examples", ".tokenized")  # of which only sizes make another network
KEPT_WEIGHTS = ("callbacks.ema", "callbacks.best")


def check_changes(saved: Mapping[str, Any], config: Mapping[str, Any], run: Path, allow: bool) -> dict[str, Any]:
    """The settings of training that are not those of ``saved``, by path.

    Raises ConfigError, with all of them, unless changes are allowed.
    """
    found = {
        path: change
        for path, change in differences(saved, config).items()
        if not _is_free(path) and change[0] != HIDDEN
    }  # secrets are typed again
    if found and not allow:
        told = ", ".join(f"{path} {before} -> {now}" for path, (before, now) in found.items())
        raise ConfigError(
            f"{run} was trained with other settings: {told}. Leave them as they were, start a new run, "
            "or continue with them: allow_changes=true."
        )
    return found


def _is_free(path: str) -> bool:
    if ".told." in path and path.endswith(SAID_OF_CONDITIONS):
        return True
    if path.startswith(WATCHERS):
        return not path.startswith(KEPT_WEIGHTS)
    return any(path == free or path.startswith(f"{free}.") for free in FREE)


def last_checkpoint(run: Path, config: Mapping[str, Any], data: DataModule) -> read.Saved:
    """The checkpoint to continue from. Raises CheckpointError (none, or of another model or tokenizer) and ConfigError
    (the run is finished)."""
    last = read.newest(run)
    ended_by = used_up(last, config)
    if ended_by and (run / run_folder.SUMMARY).exists():  # without one, its evaluation is still missing
        raise ConfigError(
            f"run folder {run} already holds a finished run. Continue with a larger {' and '.join(ended_by)}, "
            "or start a new run."
        )
    read.check_same_model(trial_model(config, old_parts=True), last.state, run)
    if data.tokenizer is not None:
        read.check_same_tokenizer(last, data.tokenizer, run)
        load_tokenizer(config, last, run)
    return last


def check_same_data(last: read.Saved, data: DataModule, run: Path, allow: bool) -> list[str]:
    """The parts of the training data that are not those of ``last``; none if it keeps no fingerprint.

    Raises CheckpointError, with all of them, unless changes are allowed: a run sees the same examples in one order.
    """
    if not last.data:
        return []
    before, now = last.data, data.fingerprint
    changed = [part for part in {**now, **before} if before.get(part) != now.get(part)]
    if changed and not allow:
        told = [
            f"shape {before['shape']} -> {now['shape']}" if part == "shape" and part in before and part in now else part
            for part in changed
        ]
        raise CheckpointError(
            one_line(
                f"the training data are not those that {run} was trained on: other {', '.join(told)}. "
                "Put those back, start a new run, or continue with these: allow_changes=true."
            )
        )
    return changed


def used_up(last: read.Saved, config: Mapping[str, Any]) -> list[str]:
    """The limits that a run has reached."""
    max_epochs = config["trainer"].get("max_epochs")
    return [
        *(["budget (budget.value=...)"] * build(config["budget"], Budget, "budget").finished(last.progress)),
        *(["limit of epochs (trainer.max_epochs=...)"] * (max_epochs is not None and last.epochs >= max_epochs)),
    ]


class ChangedOptimizer(Callback):
    """Keeps the optimizers' configured settings on resume, where torch would restore the saved ones.

    An optimizer of another kind starts with an empty state.
    """

    def __init__(self, changes: Mapping[str, Any]):
        self.other_kind = any("optimizer" in path and path.endswith("_target_") for path in changes)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self.other_kind:
            checkpoint["optimizer_states"] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        configured: Any = pl_module.configure_optimizers()
        fresh = configured if isinstance(configured, list) else [configured]
        for optimizer, new in zip(trainer.optimizers, fresh, strict=True):
            for group, settings in zip(optimizer.param_groups, new.param_groups, strict=True):
                group.update({name: value for name, value in settings.items() if name != "params"})
                group.pop("initial_lr", None)  # which the schedule goes by

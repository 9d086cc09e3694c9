"""From a config to a result: build the parts, fit, evaluate, write down. The data come first, the rest reads their spec."""

import os
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning.loggers import Logger
from torchmetrics import Metric

from genlab import checkpoint, run_folder
from genlab.budget import Budget
from genlab.build import LATER, build, check
from genlab.callbacks.checkpoint import NoCheckpoints
from genlab.callbacks.evaluation import PeriodicEvaluation
from genlab.callbacks.progress import ProgressBar
from genlab.callbacks.samples import FOLDER as SAMPLES
from genlab.callbacks.samples import sample_images
from genlab.callbacks.stop import StopOnSignal
from genlab.config import resolved
from genlab.data.base import ImageDataModule
from genlab.errors import ConfigError, GenlabError, ResourceError
from genlab.loggers import IsolatedLogger, MetricsFile
from genlab.metrics.base import FeatureExtractor
from genlab.metrics.evaluation import Evaluation
from genlab.model.base import GenerativeModel
from genlab.seeding import derive_seed

SLOTS: dict[str, Any] = {
    "data": ImageDataModule, "model": GenerativeModel, "trainer": pl.Trainer, "budget": Budget, "evaluation": Evaluation,
}  # fmt: skip
RUN_DIR = "GENLAB_RUN_DIR"  # tells the processes of the other ranks which folder the first one made


class Interrupted(GenlabError):
    """A signal ended the run after it was saved."""

    def __init__(self, number: int, run_dir: Path):
        super().__init__(f"stopped by signal {number}; saved. Continue with: python train.py run={run_dir}")
        self.exit_code = 128 + number


# --- from config to objects -----------------------------------------------------------------------------------------


def check_config(config: DictConfig) -> None:
    """All that can be known of a config before the data are looked at. Raises ConfigError."""
    nodes = _known(config)
    extractor = nodes["metrics"].pop("extractor")
    check(extractor, FeatureExtractor, "metrics.extractor")
    for name, node in nodes["metrics"].items():
        check(node, Metric, f"metrics.{name}")
    for name, slot in SLOTS.items():
        check(
            nodes[name], slot, name, given=frozenset({"extractor", "metrics"}) if name == "evaluation" else frozenset()
        )
    for name, node in nodes["callbacks"].items():
        check(node, _callback_slot(node), f"callbacks.{name}")
    for name, node in nodes["logger"].items():
        check(node, Logger, f"logger.{name}")
    for path, kind in (("seed", int), ("outputs", str), ("check", bool)):
        check(nodes[path], kind, path)


def _known(node: Any) -> Any:
    """Plain values, with LATER for what is interpolated from values that the run fills in."""
    if isinstance(node, ListConfig):
        return [_known(item) for item in node]
    if not isinstance(node, DictConfig):
        return node
    values = {}
    for key in node:
        try:
            values[str(key)] = LATER if OmegaConf.is_missing(node, key) else _known(node[key])
        except OmegaConfBaseException:
            values[str(key)] = LATER
    return values


def _callback_slot(node: Mapping[str, Any]) -> Any:
    return Callable[..., pl.Callback] if node.get("_partial_") else pl.Callback


def build_data(config: DictConfig) -> ImageDataModule:
    """The datamodule; what it says of itself goes into ``config.spec``."""
    data = build(resolved(config.data), ImageDataModule, "data")
    config.spec = data.spec.to_config()
    return data


def build_model(config: Mapping[str, Any]) -> GenerativeModel:
    """The model of a resolved config, its networks not made yet. Raises ConfigError, also for what they would refuse."""
    trial_model(config)
    return build(config["model"], GenerativeModel, "model")


def trial_model(config: Mapping[str, Any]) -> GenerativeModel:
    """The model with its networks, on a device without memory: says at once, and for nothing, what does not fit."""
    model = build(config["model"], GenerativeModel, "model")
    modality = config["spec"]["modality"]
    if modality not in model.modalities:
        raise ConfigError(f"{type(model).__name__} cannot be trained on {modality} data.")
    with torch.device("meta"):
        model.configure_model()
    return model


def build_evaluation(config: Mapping[str, Any]) -> Evaluation:
    """The evaluation with its extractor and metrics. Raises an error at once if weights are missing."""
    metrics = dict(config["metrics"])
    extractor: FeatureExtractor = build(metrics.pop("extractor"), FeatureExtractor, "metrics.extractor")
    built = {name: build(node, Metric, f"metrics.{name}") for name, node in metrics.items()}
    return build(config["evaluation"], Evaluation, "evaluation", given={"extractor": extractor, "metrics": built})


def build_callbacks(config: Mapping[str, Any], evaluation: Evaluation) -> list[pl.Callback]:
    """The configured callbacks, between the budget (first: it counts) and none; Lightning puts checkpoints last."""
    callbacks: list[pl.Callback] = [StopOnSignal(), build(config["budget"], Budget, "budget")]
    for name, node in config["callbacks"].items():
        callback = build(node, _callback_slot(node), f"callbacks.{name}")
        callbacks.append(callback(evaluation=evaluation) if isinstance(callback, partial) else callback)
    return callbacks


def build_loggers(config: Mapping[str, Any], run_dir: Path) -> list[Logger]:
    """The configured services. W&B works offline where nobody has logged in."""
    if not (os.environ.get("WANDB_API_KEY") or _netrc_names_wandb()):
        os.environ.setdefault("WANDB_MODE", "offline")
    os.environ.setdefault("WANDB_SILENT", "true")
    loggers: list[Logger] = []
    for name, node in config["logger"].items():
        make = partial(build, node, Logger, f"logger.{name}")
        loggers.append(IsolatedLogger(make, node["_target_"].rpartition(".")[2], run_dir))
    return loggers


def _netrc_names_wandb() -> bool:
    file = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    return file.exists() and "wandb" in file.read_text(encoding="utf-8", errors="ignore")


def build_trainer(
    config: Mapping[str, Any], callbacks: list[pl.Callback], loggers: list[Logger], run_dir: Path
) -> pl.Trainer:
    _check_devices(config["trainer"])
    given = {
        "callbacks": callbacks,
        "logger": loggers,
        "plugins": [checkpoint.AtomicCheckpointIO()],
        "default_root_dir": str(run_dir),
        "use_distributed_sampler": False,  # ours knows ranks, and how to go on
        "limit_val_batches": 0,  # validation runs in a callback, spread over the budget
        "num_sanity_val_steps": 0,
        "enable_model_summary": False,
        "enable_progress_bar": any(isinstance(callback, ProgressBar) for callback in callbacks),
    }
    node = dict(config["trainer"])
    if node.get("max_epochs") is None:
        node["max_epochs"] = -1  # Lightning's word for no limit; its null means 1000
        check(config["trainer"], pl.Trainer, "trainer", given=frozenset(given))
        del node["max_epochs"]
        given["max_epochs"] = -1
    return build(node, pl.Trainer, "trainer", given=given)


def _check_devices(trainer: Mapping[str, Any]) -> None:
    devices, accelerator = trainer.get("devices", 1), trainer.get("accelerator", "auto")
    gpus = torch.cuda.device_count()
    wants_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and gpus > 0)
    if wants_gpu and gpus == 0:
        raise ResourceError("trainer.accelerator=gpu but this machine has no GPU that torch can use. Use trainer=cpu.")
    if wants_gpu and isinstance(devices, int) and devices > gpus:
        raise ResourceError(
            f"trainer.devices={devices} but this machine has {gpus} GPU{'s' * (gpus > 1)}. "
            f"Use trainer.devices={gpus}, or trainer=ddp_cpu for CPU processes."
        )


# --- training -------------------------------------------------------------------------------------------------------


def train(config: DictConfig, overrides: Sequence[str], run: Path | None = None) -> None:
    """Train and evaluate. ``run``: continue that run with ``config``; None: start one in a new folder."""
    with quiet():
        _train(config, overrides, run)


def _train(config: DictConfig, overrides: Sequence[str], run: Path | None) -> None:
    data = build_data(config)
    if config.check:
        try_out(config, data)
        return
    plain = _without_folder(config)
    model = build_model(plain)
    evaluation = build_evaluation(plain)
    last = last_checkpoint(run, plain) if run is not None else None
    first_process = RUN_DIR not in os.environ
    run_dir = _run_dir(config, run)
    config.run_dir = str(run_dir)
    if run is None:
        config.run_id = run_dir.name
    plain = resolved(config)

    callbacks = build_callbacks(plain, evaluation)
    metrics_file = MetricsFile(run_dir)
    if last is not None:
        metrics_file.forget_after(last.step)
    trainer = build_trainer(plain, callbacks, [metrics_file, *build_loggers(plain, run_dir)], run_dir)
    data.check(trainer.world_size)
    if first_process:
        run_folder.write_start(run_dir, plain, overrides)
        print(f"run folder: {run_dir}", flush=True)
    began = time.monotonic()
    fit(trainer, model, data, None if last is None else last.path)

    stop = next(callback for callback in callbacks if isinstance(callback, StopOnSignal))
    if stop.received is not None and model.progress.fraction < 1:
        raise Interrupted(stop.received, run_dir)
    if trainer.is_global_zero:
        finish(trainer, model, run_dir, time.monotonic() - began, offline=_wandb_is_offline(plain))


def fit(trainer: pl.Trainer, model: GenerativeModel, data: ImageDataModule, last: Path | None) -> None:
    torch.manual_seed(derive_seed(model.seed))  # of the initial weights, the same on every rank
    trainer.fit(model, datamodule=data, ckpt_path=None if last is None else str(last), weights_only=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Lightning without its advertisements, and without warnings about what is done on purpose here."""
    import logging

    with warnings.catch_warnings():
        for message in ("(?s).*num_workers", "(?s).*dataloader is not resumable", "(?s).*LeafSpec", "(?s).*pytree",
                        "(?s).*litlogger", "(?s).*log_every_n_steps", "(?s).*Checkpoint directory",
                        "(?s).*validation_step", "(?s).*in eval mode", "(?s).*GPU available but not used", "(?s).*train_dataloader"):  # fmt: skip
            warnings.filterwarnings("ignore", message)
        for name in ("pytorch_lightning", "lightning_fabric"):
            for logger in (logging.getLogger(name), logging.getLogger(f"{name}.utilities.rank_zero")):
                logger.setLevel(logging.ERROR)
        yield


def _without_folder(config: DictConfig) -> dict[str, Any]:
    """The resolved config before its run has a folder."""
    trial = config.copy()
    trial.run_dir, trial.run_id = "", ""
    return resolved(trial)


def _run_dir(config: DictConfig, run: Path | None) -> Path:
    """This run's folder, made by its first process; the other ranks are told through the environment."""
    if run is not None:
        folder = run
    elif RUN_DIR in os.environ:
        folder = Path(os.environ[RUN_DIR])
    else:
        folder = run_folder.create(config.outputs, run_folder.name_of(config))
    os.environ[RUN_DIR] = str(folder)
    return folder


def last_checkpoint(run: Path, config: Mapping[str, Any]) -> checkpoint.Saved:
    """Where a run goes on. Raises CheckpointError (none, or of another model) and ConfigError (the run is finished)."""
    last = checkpoint.newest(run)
    budget = build(config["budget"], Budget, "budget")
    if budget.finished(last.progress):
        raise ConfigError(
            f"run folder {run} already holds a finished run. Continue with a larger budget (budget.value=...), "
            "or start a new run."
        )
    checkpoint.check_same_model(trial_model(config), last.state, run)
    return last


def _wandb_is_offline(config: Mapping[str, Any]) -> bool:
    return "wandb" in config["logger"] and os.environ.get("WANDB_MODE") == "offline"


def finish(trainer: pl.Trainer, model: GenerativeModel, run_dir: Path, seconds: float, offline: bool) -> None:
    """Write ``summary.json`` and say in plain words what came of the run, and what to do next."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    final = next((c.final for c in callbacks if isinstance(c, PeriodicEvaluation)), None)
    summary = {
        "metrics": {} if final is None else final.values,
        "protocol": {} if final is None else final.protocol,
        "protocol_id": None if final is None else final.protocol_id,
        **asdict(model.progress),
        "wall_seconds": seconds,
        "parameters": sum(p.numel() for p in model.parameters()),
        "peak_memory_bytes": peak_memory(),
        "samples_per_second": None if final is None else final.samples_per_second,
    }
    run_folder.write_summary(run_dir, summary)
    grids = sorted((run_dir / SAMPLES).glob("examples=*.png"))
    lines = ["", f"finished: {model.progress.examples:,} examples in {model.progress.seconds:,.0f} s of training"]
    lines += [f"  {name:28} {value:10.4f}" for name, value in summary["metrics"].items()]  # type: ignore[attr-defined]
    lines += [f"samples:    {grids[-1]}"] if grids else []
    lines += [f"run folder: {run_dir}"]
    lines += [f"W&B:        offline; send it with: wandb sync {run_dir}/wandb/*-run-*"] if offline else []
    lines += [f"next:       python scripts/sample.py run={run_dir} n=64 seed=1"]
    print("\n".join(lines), flush=True)


def peak_memory() -> int:
    """Bytes: of the GPU where there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def try_out(config: DictConfig, data: ImageDataModule) -> None:
    """``check=true``: build everything, take one step, draw one sample, leave nothing behind."""
    with tempfile.TemporaryDirectory() as folder:
        config.run_dir, config.run_id = folder, "check"
        config.budget = {"_target_": "genlab.budget.Examples", "value": 1}
        plain = resolved(config)
        build_evaluation(plain)
        model = build_model(plain)
        callbacks = [build(plain["budget"], Budget, "budget")]
        trainer = build_trainer(plain | {"callbacks": {}}, [*callbacks, NoCheckpoints()], [], Path(folder))
        data.check(trainer.world_size)
        fit(trainer, model, data, None)
        loss = float(trainer.callback_metrics["train/loss"])
        label = config.spec.condition.label.size
        images = sample_images(model, range(1), 0, label)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"check passed: {parameters:,} parameters, one step (loss {loss:.4f}), one sample {tuple(images.shape[1:])}.")

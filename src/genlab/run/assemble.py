"""Builds the objects of a run from its config. The data come first: the rest depends on their ``spec``."""

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.strategies import ModelParallelStrategy, Strategy
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torchmetrics import Metric

from genlab.budget import Budget
from genlab.callbacks.caption_samples import CaptionSamples
from genlab.callbacks.progress import ProgressBar
from genlab.callbacks.reconstructions import Reconstructions
from genlab.callbacks.samples import SampleGrid
from genlab.callbacks.text_samples import TextSamples
from genlab.callbacks.tf32 import TF32
from genlab.checkpoint import read
from genlab.checkpoint.write import AtomicCheckpointIO
from genlab.config.build import LATER, build, check, not_made, parameters, resolve
from genlab.config.tree import ConfigTree, resolved
from genlab.data.base import DataModule, key_of, kind_of
from genlab.data.captions import Coder
from genlab.data.tokenizer.base import CaptionTokenizer
from genlab.errors import CheckpointError, ConfigError, DataError, GenlabError, ResourceError
from genlab.evaluation.evaluation import Evaluation
from genlab.files.regular_file import read_text
from genlab.logger.isolated import IsolatedLogger
from genlab.logger.tracking import check_passed_on, named
from genlab.logger.wandb_mode import choose_wandb_mode
from genlab.metrics.base import EXTRACTED, FeatureExtractor, ModelMetric, SampleMetric
from genlab.metrics.extractor.classifier import ClassifierFeatures
from genlab.milestones import Bands
from genlab.model.base import FillsInImages, GenerativeModel, HasCaptionLikelihood, Model
from genlab.model.condition_kind import Caption
from genlab.model.elsewhere import leave_state_dict
from genlab.model.network.image_size import ImageSizeError
from genlab.redaction import redacted, remember
from genlab.run import run_folder
from genlab.run.counted import check_counts, check_segments
from genlab.run.cpu_choice import check_cpu
from genlab.run.data_parallel import DataParallel, OwnSteps
from genlab.run.elsewhere import JUDGE, METRICS, adopt, check_entries, put_part, weights_at
from genlab.run.judged import ask_if_wanted, check_judged, fits_judged
from genlab.run.pixel_levels import check_model_bits
from genlab.run.start import check_start
from genlab.run.training_loop import TrainingLoop
from genlab.task.base import Task

SLOTS: dict[str, Any] = {
    "data": DataModule,
    "model": Model,
    "trainer": pl.Trainer,
    "budget": Budget,
    "evaluation": Evaluation,
    "task": Task,
    "milestones": Bands | None,
}


# Constructor arguments that are made by code; W&B's settings, its server among them, come from the environment.
_GIVEN = {"evaluation": frozenset({"extractor", "metrics", "task"}), "logger": frozenset({"settings"})}
CHECKPOINTING = "activation_checkpointing"  # among the trainer's options, and not one of Lightning's Trainer
# Variables of what starts processes on several machines: torchrun, SLURM, MPI, LSF, Kubeflow or by hand.
_OF_LAUNCHERS = ("TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "OMPI_COMM_WORLD_SIZE", "LSB_JOBID", "MASTER_ADDR")


def check_config(config: DictConfig, typed: Sequence[str] = ()) -> None:
    """All checks of a config that do not need the data. ``typed``: this command's overrides. Raises ConfigError."""
    adopt(config, typed)
    nodes = _known(config)
    remember(nodes)
    for path, kind in (("seed", int), ("outputs", str), ("dry_run", bool), ("rank_timeout", int)):
        check(nodes[path], kind, path)
    check(nodes.get("portable", False), bool, "portable")
    check(nodes.get("profile", False), bool, "profile")
    check_cpu(nodes.get("cpu", {}))
    nodes["trainer"] = _decided(nodes["trainer"])
    check_start(nodes.get("start"))
    if not nodes["outputs"].isprintable():
        raise ConfigError(f"outputs must be a path without control characters, got {nodes['outputs']!r}.")
    check(nodes["metrics"].pop("extractor", None), FeatureExtractor | None, "metrics.extractor")
    for name, node in nodes["metrics"].items():
        check(node, Metric, f"metrics.{name}")
        check(node, SampleMetric | ModelMetric, f"metrics.{name}")
    if isinstance(nodes.get("trainer"), dict):
        check(nodes["trainer"].pop("tf32", None), bool | None, "trainer.tf32")  # ours; the rest is Lightning's
        check(nodes["trainer"].pop(CHECKPOINTING, False), bool, f"trainer.{CHECKPOINTING}")
    for name, slot in SLOTS.items():
        check(nodes.get(name), slot, name, given=_GIVEN.get(name, frozenset()))
    for name, node in nodes.get("callbacks", {}).items():
        if node is None:  # left out
            continue
        check(node, _callback_slot(node), f"callbacks.{name}")
    for name, node in nodes.get("logger", {}).items():
        if node is None:  # left out
            continue
        check(node, Logger, f"logger.{name}", given=_GIVEN["logger"])
        check_passed_on(node, f"logger.{name}")


def load_tokenizer(config: Mapping[str, Any], last: read.Saved, run: Path) -> CaptionTokenizer:
    """A run's tokenizer, from its folder. Raises ConfigError: another is requested; CheckpointError: it is missing."""
    asked, own = (node["data"]["tokenizer"]["_target_"] for node in (config, run_folder.read_config(run)))
    if asked != own:
        raise ConfigError(
            f"{run} has its own tokenizer, {own.rpartition('.')[2]}, and cannot use another. Leave data/tokenizer= out."
        )
    tokenizer: CaptionTokenizer = build(config["data"]["tokenizer"], CaptionTokenizer, "data.tokenizer")
    _give_tokenizer(run / run_folder.TOKENIZER, tokenizer.load_state)
    read.check_same_tokenizer(last, tokenizer, run)
    return tokenizer


def _give_tokenizer(path: Path, take: Callable[[str], None]) -> None:
    """Pass on what a run's tokenizer has learned. Raises CheckpointError: it cannot be read, or is not taken."""
    try:
        take(read_text(path))
    except (OSError, ValueError, RecursionError, DataError) as error:
        raise CheckpointError(
            f"{path} does not hold the tokenizer of the run ({error}). Restore it, or start a new run."
        ) from error


def _known(node: Any) -> Any:
    """Plain values, with LATER for interpolations of values that the run fills in."""
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
    is_partial = isinstance(node, Mapping) and node.get("_partial_")
    return Callable[..., pl.Callback] if is_partial else pl.Callback


def build_data(config: DictConfig, run: Path | None = None) -> DataModule:
    """The datamodule; its spec goes into ``config.spec``. ``run``: one that keeps its tokenizer."""
    data: DataModule = build(resolved(config.data), DataModule, "data")
    ask_if_wanted(config, data)
    kept = None if run is None else run / run_folder.TOKENIZER
    if kept is not None and kept.is_file():
        _give_tokenizer(kept, data.keep_tokenizer)
    config.spec = data.spec.to_config()
    return data


def build_model(config: Mapping[str, Any], old_parts: bool = False, tokenizer: CaptionTokenizer | None = None) -> Model:
    """The model of a resolved config, without its networks. Raises ConfigError, also for errors of the networks.

    Its parts from elsewhere have no weights yet (see :mod:`genlab.run.elsewhere`), and are not in its state dict.
    ``old_parts``: nor are those of an older run, whose checkpoints hold them. ``tokenizer``: of the data, for captions.
    """
    trial_model(config, old_parts)
    model = _new_model(config, old_parts)
    if tokenizer is not None:
        conditions = model.conditions.kinds.values() if isinstance(model, GenerativeModel) else ()
        for kind in (*conditions, *vars(model).values()):  # captions that it is told, and those that it writes or reads
            if isinstance(kind, Caption) and kind.tokenized:
                kind.use(Coder(tokenizer, kind.length))
    return model


def _new_model(config: Mapping[str, Any], old_parts: bool) -> Model:
    entries = check_entries(config.get("pretrained", {}))
    noted: dict[str, Any] = {
        path: None
        for path, entry in entries.items()
        if path.startswith("model.") and (old_parts or entry["sha256"] is not None)
    }
    model: Model = build(config["model"], Model, "model", noted=noted)
    model.key = key_of(config["spec"])
    for part in noted.values():
        leave_state_dict(part)
    model.elsewhere = noted
    model.freezing = tuple((config.get("start") or {}).get("freeze") or ())
    model.checkpoints_activations = bool(config["trainer"].get(CHECKPOINTING, False))
    return model


def trial_model(config: Mapping[str, Any], old_parts: bool = False) -> Model:
    """The model with its networks on the meta device, to detect misfits at no cost."""
    kind = kind_of(config["spec"])
    family = resolve(config["model"]["_target_"], "model")
    if kind not in getattr(family, "kinds", (kind,)):
        known = ConfigTree().targets("model")
        fitting = [name for name, target in known if _fits_data(resolve(target, name), kind, config)]
        hint = f" Use model={' or '.join(fitting)}." if fitting else ""
        raise ConfigError(f"{family.__name__} cannot be trained on {config['spec']['modality']} data.{hint}")
    check_judged(config, family)
    check_counts(config, family)
    model = _new_model(config, old_parts)
    check_model_bits(model, config["spec"])
    try:
        with torch.device("meta"):
            model.configure_model()
    except ConfigError as error:
        if isinstance(error.__cause__, ImageSizeError):
            raise ConfigError(f"{error} {_how_to_resize(config, error.__cause__.side)}") from error
        raise
    except GenlabError:
        raise
    except Exception as error:  # shapes that do not fit, in a part's own code or in torch's
        raise not_made("model", error) from error
    check_segments(config, model)
    return model


def _fits_data(family: Any, kind: str, config: Mapping[str, Any]) -> bool:
    return kind in getattr(family, "kinds", ()) and fits_judged(config, family)


def _how_to_resize(config: Mapping[str, Any], side: int) -> str:
    kind = resolve(config["data"]["_target_"], "data")
    if "image_size" in parameters(kind):
        return f"Or resize the images: data.image_size={side}."
    other = ", such as model/network=dit" if "network" in config["model"] else ""
    return f"{kind.__name__} keeps the size of its images. Other networks may support it{other}."


def build_evaluation(config: Mapping[str, Any], run: Path | None = None) -> Evaluation:
    """The evaluation with its metrics, and its extractor if a metric needs it. Raises an error at once if
    weights are missing. ``run``: the folder that keeps the extractor's, if it was trained elsewhere."""
    metrics = dict(config["metrics"])
    node = metrics.pop("extractor", None)
    built: dict[str, Metric] = {name: _build_metric(name, node, config, run) for name, node in metrics.items()}
    of_samples: list[Any] = [metric for metric in built.values() if not isinstance(metric, ModelMetric)]
    is_read = any(metric.reads & EXTRACTED for metric in of_samples)
    extractor = build_extractor(node, config, run) if is_read else None
    task: Task = build(config["task"], Task, "task")
    given = {"extractor": extractor, "metrics": built, "task": task}
    return build(config["evaluation"], Evaluation, "evaluation", given=given)


def _build_metric(name: str, node: Any, config: Mapping[str, Any], run: Path | None) -> Metric:
    """With its parts that were trained elsewhere."""
    return _with_parts(node, Metric, f"{METRICS}.{name}", config, run)


def _with_parts(node: Any, slot: Any, path: str, config: Mapping[str, Any], run: Path | None) -> Any:
    """What ``node`` makes; its parts that were trained elsewhere have their weights. Raises CheckpointError: they are
    missing."""
    entries = check_entries(config.get("pretrained", {}))
    parts: dict[str, Any] = {place: None for place in entries if place.startswith(f"{path}.")}
    made = build(node, slot, path, noted=parts)
    for place, part in parts.items():
        if part is not None:
            put_part(part, weights_at(place, entries[place], run), entries[place]["where"])
    return made


def build_extractor(node: Any, config: Mapping[str, Any], run: Path | None = None) -> FeatureExtractor | None:
    """The feature extractor. Raises ConfigError: it was trained on images of another size than those of the data;
    CheckpointError: its weights are missing."""
    extractor: FeatureExtractor | None = _with_parts(node, FeatureExtractor | None, JUDGE, config, run)
    spec = config["spec"]
    if not isinstance(extractor, ClassifierFeatures) or spec["modality"] != "image":
        return extractor
    if extractor.shape != tuple(spec["shape"]):
        where = (config.get("pretrained", {}).get(f"{JUDGE}.model") or {}).get("where")
        raise ConfigError(
            f"{JUDGE}={where} was trained on images of shape {extractor.shape}, "
            f"the data have {tuple(spec['shape'])}. Name another run, or change the data."
        )
    return extractor


def check_callbacks(callbacks: Sequence[pl.Callback], model: Model) -> None:
    """Raises ConfigError if a callback draws samples and the model cannot, or shows another kind of them."""
    for callback in callbacks:
        if isinstance(callback, SampleGrid | TextSamples | CaptionSamples) and not isinstance(model, GenerativeModel):
            raise ConfigError(
                f"callbacks: {type(callback).__name__} shows samples, and a {type(model).__name__} draws "
                "none. Use callbacks=[no_samples]."
            )
        if isinstance(callback, Reconstructions) and not isinstance(model, FillsInImages):
            raise ConfigError(
                f"callbacks: Reconstructions shows hidden parts of images filled in, and a {type(model).__name__} "
                "fills in none. Use callbacks=[no_samples]."
            )
        writes_captions = isinstance(model, HasCaptionLikelihood)
        if isinstance(callback, SampleGrid | TextSamples) and writes_captions:
            raise ConfigError(
                f"callbacks: {type(callback).__name__} does not show captions, which a {type(model).__name__} "
                "writes. Use callbacks=[captions]."
            )
        if isinstance(callback, CaptionSamples) and not writes_captions:
            raise ConfigError(
                f"callbacks: CaptionSamples shows captions, and a {type(model).__name__} writes none. "
                "Use callbacks=[default]."
            )


def build_callbacks(config: Mapping[str, Any], evaluation: Evaluation) -> list[pl.Callback]:
    """The budget, whose progress the others use, and the configured callbacks. Lightning puts checkpoints last."""
    callbacks: list[pl.Callback] = [build(config["budget"], Budget, "budget")]
    for name, node in config.get("callbacks", {}).items():
        if node is None:  # callbacks.ema=null
            continue
        callback = build(node, _callback_slot(node), f"callbacks.{name}")
        callbacks.append(callback(evaluation=evaluation) if isinstance(callback, partial) else callback)
    return callbacks


def build_loggers(config: Mapping[str, Any], run_dir: Path) -> list[IsolatedLogger]:
    """The configured services, none of which can end a run."""
    nodes = {name: node for name, node in config.get("logger", {}).items() if node is not None}  # null: left out
    for name, node in nodes.items():
        if issubclass(resolve(node["_target_"], f"logger.{name}"), WandbLogger):
            choose_wandb_mode(node.get("mode"))
    loggers: list[IsolatedLogger] = []
    for name, node in nodes.items():
        make = partial(_build_logger, name, node, f"{run_folder.name_of(config)}-{config['run_id']}", run_dir)
        loggers.append(IsolatedLogger(make, node["_target_"].rpartition(".")[2], run_dir))
    return loggers


def _build_logger(name: str, node: Mapping[str, Any], run_name: str, run_dir: Path) -> Logger:
    if issubclass(resolve(node["_target_"], f"logger.{name}"), WandbLogger):
        # W&B is set up now: else it is not silent yet when it finds fault with an argument of Lightning's
        node = rank_zero_only(named)(node, run_name, run_dir) or node
        node = redacted(node, service=True)  # none of its arguments is a secret, and all of them are shown
    return build(node, Logger, f"logger.{name}")


def build_trainer(
    config: Mapping[str, Any],
    model: Model,
    callbacks: list[pl.Callback],
    loggers: Sequence[Logger],
    run_dir: Path,
) -> pl.Trainer:
    """The configured trainer for ``model``, with settings for what the model does itself."""
    _check_devices(config["trainer"])
    node = dict(_decided(config["trainer"]))
    tf32 = node.pop("tf32", None)  # of an older run: what torch does by itself
    given = {
        "callbacks": callbacks if tf32 is None else [TF32(tf32), *callbacks],
        "logger": list(loggers),
        "plugins": [AtomicCheckpointIO()],
        "default_root_dir": str(run_dir),
        "use_distributed_sampler": False,  # ours handles ranks and resume
        "limit_val_batches": 0,  # validation runs in a callback, spread over the budget
        "num_sanity_val_steps": 0,
        "enable_model_summary": False,
        "enable_progress_bar": any(isinstance(callback, ProgressBar) for callback in callbacks),
    }
    node.pop(CHECKPOINTING, None)  # the model has it
    check(node, pl.Trainer, "trainer", given=frozenset(given))
    if node.get("max_epochs") is None:
        node.pop("max_epochs", None)
        given["max_epochs"] = -1  # Lightning's word for no limit; its null means 1000
    model.accumulation.every = node.pop("accumulate_grad_batches", 1)
    if not model.automatic_optimization:
        model.gradient_clip_val = node.pop("gradient_clip_val", None)
    strategy = node.get("strategy")
    if strategy == "ddp" or isinstance(strategy, Mapping):
        del node["strategy"]
        given["strategy"] = _strategy(strategy, model, timedelta(seconds=config["rank_timeout"]))
    trainer: pl.Trainer = build(node, pl.Trainer, "trainer", given=given)
    TrainingLoop.into(trainer)
    if model.automatic_optimization:  # Lightning's own accumulation would step at the end of every epoch
        trainer.fit_loop.epoch_loop._should_accumulate = lambda: not model.accumulation.steps  # type: ignore[method-assign]
    return trainer


def _decided(trainer: Any) -> Any:
    """A trainer's node with a precision that Lightning knows: ``auto`` is chosen when the run has a folder
    (:mod:`genlab.run.cpu_choice`)."""
    undecided = isinstance(trainer, Mapping) and trainer.get("precision") == "auto"
    return {**trainer, "precision": "32-true"} if undecided else trainer


def _strategy(strategy: str | Mapping[str, Any], model: Model, timeout: timedelta) -> Strategy:
    """The strategy, configured for the model and with a timeout."""
    if isinstance(strategy, Mapping):
        if resolve(strategy["_target_"], "trainer.strategy") is ModelParallelStrategy:
            from genlab.checkpoint.sharded_strategy import ShardedStrategy  # slow to import, and for this alone

            strategy = {**strategy, "_target_": f"{ShardedStrategy.__module__}.{ShardedStrategy.__name__}"}
        return build(strategy, Strategy, "trainer.strategy", given={"timeout": timeout})
    return (DataParallel if model.automatic_optimization else OwnSteps)(timeout=timeout)


def _check_devices(trainer: Mapping[str, Any]) -> None:
    devices, accelerator = trainer.get("devices", 1), trainer.get("accelerator", "auto")
    gpus = torch.cuda.device_count()
    nodes = trainer.get("num_nodes", 1)
    if isinstance(nodes, int) and nodes > 1 and not any(name in os.environ for name in _OF_LAUNCHERS):
        raise ResourceError(
            f"trainer.num_nodes={nodes} but nothing starts processes on other machines, and this one "
            "would wait for them. Use trainer.num_nodes=1, or start it with torchrun or srun "
            "on each."
        )
    precision = str(trainer.get("precision"))
    if precision in ("16", "16-mixed") and (accelerator == "cpu" or (accelerator == "auto" and gpus == 0)):
        raise ConfigError(f"trainer.precision={precision} needs a GPU. Use trainer.precision=bf16-mixed on the CPU.")
    wants_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and gpus > 0)
    if wants_gpu and gpus == 0:
        raise ResourceError("trainer.accelerator=gpu but this machine has no GPU that torch can use. Use trainer=cpu.")
    if wants_gpu and isinstance(devices, int) and devices > gpus:
        raise ResourceError(
            f"trainer.devices={devices} but this machine has {gpus} GPU{'s' * (gpus > 1)}. "
            f"Use trainer.devices={gpus}, or trainer=ddp_cpu for CPU processes."
        )

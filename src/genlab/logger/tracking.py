"""Sends a run's config, curves, samples, summary and model to Weights & Biases and TensorBoard.

The x axis of curves is the number of training examples, and their names are the same for any number of samples
(``val/fid``, where ``metrics.csv`` says ``val/fid_digits64_1k``): the config holds the number. Other loggers get config
and curves.
"""

import inspect
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from PIL import Image
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from genlab.config.build import check_known, parameters, resolve
from genlab.metrics.base import Direction

EXAMPLES = "progress/examples"  # the x axis of every curve
PROJECT = "genlab"  # W&B's default project
_TRIALS = "trials.json"  # in the folder of a sweep
_OF_A_WRITER = ("comment", "purge_step", "max_queue", "flush_secs", "filename_suffix")  # torch's SummaryWriter


class Wandb(WandbLogger):
    """Weights & Biases. Arguments that are null come from its environment variables (WANDB_PROJECT, WANDB_TAGS, ...) or
    its settings files, and else from the run."""

    def __init__(
        self,
        project: str | None = None,  # null: $WANDB_PROJECT, else genlab
        entity: str | None = None,
        name: str | None = None,  # null: <model>-<data>-<id>
        group: str | None = None,  # null: the sweep, if the run is a trial of one
        job_type: str | None = None,  # null: train
        tags: Sequence[str] | None = None,
        notes: str | None = None,
        mode: Literal["online", "offline", "disabled", "shared"] | None = None,  # null: online with a login
        id: str | None = None,
        save_dir: str | None = None,  # null: $WANDB_DIR, else the run's folder
        log_model: bool = False,  # also send the last checkpoint, as an artifact
    ):
        super().__init__(
            name=name,
            save_dir=save_dir or ".",
            id=id,
            project=project or PROJECT,
            log_model=log_model,
            entity=entity,
            group=group,
            job_type=job_type,
            tags=None if tags is None else list(tags),
            notes=notes,
            mode=mode,
        )


def check_passed_on(node: Any, path: str) -> None:
    """Raises ConfigError for an argument that one of Lightning's loggers would pass on to a service that lacks it."""
    if not isinstance(node, Mapping) or "_target_" not in node:
        return
    target = resolve(node["_target_"], path)
    others = [key for key in node if key not in parameters(target) and not key.startswith("_")]
    if not others:
        return
    if target is WandbLogger:
        import wandb

        check_known(
            others,
            target,
            path,
            {*parameters(target), *inspect.signature(wandb.init).parameters} - {"settings", "anonymous"},
        )
    elif target is TensorBoardLogger:
        check_known(others, target, path, {*parameters(target), *_OF_A_WRITER})


def named(node: Mapping[str, Any], run_name: str, run_dir: Path) -> dict[str, Any]:
    """The arguments of W&B's logger, with what is left open filled in: the user's environment and settings files come
    before the run's own."""
    import wandb

    known = wandb.setup().settings
    trial = (run_dir.parent / _TRIALS).exists()
    ours = {
        "project": known.project or PROJECT,
        "name": known.run_name or run_name,
        "group": known.run_group or (run_dir.parent.name if trial else None),
        "job_type": known.run_job_type or "train",
        "save_dir": str(wandb_folder(node, run_dir)),
    }
    return {**node, **{key: value for key, value in ours.items() if node.get(key) is None}}


def wandb_folder(node: Mapping[str, Any], run_dir: Path) -> Path:
    """The folder whose ``wandb/`` holds a run."""
    return Path(node.get("save_dir") or os.environ.get("WANDB_DIR") or run_dir)


def kept_by_wandb(config: Mapping[str, Any], run_dir: Path) -> str | None:
    """The local files of an offline W&B run, for ``wandb sync``; None if it was online or not used."""
    node = config.get("logger", {}).get("wandb")
    if node is None or os.environ.get("WANDB_MODE") != "offline":
        return None
    return f"{wandb_folder(node, run_dir)}/wandb/*-run-*{config['run_id']}"


def start(logger: Logger, told: Mapping[str, Any], curves: Sequence[str]) -> None:
    """Before the first step. ``told``: the config and other settings; ``curves``: names of numbers that evaluations
    will give."""
    if isinstance(logger, WandbLogger):
        logger.experiment.define_metric(EXAMPLES)
        logger.experiment.define_metric("*", step_metric=EXAMPLES, step_sync=True, overwrite=True)
    if isinstance(logger, TensorBoardLogger):
        _start_tensorboard(logger, told, curves)
    else:
        logger.log_hyperparams(dict(told))


def _start_tensorboard(logger: TensorBoardLogger, told: Mapping[str, Any], curves: Sequence[str]) -> None:
    """``hparams.yaml``, the page "hparams", where runs are compared by their settings, and the config as a text."""
    from torch.utils.tensorboard.summary import hparams

    logger.hparams = dict(told)
    (Path(logger.log_dir) / logger.NAME_HPARAMS_FILE).unlink(missing_ok=True)  # from before the run was continued
    lines = yaml.safe_dump(logger.hparams, sort_keys=False, allow_unicode=True).splitlines()
    logger.experiment.add_text("config", "".join(f"    {line}\n" for line in lines), 0)
    writer = logger.experiment._get_file_writer()
    for summary in hparams(dict(_flat(told)), dict.fromkeys(curves, 0.0)):  # only the names of the curves are used
        writer.add_summary(summary)
    logger.save()


def _flat(node: Mapping[str, Any], path: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in node.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{path}{key}.")
        else:
            found.append((f"{path}{key}", value if isinstance(value, bool | int | float | str) else str(value)))
    return found


def log(logger: Logger, metrics: Mapping[str, Any], step: int | None) -> None:
    """Numbers by name. TensorBoard has one x axis, so it gets the examples as its step."""
    if isinstance(logger, TensorBoardLogger) and EXAMPLES in metrics:
        step = int(metrics[EXAMPLES])
    logger.log_metrics(dict(metrics), step)


def show_image(logger: Logger, name: str, path: Path, caption: str, examples: int, step: int) -> None:
    """A picture of a run that has seen ``examples``."""
    if isinstance(logger, WandbLogger):
        import wandb

        log(logger, {name: [wandb.Image(str(path), caption=caption)], EXAMPLES: examples}, step)
    elif isinstance(logger, TensorBoardLogger):
        pixels = np.array(Image.open(path).convert("RGB"))
        logger.experiment.add_image(name, pixels, examples, dataformats="HWC")
        logger.experiment.add_text(f"{name}/caption", caption, examples)


def show_text(logger: Logger, name: str, texts: Sequence[str], examples: int, step: int) -> None:
    """Texts of a run that has seen ``examples``."""
    if isinstance(logger, WandbLogger):
        import wandb

        rows = [[examples, number, text] for number, text in enumerate(texts)]
        log(logger, {name: wandb.Table(columns=["examples", "sample", "text"], data=rows), EXAMPLES: examples}, step)
    elif isinstance(logger, TensorBoardLogger):
        indented = ("".join(f"    {line}\n" for line in text.splitlines()) for text in texts)
        logger.experiment.add_text(name, "\n---\n".join(indented), examples)


def summarize(logger: Logger, values: Mapping[str, Any]) -> None:
    """Set a run's summary, by which runs are sorted."""
    if isinstance(logger, WandbLogger) and values:
        logger.experiment.summary.update(dict(values))


def wants_model(logger: Logger) -> bool:
    return isinstance(logger, WandbLogger) and bool(logger._log_model)


def send_model(logger: Logger, files: Mapping[str, Path]) -> None:
    """Send the model as an artifact: ``files`` by their paths in it, which together form a run's folder."""
    if not isinstance(logger, WandbLogger):
        return
    import wandb

    artifact = wandb.Artifact(f"model-{logger.experiment.id}", type="model")
    for name, path in files.items():
        if path.is_dir():
            artifact.add_dir(str(path), name=name, policy="immutable")
        else:
            artifact.add_file(str(path), name=name, policy="immutable")  # where it is: it may be large
    logger.experiment.log_artifact(artifact, aliases=["latest"])


def better(
    best: Mapping[str, float], values: Mapping[str, float], directions: Mapping[str, Direction | None]
) -> dict[str, float]:
    """The best of each number so far, including ``values``; numbers without a better direction are left out."""
    costs = {"lower": lambda value: value, "higher": lambda value: -value, "one": lambda value: abs(value - 1)}
    found = dict(best)
    for name, value in values.items():
        direction = directions.get(name)
        if direction is not None and math.isfinite(value):
            found[name] = min(found.get(name, value), value, key=costs[direction])
    return found

"""What a run takes over from other runs: a trained part of its model, or the classifier that judges its samples."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf, open_dict

from genlab.checkpoint import read
from genlab.config.build import build, fits, parameters, resolve
from genlab.errors import ConfigError
from genlab.files.paths import read_path
from genlab.metrics.base import FeatureExtractor
from genlab.metrics.extractor.classifier import ClassifierFeatures
from genlab.model.base import Classifies, HasLatent, HasTokens
from genlab.run import run_folder


def adopt_runs(config: DictConfig) -> None:
    """Where an argument of the model, or the extractor, names the folder of another run, put that run's model in its
    place. ``pretrained``, or the extractor's ``run``, then says where its weights are.

    Raises ConfigError: there is no such run.
    """
    _adopt_extractor(config)
    if not isinstance(config.model, DictConfig) or "_target_" not in config.model:
        return  # no model: check says so
    annotations = parameters(resolve(config.model._target_, "model"))
    for name in list(config.model):
        run: Any = config.model._get_node(name)
        run = run._value()
        slot = _slot_of_a_run(annotations.get(name))
        if slot is not None and isinstance(run, str) and not OmegaConf.is_missing(config.model, name):
            folder = run_folder.find(run, f"model.{name}")
            model = run_folder.read_config(folder)["model"]
            kind = resolve(model["_target_"], "model")
            if slot is HasLatent and "latent_shape" not in model:
                raise ConfigError(
                    f"model.{name}={run}: a {kind.__name__} has no map of latents. Name a run of model=vae or vq_vae."
                )
            if slot is HasTokens and not hasattr(kind, "tokenize"):
                raise ConfigError(f"model.{name}={run}: a {kind.__name__} makes no tokens. Name a run of model=vq_vae.")
            with open_dict(config):
                config.model[name] = model
                config.pretrained[name] = str(folder)


def _adopt_extractor(config: DictConfig) -> None:
    run = OmegaConf.select(config, "metrics.extractor")
    if not isinstance(run, str):
        return
    folder = run_folder.find(run, "metrics.extractor")
    model = run_folder.read_config(folder)["model"]
    kind = resolve(model["_target_"], "model")
    if not fits(kind, Classifies, partial=False):
        raise ConfigError(
            f"metrics.extractor={run}: a {kind.__name__} is no judge of images. Name a run of model=classifier."
        )
    target = f"{ClassifierFeatures.__module__}.{ClassifierFeatures.__qualname__}"
    with open_dict(config):
        config.metrics.extractor = {"_target_": target, "model": model, "run": str(folder)}


def is_a_run(extractor: Any) -> bool:
    return isinstance(extractor, Mapping) and "run" in extractor


def _slot_of_a_run(annotation: Any) -> Any:
    """What another run is asked to have, if an argument with this annotation takes one."""
    return next((slot for slot in (HasLatent, HasTokens) if annotation in (slot, slot | None)), None)


def weights_of(run: Path) -> Mapping[str, torch.Tensor]:
    """Of a run's newest checkpoint, averaged where they are."""
    last = read.newest(run)
    return {**last.state, **last.content.get("ema", {})}


def build_extractor(node: Any, spec: Mapping[str, Any]) -> FeatureExtractor | None:
    """What gives features. One that comes from a run reads its weights there, as they are by now.

    Raises ConfigError: that run is gone, or was trained on images of another size than those of ``spec``.
    """
    slot: Any = FeatureExtractor | None
    if not is_a_run(node):
        return build(node, slot, "metrics.extractor")
    run = read_path(node["run"])
    if not (run / "config.yaml").exists():
        raise ConfigError(
            f"metrics.extractor is the classifier of the run {run}, which is not there any more. "
            "Put it back, or name another: metrics.extractor=outputs/..."
        )
    extractor = build(node, slot, "metrics.extractor", given={"weights": weights_of(run)})
    if spec["modality"] == "image" and extractor.shape != tuple(spec["shape"]):
        raise ConfigError(
            f"metrics.extractor={run} was trained on images of shape {extractor.shape}, "
            f"the data have {tuple(spec['shape'])}. Name another run, or change the data."
        )
    return extractor

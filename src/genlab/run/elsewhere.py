"""Pretrained parts of a run: puts them into its config, its folder, and its model.

Where an argument that is marked so (:data:`genlab.model.elsewhere.FROM_ELSEWHERE`) names a run, a file or ``hf:...``,
the node of that model takes the name's place, and ``pretrained`` keeps ``{where, sha256}`` by the argument's path. A
part from a run is copied into ``parts/`` of the run that uses it; files and ``hf:`` stay where they are, unless
``portable=true``, and must have the same hash whenever they are read again.

``sha256`` is ``???`` until it is known, and null in older runs, whose checkpoints hold the part's weights.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from pytorch_lightning import LightningModule, Trainer
from torch import nn

from genlab.checkpoint.tensors import as_bytes, read_file, sha256_of, tensors_in
from genlab.config.build import fits, marked, parameters, resolve
from genlab.config.slots import needs
from genlab.errors import CheckpointError, ConfigError
from genlab.files.atomic import prepare_folder, write_atomically
from genlab.metrics.extractor.classifier import ClassifierFeatures
from genlab.model.base import (
    Classifies,
    ComparesCaptions,
    HasDenoiser,
    HasFeatures,
    HasLatent,
    HasTokens,
    Model,
    ScoresAnswers,
)
from genlab.model.elsewhere import FROM_ELSEWHERE, misfit, prefixes, put_weights
from genlab.model.frozen_features import TrainedFeatures
from genlab.model.guidance.autoguidance import TrainedDenoiser
from genlab.model.guidance.classifier import ClassifiesNoisy
from genlab.model.renamed_weights import renamed
from genlab.run import run_folder
from genlab.run.adapter import take_adapter
from genlab.run.language_model import take_language_model
from genlab.run.origin import FILE, HUB, Origin, file_of, is_a_reference, origin_of, weights_of

UNKNOWN = "???"  # the hash of a part that was not read yet
METRICS = "metrics"
JUDGE = f"{METRICS}.extractor"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LACKS: dict[Any, tuple[str, str]] = {  # what an unsuitable model lacks, and models that have it
    HasLatent: ("has no latents with a spatial shape", "vae or vq_vae"),
    HasTokens: ("has no discrete tokens", "vq_vae"),
    ScoresAnswers: ("gives no rewards for answers", "reward"),
    Classifies: ("is not a classifier", "classifier"),
    HasFeatures: (
        "has no features of images",
        "classifier, contrastive, self_distillation, masked_autoencoder or jepa",
    ),
    TrainedDenoiser: ("is not a diffusion model", "diffusion"),
    ClassifiesNoisy: ("is not a classifier", "classifier model/noise=uniform"),
    HasDenoiser: ("is not a diffusion model", "diffusion"),
    TrainedFeatures: (
        "has no features of images",
        "classifier, contrastive, self_distillation, masked_autoencoder or jepa",
    ),
    ComparesCaptions: ("does not compare images with captions", "contrastive_text"),
}
Entry = Mapping[str, Any]


# --- into the config --------------------------------------------------------------------------------------------------


def adopt(config: DictConfig, typed: Sequence[str] = ()) -> None:
    """Replace places of pretrained models by the models' nodes, and record the places in ``pretrained``. ``typed``: the
    overrides of this command.

    Raises ConfigError: nothing is there, or a model that does not fit; CheckpointError: a part is named for a saved run
    that is not the one that its model was trained with.
    """
    _name_judge(config)
    _take_sizes(config)
    take_language_model(config, typed)
    take_adapter(config, typed)
    places = dict(_places(config))
    for path, (slot, value) in places.items():
        if isinstance(value, str):
            _adopt_one(config, path, slot, value)
    for path in list(config.pretrained):
        if path in places:
            continue
        if OmegaConf.select(config, path) is not None and str(path).startswith("model."):
            raise ConfigError(f"pretrained: {path} cannot be a pretrained part. Take it out of config.yaml.")
        with open_dict(config):
            del config.pretrained[path]  # another part was chosen since


def _adopt_one(config: DictConfig, path: str, slot: Any, where: str) -> None:
    origin = origin_of(where, _option(path))
    model = origin.model()
    _check_fits(model, slot, path, where)
    known = (config.pretrained.get(path) or {}).get("sha256") if path in config.pretrained else None
    sha256 = UNKNOWN
    if path.startswith("model.") and isinstance(known, str) and _SHA256.fullmatch(known):
        sha256 = known
        if origin.sha256() != known:
            raise CheckpointError(
                f"{path}={where} is not the part that this run was trained with: its SHA-256 is "
                f"{origin.sha256()[:12]}..., that one's {known[:12]}... Leave it out, or start a new run."
            )
    above, _, name = path.rpartition(".")
    with open_dict(config):
        OmegaConf.select(config, above)[name] = model
        config.pretrained[path] = {"where": _absolute(origin, where), "sha256": sha256}


def _absolute(origin: Origin, where: str) -> str:
    """The absolute path of a run, for the config of another."""
    return str(getattr(origin, "folder", where))


def _name_judge(config: DictConfig) -> None:
    """``metrics.extractor=outputs/...`` means the features of that model."""
    named = OmegaConf.select(config, JUDGE)
    if isinstance(named, str):
        target = f"{ClassifierFeatures.__module__}.{ClassifierFeatures.__qualname__}"
        with open_dict(config):
            config.metrics.extractor = {"_target_": target, "model": named}


def _take_sizes(config: DictConfig) -> None:
    """``start=hf:<folder>`` gives the settings of a network of that folder's kind, unless they are there."""
    start, model = OmegaConf.select(config, "start.where"), config._get_node("model")
    if not isinstance(start, str) or not start.startswith(HUB) or not isinstance(model, DictConfig):
        return
    if config.start.get("sha256") is not None:  # a run that has begun
        return
    network = model._get_node("network") if "network" in model else None
    if not isinstance(network, DictConfig) or "settings" not in network or network.settings is not None:
        return
    found = origin_of(start, "start").model()
    if found["_target_"] == network.get("_target_"):
        network.settings = found["settings"]


def _places(config: DictConfig) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """The arguments that may be pretrained parts, by path: their slot, and their value."""
    yield from _below(config._get_node("model"), "model")
    metrics: Any = config._get_node(METRICS)
    for name in map(str, metrics if isinstance(metrics, DictConfig) else ()):
        yield from _below(metrics._get_node(name), f"{METRICS}.{name}")


def _below(node: Any, path: str) -> Iterator[tuple[str, tuple[Any, Any]]]:
    if not isinstance(node, DictConfig) or node._is_none() or node._is_missing() or node._is_interpolation():
        return
    if "_target_" not in node:
        for key in node:  # may be a number
            yield from _below(node._get_node(key), f"{path}.{key!s}")
        return
    try:
        kind = resolve(node._get_node("_target_")._value(), path)  # type: ignore[union-attr]
    except ConfigError:  # which is said where the node is checked
        return
    found, known = marked(kind, FROM_ELSEWHERE), parameters(kind)
    for key in map(str, node):
        value: Any = node._get_node(key)
        if key in found and not value._is_missing() and not value._is_interpolation():
            plain = value if isinstance(value, DictConfig) else value._value()
            if not _is_another_name(plain, found[key]):
                yield f"{path}.{key}", (found[key], plain)
        if key in known:
            yield from _below(value, f"{path}.{key}")


def _is_another_name(value: Any, slot: Any) -> bool:
    """Whether a string in a slot that takes other names too, of published models, is one of these: neither a run, nor a
    folder of runs, nor a file of a part."""
    if not isinstance(value, str) or str not in get_args(slot):
        return False
    return not value.endswith(FILE) and not run_folder.is_run_or_holds_runs(value)


def _check_fits(model: Mapping[str, Any], slot: Any, path: str, where: str) -> None:
    options = get_args(slot) if get_origin(slot) in (Union, UnionType) else (slot,)
    kind = resolve(model["_target_"], path)
    for option in (option for option in options if option not in (NoneType, str)):
        has_map = option is not HasLatent or "latent_shape" in model
        if fits(kind, option, partial=False) and has_map:
            return
        lacks, having = _LACKS.get(option, ("", ""))
        if not lacks:
            raise ConfigError(f"{path}={where}: a {kind.__name__} does not fit here. {needs(option)}")
        raise ConfigError(f"{_option(path)}={where}: a {kind.__name__} {lacks}. Name a run of model={having}.")


# --- into the folder --------------------------------------------------------------------------------------------------


def keep_parts(config: DictConfig, run: Path) -> None:
    """Note the hashes of parts that are new to the run in the folder ``run``, and copy there what comes from runs, or
    all of it with ``portable=true``. Of one process. Raises CheckpointError and StorageError."""
    for path, entry in _entries(config).items():
        if entry["sha256"] == UNKNOWN:
            origin = origin_of(_where(path, entry), path)
            is_copied = config.get("portable") or not is_a_reference(entry["where"])
            sha256 = keep_copy(origin.content(), run) if is_copied else origin.sha256()
            config.pretrained[path] = {"where": entry["where"], "sha256": sha256}


def keep_copy(content: bytes, run: Path) -> str:
    """Write a part into the folder of a run, unless it is there. -> its hash."""
    sha256 = sha256_of(content)
    path = file_of(run, sha256)
    prepare_folder(path.parent, run)
    if not path.exists():
        write_atomically(path, lambda file: file.write(content))
    return sha256


def keep_old_parts(config: DictConfig, model: Model, state: Mapping[str, torch.Tensor], run: Path) -> None:
    """For an older run, whose checkpoints hold its parts: write them into its folder, as they are in ``state``, the
    weights of its newest checkpoint. ``model``: with its networks, on any device. Raises CheckpointError."""
    for path, part in model.elsewhere.items():
        if config.pretrained[path].sha256 is not None:
            continue
        (beginning,) = prefixes(model, [part])
        own = {name.removeprefix(beginning): value for name, value in state.items() if name.startswith(beginning)}
        wrong = misfit(part.state_dict(), renamed(own, part.state_dict()))
        if wrong is not None:
            raise CheckpointError(f"the checkpoint of {run} does not hold {path} as in the config ({wrong}).")
        node = OmegaConf.to_container(OmegaConf.select(config, path), resolve=True)
        sha256 = keep_copy(as_bytes(own, node), run)  # type: ignore[arg-type]
        config.pretrained[path] = {"where": config.pretrained[path].where, "sha256": sha256}


def _entries(config: DictConfig) -> dict[str, Entry]:
    return OmegaConf.to_container(config.pretrained)  # type: ignore[return-value]


# --- into the model ---------------------------------------------------------------------------------------------------


def check_entries(pretrained: Any) -> dict[str, Entry]:
    """``pretrained`` of a config. Raises CheckpointError if it is not what a run writes."""
    for path, entry in pretrained.items():
        sha256 = entry.get("sha256") if isinstance(entry, Mapping) else 0
        is_hash = sha256 in (None, UNKNOWN) or (isinstance(sha256, str) and _SHA256.fullmatch(sha256))
        if not is_hash or not isinstance(entry.get("where"), str | None):
            raise CheckpointError(f"config.yaml is damaged (pretrained.{path} is not a place and a hash). Restore it.")
    return dict(pretrained)


def weights_at(path: str, entry: Entry, run: Path | None, verify: bool = True) -> dict[str, torch.Tensor]:
    """The weights of the part at ``path`` of a config. ``run``: the folder that keeps it, if one does.

    Raises CheckpointError: they are not there, or are not the ones that the run was trained with.
    """
    sha256 = entry["sha256"]
    if sha256 == UNKNOWN:
        return dict(weights_of(_where(path, entry), path))
    file = None if run is None else file_of(run, sha256)
    if file is not None and file.exists():
        content = read_file(file, run)
        if verify and sha256_of(content) != sha256:
            raise CheckpointError(f"{file} is damaged or was changed: its SHA-256 is not its name. Put the file back.")
        return tensors_in(content, file)
    where = _where(path, entry)
    if not is_a_reference(where):
        is_judge = path.startswith(f"{METRICS}.")
        other = f"name another: {_option(path)}=outputs/..." if is_judge else "start a new run"
        raise CheckpointError(f"{file} is missing; it holds {path} as trained by {where}. Put it back, or {other}.")
    try:
        origin = origin_of(where, path)
    except ConfigError as error:
        raise CheckpointError(f"{error} This run was trained with it.") from error
    if verify and (found := origin.sha256()) != sha256:
        raise CheckpointError(
            f"{where} is not the {path} that this run was trained with: its SHA-256 is {found[:12]}..., it was "
            f"{sha256[:12]}... Put that back, or start a new run."
        )
    return dict(origin.weights())


def _where(path: str, entry: Entry) -> str:
    if isinstance(entry["where"], str):
        return entry["where"]
    raise CheckpointError(
        f"{path} of this run is read from {entry.get('named', 'elsewhere')}, and the run was not made by a command of "
        f"yours, so it needs your consent. To allow it, type {_option(path)}={entry.get('named', '...')}"
    )


def _option(path: str) -> str:
    """What a user types for the part at ``path``."""
    return path.removesuffix(".model") if path.startswith(JUDGE) else path


def put_part(part: nn.Module, weights: Mapping[str, torch.Tensor], where: Any) -> None:
    """Raises CheckpointError if the weights are not of the part, whose networks are made."""
    own = part.state_dict()
    wrong = misfit(own, renamed(weights, own))
    if wrong is not None:
        raise CheckpointError(f"the checkpoint of {where} is not of the model in its config ({wrong}).")
    put_weights(part, weights)


def put_parts(model: Model, pretrained: Mapping[str, Entry], run: Path | None) -> None:
    """Give the parts of a model, whose networks are made, their weights. Raises CheckpointError."""
    for path, part in model.elsewhere.items():
        put_part(part, weights_at(path, pretrained[path], run), pretrained[path]["where"])


def check_parts(pretrained: Mapping[str, Entry], run: Path) -> None:
    """Before a run goes on. Raises CheckpointError if a part of its model is gone or was changed."""
    for path, entry in pretrained.items():
        if entry["sha256"] is not None and path.startswith("model."):
            weights_at(path, entry, run)


class PutParts(pl.Callback):
    """Gives the parts of a model their weights when a trainer has made its networks, on all processes the same."""

    def __init__(self, pretrained: Mapping[str, Entry], run: Path | None = None):
        self.pretrained, self.run = dict(pretrained), run

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Model)
        known = trainer.strategy.broadcast(self.pretrained)  # the first process alone knows hashes that are new
        for path, part in pl_module.elsewhere.items():
            put_part(part, weights_at(path, known[path], self.run, verify=False), known[path]["where"])

"""Adapters of new runs: trained runs whose weights are merged, and ``start.adapter=``, an adapter of peft."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor

from genlab.checkpoint.tensors import as_bytes, sha256_of
from genlab.config.build import build, parameters, resolve
from genlab.config.overrides import name_of, parse
from genlab.errors import ConfigError
from genlab.interop.peft import PeftFolder
from genlab.model.adapter.lora import UPDATES, adapted_maps, adapter_names, merged, quantizations
from genlab.model.base import Model
from genlab.model.elsewhere import misfit
from genlab.run.origin import HUB, Origin, RunOrigin

OPTION = "start.adapter"
_OWN = ("dropout", "quantization")  # options of the adapter that are the user's, also of one that has been trained
NETWORK = "network."  # before the names of its weights, in the state dict of a model


def take_adapter(config: DictConfig, typed: Sequence[str]) -> None:
    """Put the adapter that ``start.adapter`` names into a new run's config. Raises ConfigError: it is not known, or
    another was typed."""
    start: Any = config.get("start")
    where = start.get("adapter") if isinstance(start, DictConfig) else None
    if not isinstance(where, str) or start.get("sha256") is not None:
        return
    family = OmegaConf.select(config, "model._target_")
    if not isinstance(family, str) or "adapter" not in parameters(resolve(family, "model")):
        raise ConfigError(f"{OPTION}={where}: this model takes no adapter. Use model=transformer")
    node = PeftFolder(where, OPTION).node()
    model: Any = OmegaConf.to_container(config.model)
    before = model.get("adapter") or {}
    for override in parse(typed):
        path, _, name = name_of(override).rpartition(".")
        if path != "model.adapter":
            continue
        if name in _OWN:
            node[name] = before.get(name, node[name])
        elif before.get(name) != node.get(name):
            raise ConfigError(f"{override.input_line}: the adapter is that of {OPTION}={where}. Leave it out.")
    with open_dict(config):
        config.model.adapter = node


def without_updates(
    origin: Origin, found: Mapping[str, Tensor], model: Model, trains_on: bool
) -> tuple[dict[str, Tensor], bool]:
    """The weights ``found`` at ``origin``, and whether an adapter of theirs was merged into them. ``trains_on``: not
    one of the sizes, the scale and the quantization of that of ``model``."""
    if not any(f".{UPDATES}." in name for name in found):
        return dict(found), False
    node = origin.config["model"] if isinstance(origin, RunOrigin) else origin.model()
    theirs: Model = build(node, Model, "model")
    with torch.device("meta"):
        theirs.configure_model()
    if trains_on and _adapter_of(theirs) == _adapter_of(model):
        return dict(found), False
    return merged(theirs, found), True


def _adapter_of(model: Model) -> dict[str, Any]:
    return {
        f"{name}.{part}": (layer.scale, layer.in_features, layer.rank, layer.parts[part])
        for name, layer in adapted_maps(model)
        for part in layer.updates
    } | {name: weight.quantization for name, weight in quantizations(model).items()}


def adapter_from(where: str, base: Mapping[str, Tensor], base_where: str, model: Model) -> dict[str, Tensor]:
    """The weights of the adapter of peft in the folder ``where``, by their names in the state dict of ``model``.

    Args:
        base: the weights that ``model`` starts from
        base_where: where they are from

    Raises ConfigError: it is an adapter of another base, or of other sizes.
    """
    folder = PeftFolder(where, OPTION)
    weights = {f"{NETWORK}{name}": value for name, value in folder.weights().items()}
    if folder.base_sha256 not in (None, sha256_of(as_bytes(base, {}))):
        raise ConfigError(
            f"{OPTION}={where}: it was trained on other weights than start={base_where} (their SHA-256 differ). Name "
            "its own base in start="
        )
    named, here = _last(folder.base), _last(base_where.removeprefix(HUB))
    if folder.base_sha256 is None and base_where.startswith(HUB) and named not in ("", here):
        raise ConfigError(
            f"{OPTION}={where}: its base is {folder.base}, and not start={base_where}. Name that base in start=, or, "
            "if they are the same, in its adapter_config.json (base_model_name_or_path)."
        )
    own = model.state_dict()
    wrong = misfit({name: own[name] for name in adapter_names(model)}, weights)
    if wrong is not None:
        raise ConfigError(f"{OPTION}={where}: it is not of this model ({wrong}). Name its own base in start=")
    return weights


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]

"""``start=<run>``: the pretrained weights of a new run, all or some of them, and those that it freezes.

They are read once, before the first step. A run that goes on has them in its checkpoints and never looks for them
again, so the run they came from may be gone by then.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning import LightningModule, Trainer

from genlab.checkpoint.tensors import as_bytes, sha256_of
from genlab.config.build import check, resolve
from genlab.errors import ConfigError
from genlab.model.adapter.lora import adapter_names, dense, merged, quantizations, quantized
from genlab.model.base import Model
from genlab.model.elsewhere import copied, misfit, own_weights, prefixes, put_weights
from genlab.model.freezing import like
from genlab.model.renamed_weights import renamed
from genlab.run.adapter import adapter_from, without_updates
from genlab.run.origin import HasSettings, Origin, RunOrigin, is_of_another_library, origin_of

OPTION = "start"


@dataclass(frozen=True)
class Start:
    """Initial weights, by their names in the state dict of the new model."""

    weights: Mapping[str, torch.Tensor]
    sha256: str  # of them, before any were quantized
    told: str  # what they are, in a line
    cost: dict[str, float]  # examples and FLOPs that they were trained with; {}: nobody knows


def check_start(node: Any) -> None:
    """Raises ConfigError if ``start`` of a config is neither null nor a place with patterns."""
    if node is None:
        return
    if not isinstance(node, Mapping) or not isinstance(node.get("where"), str):
        raise ConfigError(f"{OPTION} must be the folder of a run: {OPTION}=outputs/<model>-<data>/<run>")
    check(node.get("only"), Sequence[str] | None, f"{OPTION}.only")
    check(node.get("freeze"), Sequence[str] | None, f"{OPTION}.freeze")
    check(node.get("adapter"), str | None, f"{OPTION}.adapter")


def begins_elsewhere(config: Mapping[str, Any]) -> bool:
    """Whether a new run of a resolved ``config`` has, or needs, weights that were trained before."""
    return config.get(OPTION) is not None or config["model"].get("adapter") is not None or _has_to_begin_trained(config)


def _has_to_begin_trained(config: Mapping[str, Any]) -> bool:
    return bool(getattr(resolve(config["model"]["_target_"], "model"), "begins_trained", False))


def read_start(config: Mapping[str, Any], model: Model) -> Start | None:
    """The initial weights of a resolved ``config``; None: random. ``model``: its own, on any device. Where the network
    without its adapter has to be what the run begins with, adapters that are there are merged.

    Raises ConfigError: there is no such run, its weights do not fit, or a pattern matches none.
    """
    node = config.get(OPTION)
    updates = adapter_names(model)
    if node is None and updates and not model.adapts_part:
        raise ConfigError(
            f"model/adapter: an adapter is trained on weights that are there, and those here are random. Name some: "
            f"{OPTION}=outputs/<model>-<data>/<run>"
        )
    if node is None and model.begins_trained:
        raise ConfigError(
            f"a {type(model).__name__} learns on from a model that has been trained. Name its run: "
            f"{OPTION}=outputs/<model>-<data>/<run>"
        )
    if node is None:
        return None
    if node.get("adapter") and node["only"] and model.base_is_reference:
        raise ConfigError(
            f"{OPTION}.only={node['only']}: the adapter of {OPTION}.adapter is merged, into all weights that it was "
            "trained on. Leave start.only= out."
        )
    origin = origin_of(node["where"], OPTION)
    state, is_merged = {name: value.to("meta") for name, value in model.state_dict().items()}, False
    kept, own = (_without_copies(model, each) for each in (state, dense(model, state)))
    place = ""
    if is_of_another_library(node["where"]):
        own, found = _of_a_part(model, origin, own, node["where"])
    else:
        if isinstance(origin, HasSettings) and not node["only"]:
            origin.check_settings(config)
        trains_on = not node.get("adapter") and not model.base_is_reference
        weights, is_merged = without_updates(origin, origin.weights(), model, trains_on)
        weights, place = _of_features(weights, origin, model)
        found = own_weights(model, weights)
        own = kept if any(name in found for name in {*kept} - {*own}) else own  # of a run with the same numbers
        found = _without_copies(model, renamed(found, own))
    new = {name for name in own if name in updates or name.startswith(model.begins_new)}
    own = {name: value for name, value in own.items() if name in found or name not in new}  # new: as they are
    wanted = _named(node["only"], own)
    taken = {name: found[name] for name in wanted if name in found}
    wrong = misfit({name: own[name] for name in wanted}, taken if node["only"] else found)
    if wrong is not None:
        raise ConfigError(
            f"{OPTION}={node['where']}: its weights are not those of this model ({wrong}). {_rest(own, found)}"
        )
    number = len(taken)
    if node.get("adapter"):
        taken |= adapter_from(node["adapter"], taken, node["where"], model)
        if model.base_is_reference:
            taken = merged(model, taken)
    taken |= copied(model.copies, taken)
    sha256 = sha256_of(as_bytes(taken, {}))
    frozen = f"; frozen: {', '.join(node['freeze'])}" if node["freeze"] else ""
    told = f"{_kind(origin)} weights of {node['where']}, {number} of {len(own)} tensors{place}{frozen}"
    if is_merged:
        told += "; its adapter is merged into them"
    if node.get("adapter"):
        told += f"; adapter of {node['adapter']}{', merged' if model.base_is_reference else ''}"
    if getattr(origin, "is_language_model", False):
        told += "; texts are tokenized by its own tokenizer"
    if quantizations(model):
        told += "; quantized"
    return Start(quantized(model, taken), sha256, told, dict(origin.cost()) if isinstance(origin, RunOrigin) else {})


def _without_copies(model: Model, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Those that do not begin as copies of others."""
    return {name: value for name, value in weights.items() if not name.startswith(tuple(model.copies))}


def _of_a_part(
    model: Model, origin: Origin, own: Mapping[str, torch.Tensor], where: str
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """What the one part of ``model`` of an ``hf:`` folder's kind has, and what it gets, by the names of the whole
    model's state dict ``own``. Raises ConfigError: there is no such part."""
    target = origin.model()["_target_"]
    named = [
        name
        for name, module in model.named_modules()
        if f"{type(module).__module__}.{type(module).__qualname__}" == target
        and not f"{name}.".startswith(tuple(model.copies))
    ]
    if len(named) != 1:
        raise ConfigError(
            f"{OPTION}={where}: the model has no {target.rpartition('.')[2]} to put the weights into. Use "
            "model/network=unet2d_condition, for a language model model=transformer, or name a run of the same model=."
        )
    beginning = f"{named[0]}."
    frozen = prefixes(model, getattr(model, "elsewhere", {}).values())
    inside = {name: value for name, value in own.items() if name.startswith(beginning) and not name.startswith(frozen)}
    return inside, {f"{beginning}{name}": value for name, value in origin.weights().items()}


def _of_features(weights: dict[str, torch.Tensor], origin: Origin, model: Model) -> tuple[dict[str, torch.Tensor], str]:
    """``weights`` of which those of the network that gives features have the name that it has in ``model``, and what is
    said of that."""
    if model.feature_network is None:
        return weights, ""
    theirs = getattr(resolve(origin.model()["_target_"], OPTION), "feature_network", None)
    if theirs in (None, model.feature_network):
        return weights, ""
    before, after = f"{theirs}.", f"{model.feature_network}."
    moved = {after + name.removeprefix(before) if name.startswith(before) else name: w for name, w in weights.items()}
    return moved, f"; its {before}* are {after}* here"


def _named(patterns: Sequence[str] | None, own: Mapping[str, Any]) -> list[str]:
    """The names in ``own`` that match; all of them without patterns."""
    if not patterns:
        return list(own)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in own):
            raise ConfigError(f"{OPTION}.only: nothing of the model is called {pattern}.{like(pattern, list(own))}")
    return [name for name in own if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _kind(origin: Any) -> str:
    return {"ema": "averaged", "best": "best"}.get(getattr(origin, "kind", "raw"), "raw")


def _rest(own: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> str:
    """What to do where not all fits."""
    fitting = {name for name in own if name in found and own[name].shape == found[name].shape}
    if not fitting:
        return "None of them fits: name a run of the same model=, or begin without start=."
    return f"Take over what fits: {OPTION}.only=[{','.join(_patterns(fitting, list(own), ''))}]"


def _patterns(fitting: Iterable[str], names: Sequence[str], beginning: str) -> Iterator[str]:
    """Few patterns that match all of ``fitting`` that begin so, and no other of ``names``."""
    inside = [name for name in names if name.startswith(beginning)]
    if all(name in fitting for name in inside):
        yield f"{beginning}*"
        return
    for head in dict.fromkeys(name[len(beginning) :].partition(".")[0] for name in inside):
        if f"{beginning}{head}" not in inside:
            yield from _patterns(fitting, inside, f"{beginning}{head}.")
        elif f"{beginning}{head}" in fitting:
            yield f"{beginning}{head}"


class BeginFrom(pl.Callback):
    """Puts weights into a model that a trainer has just made, those of the first process on all of them."""

    def __init__(self, start: Start):
        self.start = start

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        put_weights(pl_module, trainer.strategy.broadcast(self.start.weights))

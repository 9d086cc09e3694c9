"""Adapters of several runs, put on the model of another that they were trained on."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch import Tensor

from genlab.errors import ConfigError
from genlab.model.adapter.lora import adapter_names, changes, quantizations
from genlab.model.base import Model, TeachesWord
from genlab.run import run_folder
from genlab.run.load import load_run

OPTION = "adapters"


@torch.no_grad()
def add_adapters(model: Model, run: Path, adapters: Sequence[str], weights: Sequence[float] | None) -> None:
    """Add to the weights of ``model``, that of ``run``, the updates of other runs' adapters, each times its weight (1
    by default); and to its words those that these have learned.

    Raises ConfigError: an adapter was trained on other weights, or ``weights`` are not as many.
    """
    if weights is not None and len(weights) != len(adapters):
        raise ConfigError(
            f"adapter_weights: there are {len(weights)}, and of {OPTION} {len(adapters)}. Give one to each."
        )
    own = dict(model.named_parameters(remove_duplicate=False))
    loaded = [_loaded(where, own, run) for where in adapters]
    for theirs, weight in zip(loaded, weights or [1.0] * len(loaded), strict=True):
        state = dict(theirs.named_parameters(remove_duplicate=False))
        for name, change in changes(theirs, state).items():
            own[name].add_(weight * change.to(own[name].device))
    for where, theirs in zip(adapters, loaded, strict=True):
        if isinstance(theirs, TeachesWord):
            try:
                theirs.teach(model)
            except ValueError as error:
                raise ConfigError(f"{OPTION}={where}: {error}. Leave it out.") from error


def _loaded(where: str, own: Mapping[str, Tensor], run: Path) -> Model:
    """The model of a run with an adapter, whose frozen weights are ``own``."""
    folder = run_folder.find(where, OPTION)
    theirs, _ = load_run(OmegaConf.create(run_folder.read_config(folder)), folder)
    if not adapter_names(theirs) and not isinstance(theirs, TeachesWord):
        raise ConfigError(
            f"{OPTION}={where}: it has no adapter. Name a run of model/adapter=lora, or of model=concept."
        )
    if quantizations(theirs):
        raise ConfigError(
            f"{OPTION}={where}: its adapter was trained on quantized weights, which {run} has not. Name a run of "
            "model.adapter.quantization=null."
        )
    every = dict(theirs.named_parameters(remove_duplicate=False))
    frozen = {name: p for name, p in every.items() if not p.requires_grad}
    for name in changes(theirs, every):
        if name not in own or own[name].shape != frozen[name].shape:
            raise ConfigError(f"{OPTION}={where}: {run} has not the network that it was trained on ({name}).")
    for name, value in frozen.items():
        if name in own and not torch.equal(own[name], value):
            raise ConfigError(
                f"{OPTION}={where}: it was trained on other weights than those of {run} ({name} differs). Name the run "
                "that it began with: run=outputs/<model>-<data>/<run>"
            )
    return theirs

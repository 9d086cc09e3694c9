"""Reads the command line of a sweep into a plan, without starting anything."""

import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from optuna.pruners import BasePruner, NopPruner

from genlab import started_as
from genlab.config.build import build, parameters, resolve
from genlab.config.overrides import line_of, name_of, parse
from genlab.config.tree import OF_SWEEPS, ConfigTree, check_complete, resolved
from genlab.errors import ConfigError, did_you_mean
from genlab.files.paths import read_path
from genlab.launcher.base import Launcher
from genlab.sweep.metric import Direction, Metric, choose_metric
from genlab.sweep.proposals import Proposals
from genlab.sweep.space import Space, read_space

_NOT_THE_SEARCH = ("name", "storage", "retries", "stall_timeout", "grace", "n_trials")  # how, not what is swept
_MOST_EXAMPLES = 50
_OF_ONE_RUN = ("run", "folder", "allow_changes")


class Settings:
    """The settings of all sweeps; others under ``sweep`` belong to the class that proposes its trials."""

    def __init__(
        self,
        pruner: BasePruner,
        name: str | None = None,
        metric: str | None = None,
        direction: Direction | None = None,
        storage: str | None = None,
        retries: int = 1,  # of a trial that a signal ended
        stall_timeout: float | None = 1800,  # seconds
        grace: float = 120,  # seconds
    ):
        """Raises ConfigError for a value out of its range."""
        if name is not None and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,79}", name):
            raise ConfigError(f"sweep.name={name} must consist of letters, digits, '.', '_' and '-', at most 80.")
        if retries < 0 or grace < 0 or (stall_timeout is not None and stall_timeout <= 0):
            raise ConfigError(
                f"sweep.retries={retries} and sweep.grace={grace} must be >= 0, and "
                f"sweep.stall_timeout={stall_timeout} above 0 or null."
            )
        self.pruner, self.name, self.metric, self.direction, self.storage = pruner, name, metric, direction, storage
        self.retries, self.stall_timeout, self.grace = retries, stall_timeout, grace


SETTINGS = ("pruner", "name", "metric", "direction", "storage", "retries", "stall_timeout", "grace")


@dataclass(frozen=True)
class Plan:
    folder: Path
    command: str  # as it was typed
    space: Space
    settings: Settings
    proposals: Proposals
    launcher: Launcher
    metric: Metric | None
    tree: ConfigTree  # of the trials
    flags: tuple[str, ...]  # of each trial's command, before its overrides


def compose_sweep(overrides: Sequence[str], config_dir: str | None) -> DictConfig:
    """The sweep's own config. Raises ConfigError."""
    own = [line_of(o) for o in parse(overrides, sweep=True) if _is_own(name_of(o))]
    for override in parse(own, sweep=True):
        if override.is_sweep_override():
            raise ConfigError(f"{override.input_line} names several values, and a sweep takes one. Choose one of them.")
    return ConfigTree(config_dir, primary="sweep").compose(own)


def read_plan(overrides: Sequence[str], config_dir: str | None) -> Plan:
    """Raises ConfigError for all mistakes that can be found before the first trial."""
    config = compose_sweep(overrides, config_dir)
    check_complete(config)
    values = resolved(config)
    tree = ConfigTree(config_dir)
    typed = [o for o in parse(overrides, sweep=True) if not _is_own(name_of(o))]
    for override in typed:
        if name_of(override) in _OF_ONE_RUN:
            raise ConfigError(f"{override.input_line} is for one run, and a sweep makes its own runs. Leave it out.")
    of_trials = [o for o in typed if name_of(o) != "outputs"]
    outputs = next((str(o.value()) for o in reversed(typed) if name_of(o) == "outputs"), "outputs")
    space = read_space(of_trials, tree.groups())

    own = values["sweep"]
    of_all = {name: own[name] for name in SETTINGS if name in own}
    of_proposals = {name: value for name, value in own.items() if name not in SETTINGS}
    target = f"{Settings.__module__}.{Settings.__qualname__}"
    settings: Settings = build({"_target_": target, **of_all}, Settings, "sweep")
    _check_names(of_proposals)
    proposals: Proposals = build(of_proposals, Proposals, "sweep")
    launcher: Launcher = build(values["launcher"], Launcher, "launcher")
    proposals.check(space)
    if not of_trials and not of_proposals.get("id"):
        raise ConfigError(
            "-m makes a trial for each combination of values, and none are given. Name some: "
            "seed=0,1,2 or model=gan,vae; or leave -m out for one run."
        )
    metric = None
    if settings.metric is not None or proposals.judges or not isinstance(settings.pruner, NopPruner):
        metric = choose_metric(settings.metric, settings.direction, lambda: _example(tree, space))
    name = settings.name or derived_name(typed, {k: v for k, v in own.items() if k not in _NOT_THE_SEARCH})
    flags = () if config_dir is None else ("--config-dir", config_dir)
    command = f"{started_as.command('train -m')} {shlex.join([*flags, *overrides])}"
    return Plan(read_path(outputs) / name, command, space, settings, proposals, launcher, metric, tree, flags)


def _check_names(node: Mapping[str, Any]) -> None:
    """Raises ConfigError for a setting that this sweep does not have."""
    known = [*SETTINGS, *parameters(resolve(node["_target_"], "sweep"))]
    for name in node:
        if name != "_target_" and name not in known:
            guess = did_you_mean(name, known, prefix="sweep.") or f" This sweep has: {', '.join(known)}."
            raise ConfigError(f"unknown option 'sweep.{name}'.{guess}")


def _is_own(name: str) -> bool:
    return re.split("[./]", name)[0] in OF_SWEEPS


def _example(tree: ConfigTree, space: Space) -> Mapping[str, Any]:
    """The config of the first valid combination. Raises ConfigError if there is none."""
    failure: ConfigError | None = None
    names = [axis.name for axis in space.axes]
    for choice in islice(product(*(axis.values or [repr(axis.low)] for axis in space.axes)), _MOST_EXAMPLES):
        try:
            config = tree.compose(space.overrides(dict(zip(names, choice, strict=True))))
            return OmegaConf.to_container(config)  # type: ignore[return-value]
        except ConfigError as error:
            failure = failure or error
    assert failure is not None
    raise failure


def derived_name(typed: Sequence[Any], own: Mapping[str, Any]) -> str:
    """``gan-vae-cifar10-3fa2c1``: the choices, and a hash of all that defines the sweep."""
    chosen = [
        part
        for group in ("experiment", "model", "data")
        for override in typed
        if name_of(override) == group
        for part in re.findall(r"[A-Za-z0-9_]+", str((override.input_line or "").partition("=")[2]))
    ]
    lines = sorted(line_of(override) for override in typed if name_of(override) != "outputs")
    told = hashlib.sha256(repr((lines, sorted(own.items(), key=repr))).encode()).hexdigest()[:6]
    return "-".join([*(["-".join(chosen)[:60].strip("-")] if chosen else ["sweep"]), told])

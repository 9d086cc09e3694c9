"""Restrictions on configs of saved runs: consent must be typed again, and untrusted runs may not choose services.

Consent counts only if it is typed in this command, whoever made the run. Callbacks, loggers, strategies and profilers
write files and open connections: a run that no command of this user made (:mod:`genlab.trust.own_runs`) may name only
those on a short list, and others have to be typed.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from genlab.config.overrides import name_of, parse
from genlab.config.renamed import current_name
from genlab.errors import CheckpointError, ConfigError

# Arguments of parts that allow something; a config that is read from a run holds each as it is by default.
CONSENT: dict[str, Any] = {"allow_code": False, "allow_root": False}

# By part of a config: the classes that a run of somebody else may name there; a package ends with a dot.
LISTED: dict[str, tuple[str, ...]] = {
    "callbacks": ("genlab.",),
    "logger": (
        "genlab.logger.tracking.Wandb",
        "pytorch_lightning.loggers.CSVLogger",
        "pytorch_lightning.loggers.TensorBoardLogger",
    ),
    "trainer": (
        "pytorch_lightning.Trainer",
        "pytorch_lightning.strategies.DDPStrategy",
        "pytorch_lightning.strategies.ModelParallelStrategy",
        "genlab.checkpoint.sharded_strategy.ShardedStrategy",
    ),
}
_KEY_OF_CONSENT = re.compile(rf"(?:{'|'.join(CONSENT)})['\"]?\s*:")
_MOST, _LONGEST = 1000, 10_000  # overrides of a run, and characters of one
_REFERENCE = re.compile(r"\$\{[\w.]+\}")  # to another option; any other may read the environment


def withdraw_consent(config: DictConfig, typed: Sequence[str]) -> None:
    """Reset options that give consent to their defaults, unless they are typed now."""
    for path, name, value in list(_leaves(OmegaConf.to_container(config, resolve=False), "")):
        if name in CONSENT and value != CONSENT[name] and not is_typed(path, typed):
            with open_dict(config):
                OmegaConf.update(config, path, CONSENT[name], merge=False)


def grants(word: str) -> bool:
    """Whether a word of a command line gives consent, directly or within a part typed as a whole, so that a command
    has to repeat it to continue its run."""
    name, _, value = word.partition("=")
    return name.rpartition(".")[2] in CONSENT or _KEY_OF_CONSENT.search(value) is not None


def is_typed(path: str, typed: Sequence[str]) -> bool:
    """Whether the value at ``path`` is typed in this command. A choice of a group, ``logger=[none]``, is not a
    value."""
    for override in parse(typed):
        name, value = name_of(override), override.value()
        if path == name or (path.startswith(f"{name}.") and _holds_mapping(value)):
            return True
    return False


def _holds_mapping(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(item, dict) for item in value))


def withhold_places(config: DictConfig) -> None:
    """Remove the places of pretrained parts from an untrusted run: nothing is read there, on this disk or from a hub,
    unless it is typed now. Parts in the run's own folder are used. What it started from is never read again."""
    start = config.get("start")
    if isinstance(start, DictConfig) and start.get("sha256") is None:
        with open_dict(config):
            config.start.sha256 = "unknown"
    pretrained: Any = OmegaConf.to_container(config.get("pretrained") or OmegaConf.create({}), resolve=False)
    for path, entry in pretrained.items():
        if isinstance(entry, Mapping) and isinstance(entry.get("where"), str):
            with open_dict(config):
                config.pretrained[path] = {"where": None, "named": entry["where"], "sha256": entry.get("sha256")}


def check_overrides(saved: Sequence[str], run: str) -> None:
    """Raises CheckpointError if overrides of an untrusted run would read this user's environment, or are
    too many."""
    if len(saved) > _MOST or any(len(override) > _LONGEST for override in saved):
        raise CheckpointError(
            f"overrides.yaml of {run} holds more than {_MOST:,} overrides, or one of more than "
            f"{_LONGEST:,} characters. Write [] into it to go on without them."
        )
    if found := next((override for override in saved if "${" in _REFERENCE.sub("", override)), None):
        raise CheckpointError(
            f"overrides.yaml of {run} holds '{found[:100]}', whose interpolation would be read here. Put a value there."
        )


def check_watchers(config: DictConfig, run: str, typed: Sequence[str]) -> None:
    """Raises ConfigError, before anything is imported, for a class that an untrusted run may not name."""
    nodes: Any = OmegaConf.to_container(config, resolve=False)
    for part, listed in LISTED.items():
        for path, name, value in _leaves(nodes.get(part), part):
            if name != "_target_" or _is_listed(current_name(str(value)), listed) or is_typed(path, typed):
                continue
            owner = path.removesuffix("._target_")
            without = "" if part == "trainer" and owner == part else f", or leave it out: {_without(owner)}"
            raise ConfigError(
                f"{path}: {run} was not made by a command of yours, and its config names {value}, which "
                f"only you can ask for. If you want it, type {path}={value}{without}"
            )


def leave_out_watchers(config: DictConfig) -> None:
    """Remove loggers and callbacks, for a command that does not train."""
    with open_dict(config):
        config.callbacks, config.logger = {}, {}
        config.trainer = {name: config.trainer[name] for name in ("_target_", "accelerator") if name in config.trainer}


def _without(path: str) -> str:
    """The option that leaves out the part that a node at ``path`` belongs to."""
    part = ".".join(path.split(".")[:2])
    return f"{part}=auto" if part == "trainer.strategy" else f"{part}=null"


def _is_listed(target: str, listed: Sequence[str]) -> bool:
    return any(target == entry or (entry.endswith(".") and target.startswith(entry)) for entry in listed)


def _leaves(node: Any, path: str) -> Iterator[tuple[str, str, Any]]:
    """Path, name and value of all leaves, at any depth."""
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        below = f"{path}.{key}" if path else str(key)
        if isinstance(value, Mapping | list):
            yield from _leaves(value, below)
        else:
            yield below, str(key), value

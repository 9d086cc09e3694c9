"""Overview of a run before it starts: its main settings, and what differs from the defaults."""

import functools
import logging
import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from genlab.config.differences import differences
from genlab.config.overrides import line_of, name_of, parse
from genlab.config.tree import FILLED_LATER, START, ConfigTree
from genlab.data.base import DataModule
from genlab.errors import ConfigError
from genlab.redaction import printable, redacted
from genlab.trust.places import typed_config_dir

_PRESETS = ("experiment", "preset", "debug")  # the values that they set are listed one by one
_WIDTH = 100  # characters
_NOT_TOLD = (*FILLED_LATER, "outputs", START)  # shown in a line of their own
_OF_THE_DATA = "model.told"  # filled in too, in a continued run
_log = logging.getLogger(__name__)


def clip_batch_size(config: DictConfig, data: DataModule, overrides: Sequence[str]) -> None:
    """Lower the default batch size to the number of training examples, in the data and in ``config``."""
    if any(name_of(override) == "data.batch_size" for override in parse(overrides)):
        return
    count, devices = len(data.dataset("train")), config.trainer.get("devices", 1)
    fits = count - count % (devices if isinstance(devices, int) and devices > 0 else 1)
    if not 0 < fits < data.batch_size:
        return
    if os.environ.get("LOCAL_RANK", "0") == "0":
        _log.warning(
            f"there are {count} training examples, fewer than a batch of {data.batch_size}: "
            f"data.batch_size={fits} is used."
        )
    data.batch_size = config.data.batch_size = fits


def show(config: DictConfig, data: DataModule, parameters: int, overrides: Sequence[str]) -> None:
    """Print ten lines, and below them the values that differ from the defaults."""
    plain: dict[str, Any] = redacted(OmegaConf.to_container(config, resolve=False))
    lines = []
    for name, text in _that_matter(plain, data, parameters).items():
        wrapped = textwrap.wrap(f"{name:12}{text}", _WIDTH, subsequent_indent=" " * 12)
        lines += [line.replace("\N{NO-BREAK SPACE}", " ") for line in wrapped]
    changed = _changed(plain, overrides)
    if changed:
        width = min(40, max(map(len, changed)))
        lines += ["", "changed from the defaults (all options: config.yaml of the run)"]
        lines += [f"  {path:{width}}  {value}" for path, value in changed.items()]
    print("\n".join(printable(line) for line in lines), flush=True)


def _that_matter(plain: Mapping[str, Any], data: DataModule, parameters: int) -> dict[str, str]:
    model, spec, budget, trainer = plain["model"], plain["spec"], plain["budget"], plain["trainer"]
    parts = [
        f"{name}\N{NO-BREAK SPACE}{_class(node)}"
        for name, node in model.items()
        if isinstance(node, Mapping) and "_target_" in node and name != "optimizer"  # it has a line of its own
    ]
    count, label = len(data.dataset("train")), data.spec.label
    what = data.unit
    shape = "x".join(map(str, spec["shape"]))
    classes = f", {label.size} classes" if label else ""
    optimizer = model.get("optimizer") or {}
    rate = optimizer.get("lr") if isinstance(optimizer, Mapping) else None
    unit = _class(budget).lower()
    value = f"{budget['value']:,}" if isinstance(budget["value"], int) else f"{budget['value']:g}"
    steps = f" = {-(-budget['value'] // data.batch_size):,} steps" if unit == "examples" else ""
    evaluation = plain["evaluation"]
    metrics = [name for name in plain["metrics"] if name != "extractor"]
    measured = f"{', '.join(metrics)}; {evaluation['num_samples']:,} samples" if metrics else "nothing"
    return {
        "model": f"{_class(model)}, {parameters:,} parameters",
        "parts": ", ".join(parts),
        "data": f"{_class(plain['data'])}: {count:,} {what} of {shape}{classes}",
        "batch": f"{data.batch_size} examples a step",
        "budget": f"{value} {unit}{steps}",
        "optimizer": f"{_class(optimizer)}" + ("" if rate is None else f", learning rate {rate:g}"),
        "measured": measured,
        "trainer": f"{trainer.get('accelerator', 'auto')}, devices {trainer.get('devices', 1)}, "
        f"precision {trainer.get('precision', '32-true')}",
        "seed": str(plain["seed"]),
        "logger": ", ".join(name for name, node in (plain.get("logger") or {}).items() if node is not None) or "none",
    }


def _class(node: Any) -> str:
    return str(node.get("_target_", "")).rpartition(".")[2] if isinstance(node, Mapping) else str(node)


def _changed(plain: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, str]:
    """The parts that were chosen, and the values that differ from what these parts have by default."""
    tree = ConfigTree(typed_config_dir())
    groups = tree.groups()
    chosen = [override for override in parse(overrides) if name_of(override) in groups]
    told = {name_of(override): line_of(override).partition("=")[2] for override in chosen}
    of_parts = tuple(line_of(override) for override in chosen if name_of(override) not in _PRESETS)
    try:
        default = _defaults(typed_config_dir(), of_parts)
    except ConfigError:  # parts that only fit together with the run's preset: list all typed options
        return told | {name_of(o): line_of(o).partition("=")[2] for o in parse(overrides)}
    found = differences(default, {key: value for key, value in plain.items() if key not in _NOT_TOLD})
    return told | {path: _shown(now) for path, (_, now) in found.items() if path != _OF_THE_DATA}


@functools.lru_cache(maxsize=64)
def _defaults(config_dir: str | None, choices: tuple[str, ...]) -> dict[str, Any]:
    config: Any = OmegaConf.to_container(ConfigTree(config_dir).compose(choices))
    return {key: value for key, value in redacted(config).items() if key not in _NOT_TOLD}


def _shown(value: Any) -> str:
    text = _class(value) if isinstance(value, Mapping) and "_target_" in value else str(value)
    return "null" if value is None else text if len(text) <= 56 else f"{text[:53]}..."

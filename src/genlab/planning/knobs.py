"""Finds the numbers in a model's config that scale the widths and depths of its networks.

There is no list of names: every whole number of a network is doubled on the meta device, and its effect on the
weights tells what it is. In a wider network most tensors have another shape; in a deeper one there are more of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from torch import nn

from genlab.config.tree import resolved
from genlab.errors import ConfigError
from genlab.model.base import Model
from genlab.run.assemble import trial_model

_LARGER = 1.15  # times the weights when a number is doubled, at least; of a depth also times the tensors


@dataclass(frozen=True)
class Knob:
    """A number of the config that determines a network's size."""

    path: str  # e.g. model.network.width
    value: int
    kind: Literal["width", "depth"]


@dataclass(frozen=True)
class Size:
    """A size of the config's model, with some numbers multiplied."""

    width: float  # times that of the config
    depth: int
    changes: dict[str, int]  # values by path; empty: as it is configured
    parameters: int


def find_knobs(config: DictConfig) -> list[Knob]:
    """The widths and depths of all networks that are trained, one of each kind per network: the one with the largest
    effect.

    ``config``: with its ``spec``.
    """
    model = trial_model(plain(config))
    found: dict[tuple[str, str], tuple[float, Knob]] = {}
    for part, place in _parts(model):
        before = model.get_submodule(part)
        if place not in config.model or not any(p.requires_grad for p in before.parameters()):
            continue
        for path, value in _whole_numbers(OmegaConf.to_container(config.model[place]), f"model.{place}"):
            after = _part_of(changed(config, {path: 2 * value}), part)
            kind = None if after is None else _kind(before, after)
            if kind is None:
                continue
            assert after is not None
            growth = _weights(after) / _weights(before)
            if growth > found.get((part, kind), (0.0, None))[0]:
                found[part, kind] = growth, Knob(path, value, kind)
    return [knob for _, knob in found.values()]


def size_of(config: DictConfig, knobs: Sequence[Knob], width: float, depth: int) -> Size | None:
    """The model with its widths and depths multiplied; None if that is impossible."""
    factors = {"width": width, "depth": float(depth)}
    changes = {}
    for knob in knobs:
        value = knob.value * factors[knob.kind]
        if value != int(value) or value < 1:
            return None
        if value != knob.value:
            changes[knob.path] = int(value)
    if any(factor != 1 and kind not in {knob.kind for knob in knobs} for kind, factor in factors.items()):
        return None
    try:
        model = trial_model(plain(changed(config, changes)))
    except ConfigError:
        return None
    return Size(width, depth, changes, sum(p.numel() for p in model.parameters() if p.requires_grad))


def changed(config: DictConfig, changes: Mapping[str, Any]) -> DictConfig:
    """A copy of the config with other values at some paths; interpolations of them follow."""
    other = config.copy()
    for path, value in changes.items():
        OmegaConf.update(other, path, value, merge=False)
    return other


def plain(config: DictConfig) -> dict[str, Any]:
    """The resolved config of a run that gets no folder."""
    trial = config.copy()
    trial.run_dir, trial.run_id = "", ""
    return resolved(trial)


def _whole_numbers(node: Any, path: str) -> Iterator[tuple[str, int]]:
    """The whole numbers in a plain node at any depth, without interpolations."""
    for key, value in node.items() if isinstance(node, dict) else ():
        yield from _whole_numbers(value, f"{path}.{key}")
        if type(value) is int and value > 0:
            yield f"{path}.{key}", value


def _parts(model: Model) -> Iterator[tuple[str, str]]:
    """The networks of a model, and where their settings stand: of those that another copies, that one's."""
    yield from ((part, part) for part, _ in model.named_children())
    yield from ((copied.removesuffix("."), copy.removesuffix(".")) for copied, copy in model.copies.items())


def _part_of(config: DictConfig, part: str) -> nn.Module | None:
    try:
        return trial_model(plain(config)).get_submodule(part)
    except ConfigError:  # such a number cannot be doubled
        return None


def _kind(before: nn.Module, after: nn.Module) -> Literal["width", "depth"] | None:
    if _weights(after) < _LARGER * _weights(before):
        return None
    shapes, others = ([p.shape for p in part.parameters()] for part in (before, after))
    if len(others) > _LARGER * len(shapes):
        return "depth"
    reshaped = sum(shape != other for shape, other in zip(shapes, others, strict=False))
    return "width" if reshaped > len(shapes) / 2 else None


def _weights(part: nn.Module) -> int:
    return max(1, sum(p.numel() for p in part.parameters() if p.requires_grad))

"""Reads the numbers of one evaluation from ``summary.json`` and ``evaluation-*.json``."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from genlab.errors import ConfigError
from genlab.former_names import current_metrics, current_number

TOLERANCE = 0.01  # two evaluations of the same weights on other hardware differ by less
MOST_NUMBERS, MOST_BASELINES = 1_000, 100  # of one evaluation
LONGEST_NAME = 200  # characters of a metric's
Direction = Literal["lower", "higher", "one"]  # what is better; "one": as near to 1 as can be


@dataclass(frozen=True)
class Measurement:
    """The numbers of one evaluation, and their protocol."""

    values: dict[str, float]
    protocol: dict[str, Any]
    directions: dict[str, Direction | None]  # of the values, by name
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)


def read_measurement(report: Mapping[str, Any], path: Path) -> Measurement:
    protocol, baselines = report.get("protocol"), report.get("baselines", {})
    settings = protocol.get("metrics", {}) if isinstance(protocol, dict) else None
    if not isinstance(protocol, dict) or not isinstance(settings, dict) or not isinstance(baselines, dict):
        raise ConfigError(f"{path}: not what genlab writes (no protocol in it, or a damaged one).")
    directions = report.get("directions", {})
    if not isinstance(directions, dict) or any(d not in (*get_args(Direction), None) for d in directions.values()):
        raise ConfigError(f"{path}: not what genlab writes (unknown directions).")
    if len(baselines) > MOST_BASELINES:
        raise ConfigError(f"{path}: not what genlab writes ({len(baselines):,} baselines).")
    rows = {str(name): numbers(values, path) for name, values in baselines.items()}
    protocol = protocol | ({"metrics": current_metrics(settings)} if settings else {})
    directions = {current_number(name): direction for name, direction in directions.items()}
    return Measurement(numbers(report.get("metrics"), path), protocol, directions, rows)


def numbers(values: Any, path: Path) -> dict[str, float]:
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: not what genlab writes (no metrics in it).")
    if len(values) > MOST_NUMBERS or any(len(name) > LONGEST_NAME for name in values):
        raise ConfigError(f"{path}: not what genlab writes ({len(values):,} metrics, or names that are too long).")
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"{path}: {name} is not a number.")
    return {current_number(name): value for name, value in values.items()}


def contradict(a: Mapping[str, float], b: Mapping[str, float]) -> bool:
    """Whether two measurements by one protocol cannot have the same weights and sampling settings."""
    pairs = [(a[name], b[name]) for name in a.keys() & b.keys()]
    return any(not math.isclose(x, y, rel_tol=TOLERANCE, abs_tol=1e-3) for x, y in pairs if x == x or y == y)


def joined(a: Measurement, b: Measurement) -> Measurement:
    """The metrics of both; the numbers of ``a`` win."""
    settings = {**(b.protocol.get("metrics") or {}), **(a.protocol.get("metrics") or {})}
    protocol, directions = {**a.protocol, "metrics": settings}, b.directions | a.directions
    return Measurement(b.values | a.values, protocol, directions, b.baselines or a.baselines)


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings that differ between two protocols. A metric that only one has does not count."""
    first, second = _flat(a, ""), _flat(b, "")
    metrics = [set(p.get("metrics") or {}) for p in (a, b)]
    found = {}
    for key in dict.fromkeys([*first, *second]):
        parts = key.split(".")
        only_one_measured = parts[0] == "metrics" and len(parts) > 1 and parts[1] not in metrics[0] & metrics[1]
        if not only_one_measured and first.get(key) != second.get(key):
            found[key] = first.get(key), second.get(key)
    return found


def _flat(node: Any, path: str) -> dict[str, Any]:
    if not isinstance(node, dict) or not node:
        return {} if node == {} else {path: node}
    return {k: v for name, value in node.items() for k, v in _flat(value, f"{path}.{name}" if path else name).items()}

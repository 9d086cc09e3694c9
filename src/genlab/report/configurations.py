"""Groups runs that differ only in their seed into configurations."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from genlab.report.names import LEFT_OUT
from genlab.report.runs import Run

SEED = "seed"


def configurations(runs: Sequence[Run]) -> list[tuple[int, ...]]:
    """The places of the runs of each configuration, by seed; in the order in which they come first.

    A run that repeats a seed is a configuration of its own, and so is one without a seed.
    """
    groups: dict[str, list[int]] = {}
    for i, run in enumerate(runs):
        groups.setdefault(json.dumps(without_seeds(run.config), sort_keys=True, default=str), []).append(i)
    found: list[tuple[int, ...]] = []
    for group in groups.values():
        for alike in _alike([runs[i] for i in group]):
            places = [group[k] for k in alike]
            first: dict[int, int] = {}
            for i in places:
                seed = runs[i].seed
                if seed is not None:
                    first.setdefault(seed, i)
            found += [tuple(first[seed] for seed in sorted(first))] if first else []
            found += [(i,) for i in places if i not in first.values()]
    return sorted(found, key=min)


def _alike(runs: Sequence[Run]) -> list[list[int]]:
    """Runs whose configs differ only in seeds that follow the run's seed, unlike ``data.seed=7``."""
    seeds = [_seeds(run.config, "") for run in runs]
    own = [
        path
        for path in dict.fromkeys(path for s in seeds for path in s)
        if path != SEED and len({s.get(path) for s in seeds}) > 1 and any(s.get(path) != s.get(SEED) for s in seeds)
    ]
    groups: dict[str, list[int]] = {}
    for i, values in enumerate(seeds):
        groups.setdefault(repr([values.get(path) for path in own]), []).append(i)
    return list(groups.values())


def without_seeds(config: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """A config without seeds, and without settings that do not affect the model."""
    kept = {}
    for name, value in config.items():
        below = f"{path}.{name}" if path else str(name)
        if name != SEED and below not in LEFT_OUT:
            kept[name] = without_seeds(value, below) if isinstance(value, dict) else value
    return kept


def _seeds(config: Mapping[str, Any], path: str) -> dict[str, str]:
    """All seeds of a config as text, by their paths."""
    found: dict[str, str] = {}
    for name, value in config.items():
        below = f"{path}.{name}" if path else str(name)
        if below in LEFT_OUT:
            continue
        if name == SEED:
            found[below] = json.dumps(value, default=str)  # what a file says need be no number
        elif isinstance(value, dict):
            found |= _seeds(value, below)
    return found

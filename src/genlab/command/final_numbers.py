"""The final report of a run: quality, copying and cost, with the better direction and the floor of each number."""

from collections.abc import Mapping
from typing import Any

from genlab.data.base import DataModule
from genlab.evaluation.evaluation import Evaluation
from genlab.evaluation.protocol import Result
from genlab.model.base import GenerativeModel

_COPYING = frozenset({"nn_distance", "nn_distance_ratio", "memorized", "authpct"})
_MOST = 2000  # largest number of samples with an automatic floor; for more: evaluate baselines=true
_BETTER = {"lower": "lower", "higher": "higher", "one": "near 1", None: ""}


def floor_of(final: Result, evaluation: Evaluation, data: DataModule, model: GenerativeModel) -> dict[str, float]:
    """The same numbers for real training examples instead of samples: a model is better only by chance. Empty
    where there are too few of them, or too many to measure by default. On one process."""
    count = evaluation.num_samples
    if not evaluation.metrics or count > _MOST:
        return {}
    try:
        made = evaluation.on(data).sized(count, model).baselines(count, evaluation.seed)
        if "floor" not in made:
            return {}
        scored = evaluation.score(made["floor"], data)
    except Exception:  # from a metric that only works on samples: the run's own numbers are kept
        return {}
    numbers = {name: value for name, value in scored.values.items() if name in final.values}
    return {name: value for name, value in numbers.items() if final.keys.get(name) not in _COPYING}  # they are copies


def number_lines(final: Result, floor: Mapping[str, float]) -> list[str]:
    """Two groups, quality and copying, one number per line: its value, its better direction, and its floor."""
    if not final.values:
        return []
    width = max(len(name) for name in final.values)
    groups: dict[str, list[str]] = {"quality": [], "copying": []}
    for name, value in final.values.items():
        group = "copying" if final.keys.get(name) in _COPYING else "quality"
        better = _BETTER.get(final.directions.get(name), "")
        beside = f"{floor[name]:10.4f}" if name in floor else ""
        groups[group].append(f"    {name:{width}} {value:10.4f}  {better:7} {beside}".rstrip())
    head = f"{'':{width}} {'':10}  better  {'     floor' * bool(floor)}".rstrip()
    lines = []
    for group, numbers in groups.items():
        if numbers:
            lines += [f"  {group:{width + 2}}{head[width:]}".rstrip(), *numbers]
            head = ""
    if floor:
        lines.append("    floor: the same for real training data; a better value is chance")
    return lines


def cost_lines(final: Result, summary: Mapping[str, Any]) -> list[str]:
    """The cost of training and of a sample."""
    training = f"{summary['examples']:,} examples, {summary['flops']:.3g} FLOPs, {summary['seconds']:,.0f} s"
    size = f"{summary['parameters']:,} parameters, {summary['peak_memory_bytes'] / 2**20:,.0f} MiB at most"
    lines = [
        "  cost",
        f"    training   {training} ({summary['wall_seconds']:,.0f} s in total)",
        f"    size       {size}",
    ]
    if final.samples_per_second:
        each = final.evaluations_per_sample
        calls = "" if each is None else f", {each:g} evaluations of the network each"
        lines.append(f"    sampling   {final.samples_per_second:,.1f} samples/s{calls}")
    return lines

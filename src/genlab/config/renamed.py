"""Classes that have moved: configs of runs that were saved before name them by where they were."""

from typing import Any

RENAMED: dict[str, str] = {
    "genlab.metrics.label_agreement.LabelAgreement": "genlab.metrics.label_accuracy.LabelAccuracy",
    "genlab.metrics.evaluation.Evaluation": "genlab.evaluation.evaluation.Evaluation",
    "genlab.sharded_strategy.ShardedStrategy": "genlab.checkpoint.sharded_strategy.ShardedStrategy",
}


def current_name(name: str) -> str:
    """What the class of a ``_target_`` is called today."""
    return RENAMED.get(name, name)


def with_current_names(node: Any) -> Any:
    """Plain values with every ``_target_`` called as it is today, so that runs of before and after a move compare."""
    if isinstance(node, dict):
        return {
            key: current_name(value) if key == "_target_" and isinstance(value, str) else with_current_names(value)
            for key, value in node.items()
        }
    return [with_current_names(value) for value in node] if isinstance(node, list) else node

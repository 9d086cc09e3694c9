"""Classes that have moved, by their former names, which configs of older runs contain."""

from typing import Any

RENAMED: dict[str, str] = {
    "genlab.metrics.label_agreement.LabelAgreement": "genlab.metrics.label_accuracy.LabelAccuracy",
    "genlab.metrics.evaluation.Evaluation": "genlab.evaluation.evaluation.Evaluation",
    "genlab.sharded_strategy.ShardedStrategy": "genlab.checkpoint.sharded_strategy.ShardedStrategy",
}


def current_name(name: str) -> str:
    """The current name of the class of a ``_target_``."""
    return RENAMED.get(name, name)


def with_current_names(node: Any) -> Any:
    """Plain values with the current name in every ``_target_``, so that runs before and after a move can be
    compared."""
    if isinstance(node, dict):
        return {
            key: current_name(value) if key == "_target_" and isinstance(value, str) else with_current_names(value)
            for key, value in node.items()
        }
    return [with_current_names(value) for value in node] if isinstance(node, list) else node

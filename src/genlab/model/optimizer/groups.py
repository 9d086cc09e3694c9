"""The parameters of a transformer in the groups that its optimisers treat differently."""

from typing import Any

from torch import nn


def parameter_groups(network: nn.Module) -> list[dict[str, Any]]:
    """Three groups: the matrices of blocks (``hidden``), embeddings and output, and, not decayed, gains and biases."""
    inside = {id(p) for name, p in network.named_parameters() if ".blocks." in f".{name}"}
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2 and id(p) in inside], "hidden": True},
        {"params": [p for p in parameters if p.ndim >= 2 and id(p) not in inside], "hidden": False},
        {"params": [p for p in parameters if p.ndim < 2], "hidden": False, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]

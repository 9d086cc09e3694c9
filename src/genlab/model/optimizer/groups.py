"""Groups of a network's parameters that optimizers treat differently."""

from typing import Any

from torch import nn

from genlab.model.freezing import trained


def parameter_groups(network: nn.Module) -> list[dict[str, Any]]:
    """Three groups: matrices and convolutions of blocks (``hidden``), embeddings, first and last layers, and, not
    decayed, gains and biases. A network without ``blocks`` has no ``hidden`` parameters."""
    inside = {id(p) for name, p in network.named_parameters() if ".blocks." in f".{name}"}
    parameters = trained(network)
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2 and id(p) in inside], "hidden": True},
        {"params": [p for p in parameters if p.ndim >= 2 and id(p) not in inside], "hidden": False},
        {"params": [p for p in parameters if p.ndim < 2], "hidden": False, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def parameters_for(optimizer: Any, network: nn.Module) -> Any:
    """The argument of an optimizer factory: groups if it takes them (``takes_groups``), parameters otherwise."""
    made = getattr(optimizer, "func", optimizer)  # of a partial
    return parameter_groups(network) if getattr(made, "takes_groups", False) else trained(network)

"""The blocks of a network: the repeated parts that it is sharded by, and whose activations may be computed twice."""

from collections.abc import Iterator

from torch import nn


def blocks_of(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The elements of every ``nn.ModuleList`` named ``blocks``, by their names in ``network``; outer ones first."""
    for name, module in network.named_modules():
        if name.rpartition(".")[2] == "blocks" and isinstance(module, nn.ModuleList):
            yield from ((f"{name}.{i}", block) for i, block in enumerate(module))

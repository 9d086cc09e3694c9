"""The blocks of a network: the repeated parts that it is sharded by, whose activations may be computed twice, and whose
outputs can be read."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn


def blocks_of(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The elements of every ``nn.ModuleList`` named ``blocks``, by their names in ``network``; outer ones first."""
    for name, module in network.named_modules():
        if name.rpartition(".")[2] == "blocks" and isinstance(module, nn.ModuleList):
            yield from ((f"{name}.{i}", block) for i, block in enumerate(module))


def block_outputs(network: nn.Module, run: Callable[[], Any], mean: bool = True) -> list[Tensor]:
    """What the blocks of ``network`` put out while ``run`` calls it, in the order in which they run: the means over
    places or tokens, (N, D) each, or with ``mean=False`` as they are.

    Of blocks within blocks the outer ones; of a block of several streams the first. Compiled networks run uncompiled,
    since hooks are no part of their graphs.
    """
    found: list[Tensor] = []

    def keep(block: nn.Module, arguments: Any, output: Any) -> None:
        main = output[0] if isinstance(output, tuple) else output
        found.append(_mean(main) if mean else main)

    is_compiled = any(module._compiled_call_impl is not None for module in network.modules())
    # What this imports takes seconds
    with torch.compiler.set_stance("force_eager") if is_compiled else nullcontext(), _hooked(network, keep):
        run()
    return found


def block_output(network: nn.Module, run: Callable[[], Any], layer: float, mean: bool = True) -> Tensor:
    """The one of :func:`block_outputs` at the depth ``layer`` in [0, 1], rounded to the nearest block. Raises
    ValueError: the network has no blocks."""
    found = block_outputs(network, run, mean)
    if not found:
        raise ValueError(
            f"a {type(network).__name__} has no nn.ModuleList named blocks, where repeated layers stand: there is no "
            "output of a block to read."
        )
    return found[round(layer * (len(found) - 1))]


@contextmanager
def _hooked(network: nn.Module, hook: Any) -> Iterator[None]:
    outer: dict[str, nn.Module] = {}
    for name, block in blocks_of(network):
        if not any(name.startswith(f"{other}.") for other in outer):
            outer[name] = block
    handles = [block.register_forward_hook(hook) for block in outer.values()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _mean(x: Tensor) -> Tensor:
    """(N, D, h, w), (N, T, D) or (N, D) -> (N, D) float32."""
    if x.ndim == 3:
        return x.float().mean(dim=1)
    return x.float().flatten(2).mean(dim=2) if x.ndim > 3 else x.float()

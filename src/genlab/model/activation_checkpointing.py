"""Activation checkpointing (Chen et al. 2016): memory for time. Of a network's blocks only the inputs are kept for the
backward pass, which computes what is between them a second time.

Gradients are the same to the last bit: the second pass has the random numbers of the first (dropout), its autocast, and
the state that it began with; what it makes of that (statistics of batch norm, the power iteration of spectral norm) is
thrown away, so that a step changes it once. Operations of the second pass are not counted, as those are not that an
attention kernel computes again: a budget of FLOPs ends where it would without.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from genlab.model.blocks import blocks_of

_passes = 0  # second passes being made; not of a thread: autograd has threads of its own


def is_recomputing() -> bool:
    """Whether a block is computed a second time now, in a backward pass."""
    return _passes > 0


def checkpoint_blocks(network: nn.Module, frozen: Iterable[nn.Module] = ()) -> int:
    """Have the blocks of ``network`` (:func:`blocks_of`) computed twice in training, but for those of its parts that
    are not trained, ``frozen``. -> how many it has.

    Names in the state dict stay as they are. A block within a block is left to the outer one. To be called twice does
    no more than once. Persistent buffers of a block may change in training, others are taken to be constants.
    """
    found: dict[str, nn.Module] = {}
    left_out = {module for part in frozen for module in part.modules()}
    for name, block in blocks_of(network):
        if block not in left_out and not any(name.startswith(f"{outer}.") for outer in found):
            found[name] = block
    for block in found.values():
        # What changes a state twice if it is traced in one way and computed again in another is not traced at all.
        forward = torch.compiler.disable(_forward_of_state) if any(_state(block)) else _forward
        # A partial, not a closure: a deep copy of a block calls itself. Beside hooks: those of FSDP gather weights
        # before either pass and are not part of it.
        block.forward = partial(forward, block)
    return len(found)


def _forward(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    run = partial(type(block).forward, block)
    if not torch.is_grad_enabled() or not block.training:
        return run(*args, **kwargs)
    if torch.compiler.is_compiling():  # which makes a graph of both passes
        return checkpoint(run, *args, use_reentrant=False, **kwargs)
    return checkpoint(run, *args, use_reentrant=False, context_fn=_second_pass, **kwargs)


def _forward_of_state(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    run = partial(type(block).forward, block)
    if not torch.is_grad_enabled() or not block.training:
        return run(*args, **kwargs)
    before = [(module, name, value.clone()) for module, name, value in _state(block)]
    return checkpoint(run, *args, use_reentrant=False, context_fn=partial(_second_pass, before), **kwargs)


def _state(block: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    """Buffers that may change in training: whose, the name, the value."""
    for module in block.modules():
        for name, value in module._buffers.items():
            if value is not None and name not in module._non_persistent_buffers_set:
                yield module, name, value


def _second_pass(
    before: Iterable[tuple[nn.Module, str, Tensor]] = (),
) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """What the first and the second pass run in."""
    return nullcontext(), _SecondPass(before)


class _SecondPass:
    """Begins with the state ``before``, which is not that of now. Entered more than once where a graph is kept."""

    def __init__(self, before: Iterable[tuple[nn.Module, str, Tensor]]):
        self.before = before

    def __enter__(self) -> None:
        global _passes
        _passes += 1
        self.now = [(module, name, module._buffers[name]) for module, name, _ in self.before]
        for module, name, value in self.before:
            module._buffers[name] = value.clone()

    def __exit__(self, *_: object) -> None:
        global _passes
        _passes -= 1
        for module, name, value in self.now:
            module._buffers[name] = value

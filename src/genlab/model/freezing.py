"""Freezes parameters by patterns of their names."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from genlab.errors import ConfigError, did_you_mean

_SHOWN = 3  # names in a message


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Parameters of ``model`` whose names match one of ``patterns`` (``*``, ``?``, ``[...]``) get no gradients from now
    on. Parts that were frozen before are left alone.

    Raises ConfigError: a pattern matches nothing that is trained, or nothing is left to train.
    """
    if not patterns:
        return
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trained:  # made and frozen before
        return
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name, _ in model.named_parameters()):
            raise ConfigError(f"start.freeze: no parameter is called {pattern}.{like(pattern, list(trained))}")
    chosen = [p for name, p in trained.items() if any(fnmatchcase(name, pattern) for pattern in patterns)]
    if len(chosen) == len(trained):
        raise ConfigError("start.freeze names every parameter, so there is nothing to train. Leave some out.")
    for p in chosen:
        p.requires_grad_(False)


def frozen_norms(model: nn.Module, patterns: Sequence[str]) -> Iterator[_BatchNorm]:
    """The batch norms of ``model`` whose running statistics have names that match one of ``patterns``. In eval mode
    they use these, and leave them as they are."""
    for name, module in model.named_modules() if patterns else ():
        if isinstance(module, _BatchNorm) and any(fnmatchcase(f"{name}.running_mean", pattern) for pattern in patterns):
            yield module


def like(pattern: str, names: Sequence[str]) -> str:
    """A hint with existing names, for a pattern that matches none."""
    guess = did_you_mean(pattern, list(names))
    shown = ", ".join([*names[:_SHOWN], "..."] if len(names) > _SHOWN else names)
    return f"{guess} Names are like {shown}; * stands for any characters."


def trained(*networks: nn.Module) -> list[nn.Parameter]:
    """The parameters that are trained, for an optimizer."""
    return [p for network in networks for p in network.parameters() if p.requires_grad]


@contextmanager
def without_gradients(network: nn.Module) -> Iterator[None]:
    """Gradients pass through ``network`` to its input, and none are kept for its own weights."""
    weights = [p for p in network.parameters() if p.requires_grad]
    for p in weights:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in weights:
            p.requires_grad_(True)

"""What models make of data on their way, read as features: the outputs of a network's blocks, and latents.

Networks keep their repeated layers in an ``nn.ModuleList`` named ``blocks`` (:mod:`genlab.model.blocks`), so that what
one of them puts out can be read without a line in the network.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from genlab.model.base import HasFeatures, Model
from genlab.model.blocks import blocks_of


@dataclass(frozen=True)
class Reading:
    """Where a family is read, unless a user names another place."""

    what: str  # in words, for messages and protocols
    layer: float | None = None  # depth in [0, 1]: 0 the first block that runs, 1 the last; None: no block is read
    noise_level: float | None = None  # sigma of the noise that is added to the data; None: none is


@runtime_checkable
class Represents(Protocol):
    """Models that are not trained for their features, and have some."""

    reading: ClassVar[Reading]

    def represent(self, x: Tensor, layer: float, noise_level: float) -> Tensor:
        """Images (N, C, H, W) on [-1, 1] -> (N, D), without any condition. A family whose :class:`Reading` has no
        ``layer`` or no ``noise_level`` does not look at it. A function of the example alone: noise is one of its
        content. The caller puts the model in eval mode."""
        ...


@runtime_checkable
class RepresentsTokens(Protocol):
    """Models of text whose hidden states can be read."""

    token_reading: ClassVar[Reading]

    def represent_tokens(self, tokens: Tensor, layer: float) -> Tensor:
        """Windows (N, T) int64 -> (N, T, D). The caller puts the model in eval mode."""
        ...


def is_represented(model: Model) -> bool:
    """Whether :func:`features_of` knows features of this model."""
    return isinstance(model, HasFeatures | Represents)


def features_of(model: Model, x: Tensor, layer: float | None = None, noise_level: float | None = None) -> Tensor:
    """Images (N, C, H, W) on [-1, 1] -> (N, D) float32: ``features`` of a model that has them, else what it makes of
    them on its way. None: the family's own place.

    Raises ValueError: the model has none, or none at such a place.
    """
    if (unknown := unknown_place(model, layer, noise_level)) is not None:
        raise ValueError(f"of a {type(model).__name__} {reading_of(model).what} are read, without a {unknown}.")
    if isinstance(model, HasFeatures):
        return model.features(x).flatten(1).float()
    assert isinstance(model, Represents)
    own = model.reading
    depth, sigma = (own.layer if layer is None else layer), (own.noise_level if noise_level is None else noise_level)
    return model.represent(x, depth or 0.0, sigma or 0.0).flatten(1).float()


def reading_of(model: Model) -> Reading:
    """Where a model is read, unless a user names another place. Raises ValueError: it has no features."""
    if isinstance(model, HasFeatures):
        return Reading("features")
    if not isinstance(model, Represents):
        raise ValueError(f"a {type(model).__name__} has no features of images.")
    return model.reading


def unknown_place(model: Model, layer: float | None, noise_level: float | None) -> str | None:
    """The name of the option, ``layer`` or ``noise_level``, that names a place which the model does not have; None:
    there is no such. Raises ValueError: it has no features."""
    own = reading_of(model)
    asked = {"layer": (layer, own.layer), "noise_level": (noise_level, own.noise_level)}
    return next((name for name, (value, known) in asked.items() if value is not None and known is None), None)


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

    with torch.compiler.set_stance("force_eager"), _hooked(network, keep):
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

"""What models make of data on their way, read as features: the outputs of a network's blocks, and latents.

Networks keep their repeated layers in an ``nn.ModuleList`` named ``blocks`` (:mod:`genlab.model.blocks`), so that what
one of them puts out can be read without a line in the network.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor

from genlab.model.base import HasFeatures, Model
from genlab.model.blocks import block_output as block_output
from genlab.model.blocks import block_outputs as block_outputs


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

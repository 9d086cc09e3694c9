"""Perturbed-attention guidance (Ahn et al. 2024): a model is led away from itself without self-attention."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from genlab.model.guidance.noise_range import NoiseRange


@runtime_checkable
class PassesValues(Protocol):
    """Self-attention that can be the identity: every position then has its own value, and looks at no other."""

    passes_values: bool


class PerturbedAttention:
    """D + s (D - D_perturbed), where the self-attention of some layers of D_perturbed is the identity (eq. 10 and 11):
    what is led away from is a picture whose parts do not heed each other. It needs no condition, and no training
    without one. 0 is no guidance. A call costs two evaluations."""

    def __init__(
        self,
        strength: float = 2.0,  # s
        layers: Sequence[int] | None = None,  # of self-attention, counted from 0 in their order; None: the middle one
        low: float = 0.0,  # sigma
        high: float = float("inf"),
    ):
        """Raises ValueError: no layer is named."""
        if layers is not None and not layers:
            raise ValueError("model.guidance.layers=[] names no layer. Use model.guidance.layers=null for the middle.")
        self.strength, self.layers, self.range = strength, layers, NoiseRange(low, high)

    def check_network(self, network: nn.Module) -> None:
        """Raises ValueError: the network has no self-attention, or not these layers."""
        self.perturbed_in(network)

    def perturbed_in(self, network: nn.Module) -> list[Any]:
        """The layers of a network that are perturbed. Raises ValueError, as :meth:`check_network`."""
        found: list[Any] = [module for module in network.modules() if isinstance(module, PassesValues)]
        if not found:
            raise ValueError(
                f"model/guidance=perturbed_attention perturbs self-attention, and a {type(network).__name__} has none. "
                "Use model/guidance=classifier_free, or a network of model/network=unet, dit or mmdit."
            )
        wanted = [(len(found) - 1) // 2] if self.layers is None else self.layers
        if wrong := [number for number in wanted if not 0 <= number < len(found)]:
            raise ValueError(
                f"model.guidance.layers names layer {wrong[0]} of self-attention, and a {type(network).__name__} of "
                f"this size has {len(found)}, counted from 0. Use model.guidance.layers=[0]."
            )
        return [found[number] for number in wanted]

    def guide(
        self,
        denoise: Any,  # genlab.model.parts.ConditionalDenoiser
        condition: Mapping[str, Tensor] | None,
        nothing: Mapping[str, Tensor] | None,
    ) -> Callable[[Tensor, Tensor], Tensor]:
        plain = lambda x, sigma: denoise(x, sigma, condition)  # noqa: E731
        if self.strength == 0:
            return plain
        layers = self.perturbed_in(denoise.network)

        def guided(x: Tensor, sigma: Tensor) -> Tensor:
            clean = plain(x, sigma)
            with values_passed(layers):
                perturbed = plain(x, sigma)
            return clean + self.strength * (clean - perturbed)

        return self.range.within(guided, plain)


@contextmanager
def values_passed(layers: Sequence[PassesValues]) -> Iterator[None]:
    """Inside the block the self-attention of ``layers`` is the identity."""
    for layer in layers:
        layer.passes_values = True
    try:
        yield
    finally:
        for layer in layers:
            layer.passes_values = False

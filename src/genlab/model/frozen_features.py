"""Trained features of images, frozen, as a part of another model: what it asks of them, and their maps."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from genlab.model.blocks import block_outputs


class TrainedFeatures(Protocol):
    """A trained model with features of images: a classifier, or a self-supervised one."""

    shape: tuple[int, ...]  # of an image
    feature_network: str | None  # the name of the network that gives features

    def configure_model(self) -> None:
        """Make its networks."""
        ...

    def features(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) on [-1, 1] -> (N, D), of the order of 1."""
        ...


@runtime_checkable
class HasPatches(Protocol):
    """A network of features that has a vector for each patch of an image."""

    grid: tuple[int, int]  # patches in a column and in a row of them

    def tokens(self, image: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> (N, P, D), row by row, or with one more before them."""
        ...

    def of_patches(self, tokens: Tensor) -> Tensor:
        """What ``tokens`` gives, without the one more: (N, P, D)."""
        ...


def check_same_images(theirs: Sequence[int], shape: Sequence[int]) -> None:
    """Raises ValueError: the features are of images of a shape ``theirs``, which is not ``shape``."""
    if tuple(theirs) != tuple(shape):
        raise ValueError(
            f"the features are of images of shape {tuple(theirs)}, the data have {tuple(shape)}. Name another run, or "
            "change the data."
        )


def network_of(features: Any) -> nn.Module:
    """The network that gives the features of a model whose networks are made."""
    assert features.feature_network is not None
    network: nn.Module = features.get_submodule(features.feature_network)
    return network


def maps_of(features: Any, images: Tensor) -> list[Tensor]:
    """What the blocks of the network of features make of images (N, C, H, W), in the order in which they run:
    (N, C, h, w) each. Raises ValueError: what they put out is no map of places."""
    network = network_of(features)
    found = block_outputs(network, lambda: network(images), mean=False)
    return [as_map(x, images.shape[2:]) for x in found]


def as_map(x: Tensor, sides: Sequence[int]) -> Tensor:
    """What a block makes of images, or latents, of height and width ``sides``, as a map: (N, C, h, w) as it is;
    (N, T, C) vectors of places row by row, perhaps behind one more of the whole; (N, C) as one place. -> (N, C, h, w).

    Raises ValueError: there are not as many vectors as a grid of places with the same proportions has.
    """
    if x.ndim == 4:
        return x
    if x.ndim == 2:
        return x[:, :, None, None]
    height, width = sides
    for before in (0, 1):
        count = x.shape[1] - before
        h = round(math.sqrt(count * height / width))
        w = round(math.sqrt(count * width / height))
        if h * w == count and h * width == w * height:
            return x[:, before:].mT.unflatten(2, (h, w))
    raise ValueError(
        f"a block that puts out {x.shape[1]} vectors of an input of {height}x{width} has none for each place of a grid."
    )


@torch.no_grad()
def without_memory(module: nn.Module, run: Callable[..., Any], *shapes: Sequence[int]) -> Any:
    """What ``run``, which calls ``module``, makes of inputs of ``shapes``, on a device without memory: its shapes. The
    weights of the module are not read, and no random numbers are drawn."""
    call = _Call(module, run)
    tensors = [*call.named_parameters(), *call.named_buffers()]
    weights = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors}
    inputs = tuple(torch.empty(*shape, device="meta") for shape in shapes)
    return torch.func.functional_call(call, weights, inputs)


class _Call(nn.Module):
    """A function that calls a module, as a module that holds it."""

    def __init__(self, module: nn.Module, run: Callable[..., Any]):
        super().__init__()
        self.module, self.run = module, run

    def forward(self, *inputs: Tensor) -> Any:
        return self.run(*inputs)

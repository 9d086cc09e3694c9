"""Which tensors may be averaged beside weights, and loading averages into a model."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.modules.batchnorm import _BatchNorm

from genlab.model.base import Model
from genlab.model.spectral_norm import renew_singular_vectors


def load_averages(model: Model, averages: Mapping[str, Tensor]) -> None:
    """Replace weights by their averages, and recompute what depends on them and has no average.

    Other entries of ``averages`` are ignored: older checkpoints have averages of singular vectors, which are invalid.
    """
    copy_weights(model, averages)
    renew_singular_vectors(model, averages)


@torch.no_grad()
def copy_weights(model: Model, weights: Mapping[str, Tensor]) -> None:
    """Put ``weights`` into the parameters of their names that are averaged."""
    for name, p in model.averaged():
        if name in weights:
            p.copy_(placed_like(weights[name], p))


def placed_like(x: Tensor, parameter: Tensor) -> Tensor:
    """``x`` placed, and if need be sharded, like ``parameter``; float32."""
    x = x.to(parameter.device, torch.float32)
    if isinstance(parameter, DTensor) and not isinstance(x, DTensor):
        return distribute_tensor(x, parameter.device_mesh, parameter.placements)
    return x


def running_statistics(network: nn.Module, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """The running means and variances of all batch norms of a network, by their names in the state dict: they may be
    averaged, as its weights are, and go with these."""
    for name, module in network.named_modules(prefix=prefix):
        if isinstance(module, _BatchNorm) and module.running_mean is not None and module.running_var is not None:
            yield f"{name}.running_mean", module.running_mean
            yield f"{name}.running_var", module.running_var

"""Shards the weights of a network over the devices of a run (FSDP2)."""

from collections.abc import Iterable

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from genlab.model.blocks import blocks_of


def shard(network: nn.Module, mesh: DeviceMesh, methods: Iterable[str] = ()) -> None:
    """Shard ``network`` in place, block by block, over the "data_parallel" dimension of ``mesh``.

    The weights of a block (:func:`blocks_of`) are gathered when it runs, and freed after it. Weights outside of blocks
    are gathered with the whole network, when it is called, or one of its ``methods``.
    """
    data_parallel = mesh["data_parallel"]
    for _, block in list(blocks_of(network)):
        fully_shard(block, mesh=data_parallel)
    fully_shard(network, mesh=data_parallel)
    for method in methods:
        register_fsdp_forward_method(network, method)

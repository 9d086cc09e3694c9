"""Shards the weights of a network over the devices of a run (FSDP2)."""

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard


def shard(network: nn.Module, mesh: DeviceMesh) -> None:
    """Shard ``network`` in place, block by block, over the "data_parallel" dimension of ``mesh``.

    A block is an element of any ``nn.ModuleList`` named ``blocks``: its weights are gathered when it runs, and freed
    after it. Weights outside of blocks are gathered with the whole network.
    """
    data_parallel = mesh["data_parallel"]
    for name, module in network.named_modules():
        if name.split(".")[-1] == "blocks" and isinstance(module, nn.ModuleList):
            for block in module:
                fully_shard(block, mesh=data_parallel)
    fully_shard(network, mesh=data_parallel)

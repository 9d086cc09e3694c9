"""Gathers rows from all ranks, with gradients, and sums over them."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def gathered(rows: Tensor) -> Tensor:
    """(N, ...) on each of R ranks -> (R N, ...), the rows of rank 0 first, on all of them.

    A gradient of the result is summed over ranks and goes back to the rank that a row came from. So where every rank
    computes one loss of all rows, and gradients of parameters are averaged over ranks, as DDP and FSDP do, each
    parameter gets the gradient of that loss. All ranks must have equally many rows.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return rows
    return _Gathered.apply(rows)  # type: ignore[no-any-return]


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.count = len(rows)
        shares = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
        dist.all_gather(shares, rows.contiguous())
        return torch.cat(shares)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        slope = slopes[0].contiguous().clone()
        dist.all_reduce(slope)
        return slope[dist.get_rank() * ctx.count :][: ctx.count]


def total(x: Tensor) -> Tensor:
    """The sum of a tensor over all processes."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        x = x.clone()
        dist.all_reduce(x)
    return x

"""Restores the order of rows that were processed in any order, on any number of devices."""

import torch
from torch import Tensor
from torchmetrics.utilities.data import dim_zero_cat


def in_order(rows: list[Tensor] | Tensor, index: list[Tensor] | Tensor) -> Tensor:
    """Batches of rows [(n, ...), ...] and of their places in the set [(n,), ...] -> (N, ...), by place."""
    return dim_zero_cat(rows)[torch.argsort(dim_zero_cat(index))]

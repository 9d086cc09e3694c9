"""Sharded checkpoints: splits a state into one file per rank, and joins the shards again.

examples=000000001024.ckpt/
  content.ckpt       everything else; in the place of a sharded tensor its number and shape
  shards-0000.ckpt   rank 0's shard of each of them, and its offset
"""

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

CONTENT = "content.ckpt"
_NUMBER = "__shard__"


def shards_of(rank: int) -> str:
    return f"shards-{rank:04d}.ckpt"


def split(content: Any) -> tuple[Any, dict[str, list[Any]]]:
    """``content`` without its sharded tensors, the same on every rank, and this rank's shards."""
    own: dict[str, list[Any]] = {"offsets": [], "tensors": []}

    def without(node: Any) -> Any:
        if isinstance(node, DTensor):
            _, offset = compute_local_shape_and_global_offset(node.shape, node.device_mesh, node.placements)
            own["offsets"].append(list(offset))
            own["tensors"].append(node.to_local().detach().cpu().clone())
            return {_NUMBER: len(own["tensors"]) - 1, "shape": list(node.shape)}
        if isinstance(node, Mapping):
            return {key: without(value) for key, value in node.items()}
        return type(node)(map(without, node)) if isinstance(node, list | tuple) else node

    return without(content), own


def joined(content: Any, shards: Iterable[Mapping[str, Sequence[Any]]]) -> Any:
    """Undoes :func:`split`; ``shards`` of all ranks. Raises ValueError if a part of a tensor is missing."""
    pieces: dict[int, dict[tuple[int, ...], Tensor]] = {}
    for own in shards:
        for number, (offset, tensor) in enumerate(zip(own["offsets"], own["tensors"], strict=True)):
            if tensor.numel():
                pieces.setdefault(number, {})[tuple(offset)] = tensor  # replicas have the same offset

    def whole(node: Any) -> Any:
        if isinstance(node, Mapping) and _NUMBER in node:
            return _put_together(pieces.get(node[_NUMBER], {}), node["shape"])
        if isinstance(node, Mapping):
            return {key: whole(value) for key, value in node.items()}
        return type(node)(map(whole, node)) if isinstance(node, list | tuple) else node

    return whole(content)


def gathered(node: Any) -> Any:
    """``node`` with its sharded tensors gathered on every rank; a collective call."""
    if isinstance(node, DTensor):
        return node.full_tensor()
    if isinstance(node, Mapping):
        return {key: gathered(value) for key, value in node.items()}
    return type(node)(map(gathered, node)) if isinstance(node, list | tuple) else node


def _put_together(pieces: Mapping[tuple[int, ...], Tensor], shape: Sequence[int]) -> Tensor:
    if not pieces or sum(piece.numel() for piece in pieces.values()) != prod(shape):
        raise ValueError(f"a part of a tensor of shape {tuple(shape)} is missing")
    result = torch.empty(tuple(shape), dtype=next(iter(pieces.values())).dtype)
    for offset, piece in pieces.items():
        region = tuple(slice(start, start + size) for start, size in zip(offset, piece.shape, strict=True))
        result[region] = piece
    return result

"""A checkpoint in pieces: what each process holds of tensors that are shared out over them, and the whole again.

examples=000000001024.ckpt/
  content.ckpt       all else; where a tensor was, its number and shape
  shards-0000.ckpt   what rank 0 has of each of them, and where that begins
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
    """``content`` without its sharded tensors, the same on every rank, and what this rank holds of them."""
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
    """What :func:`split` took apart; ``shards`` of all ranks. Raises ValueError if a tensor is not covered."""
    pieces: dict[int, dict[tuple[int, ...], Tensor]] = {}
    for own in shards:
        for number, (offset, tensor) in enumerate(zip(own["offsets"], own["tensors"], strict=True)):
            if tensor.numel():
                pieces.setdefault(number, {})[tuple(offset)] = tensor  # replicas lie at the same place

    def whole(node: Any) -> Any:
        if isinstance(node, Mapping) and _NUMBER in node:
            return _put_together(pieces.get(node[_NUMBER], {}), node["shape"])
        if isinstance(node, Mapping):
            return {key: whole(value) for key, value in node.items()}
        return type(node)(map(whole, node)) if isinstance(node, list | tuple) else node

    return whole(content)


def gathered(node: Any) -> Any:
    """``node`` with its sharded tensors whole on every rank; collective."""
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

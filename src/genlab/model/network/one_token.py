"""A pass of a transformer over one token of each row, after all those whose keys and values are kept."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from genlab.model.network.positions import turn

if TYPE_CHECKING:
    from genlab.model.network.token_transformer import Attention, KeyValueCache, TokenTransformer

_SMALL = 2**20  # rows * width^2 below which what oneDNN does before it multiplies takes longer than multiplying


def fits_one_token(network: "TokenTransformer") -> bool:
    """Whether :class:`OneToken` can stand for ``network.forward`` now: it has no gradients, no dropout, and does not
    gather weights that lie on several devices."""
    if torch.is_grad_enabled() or (network.training and network.dropout):
        return False
    return not isinstance(network.embedding.weight, DTensor)


class OneToken:
    """What ``TokenTransformer.forward`` gives for one token a row, to rounding.

    What is the same for every token is made once: modules without their hooks, the angles of all positions, which
    tokens are padding. Queries that share keys ask them together, so that none is repeated. On a CPU torch's own
    library multiplies: oneDNN makes a kernel for each number of tokens so far, which takes longer than to multiply.
    """

    def __init__(self, network: "TokenTransformer", cache: "KeyValueCache", padding: Tensor | None):
        """``padding``: (N,), as ``forward`` takes it."""
        rows, _, length, _ = cache.keys[0].shape
        width, device = network.embedding.embedding_dim, network.embedding.weight.device
        self.network, self.cache = bare(network), cache
        self.on_cpu = device.type == "cpu"
        self.small = rows == 1 or rows * width**2 < _SMALL
        places = torch.arange(length, device=device)  # of every token that there may be
        self.hidden = None if padding is None else (places < padding[:, None])[:, None, None]  # (N, 1, 1, length)
        positions = places if padding is None else (places - padding[:, None]).clamp(min=0)
        self.positions = positions.split(1, dim=-1)  # of each place (1,) or (N, 1)
        turns = network.positions.turns(positions)  # (1 or N, 1, length, d) each
        self.turns = None if turns is None else [*zip(*(t[:, 0].split(1, dim=1) for t in turns), strict=True)]
        self.blocks = [
            (block.attention_norm, _Attention(block.attention, keys, values), block.feed_forward_norm,
             block.feed_forward)
            for block, keys, values in zip(self.network.blocks, cache.keys, cache.values, strict=True)
        ]  # fmt: skip

    def __call__(self, tokens: Tensor) -> Tensor:
        """(N, 1) -> logits (N, 1, num_outputs)."""
        network, place, hidden = self.network, self.cache.used, self.hidden
        with torch.inference_mode(), _torch_multiplies(self.on_cpu and self.small):
            x = network.positions.embed(network.embedding(tokens), self.positions[place])[:, 0]
            turns = None if self.turns is None else self.turns[place]
            for attention_norm, attention, feed_forward_norm, feed_forward in self.blocks:
                query = attention.ask(attention_norm(x), turns, place)
                if self.small or not self.on_cpu:
                    mixed = attention.mix(query, place, hidden)
                else:
                    with _torch_multiplies(True):
                        mixed = attention.mix(query, place, hidden)
                x = x + attention.out(mixed)
                x = x + feed_forward(feed_forward_norm(x))
            self.cache.used = place + 1
            return network.logits(x[:, None])


class _Attention:
    """Attention of one block: of a token to all so far, itself among them."""

    def __init__(self, attention: "Attention", keys: Tensor, values: Tensor):
        rows, kv_heads, _, head_width = keys.shape
        self.qkv, self.out = attention.qkv, attention.out
        self.head_norm = None if isinstance(attention.head_norm, nn.Identity) else attention.head_norm
        self.keys, self.values = keys, values  # (N, kv heads, length, d)
        self.flat_keys, self.flat_values = keys.flatten(0, 1), values.flatten(0, 1)
        self.num_heads, self.num_asked = attention.num_heads, attention.num_heads + kv_heads
        self.heads = (rows, self.num_asked + kv_heads, head_width)
        self.together = (rows * kv_heads, attention.num_heads // kv_heads, head_width)  # queries of the same keys
        self.apart = (rows, kv_heads, attention.num_heads // kv_heads, -1)
        self.mixed = (rows, attention.num_heads * head_width)
        self.scale = math.sqrt(head_width)

    def ask(self, x: Tensor, turns: tuple[Tensor, Tensor] | None, place: int) -> Tensor:
        """(N, width) -> queries (N * kv heads, queries of each, d). The token's key and value go into the cache."""
        heads = self.qkv(x).view(self.heads)
        asked = heads[:, : self.num_asked]
        if self.head_norm is not None:
            asked = self.head_norm(asked)
        asked = turn(asked, turns)
        self.keys.select(2, place).copy_(asked[:, self.num_heads :])
        self.values.select(2, place).copy_(heads[:, self.num_asked :])
        return (asked[:, : self.num_heads] / self.scale).view(self.together)

    def mix(self, query: Tensor, place: int, hidden: Tensor | None) -> Tensor:
        """-> (N, width)."""
        scores = torch.bmm(query, self.flat_keys[:, : place + 1].transpose(1, 2))
        if hidden is not None:
            scores.view(self.apart).masked_fill_(hidden[..., : place + 1], -torch.inf)
        return torch.bmm(scores.softmax(dim=-1), self.flat_values[:, : place + 1]).view(self.mixed)


def bare(module: nn.Module) -> nn.Module:
    """The same module, of the same tensors, for calls by the thousand: what ``nn.Module`` does to find a part of itself
    and before it calls ``forward`` takes longer than the arithmetic of a few rows. One that has hooks keeps them."""
    if module._forward_hooks or module._forward_pre_hooks:
        return module
    kind = type(module)
    copy = object.__new__(type(kind.__name__, (kind,), {"__call__": kind.forward}))
    parts = {name: None if part is None else bare(part) for name, part in module._modules.items()}
    copy.__dict__.update(module.__dict__, _modules=parts, **module._parameters, **module._buffers, **parts)
    return copy


@contextmanager
def _torch_multiplies(wanted: bool) -> Iterator[None]:
    """Within, float32 matrices on a CPU are multiplied as torch does it by default."""
    before = torch.get_float32_matmul_precision()
    if not wanted or before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)

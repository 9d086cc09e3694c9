"""A pass of a transformer over one token of each row, after all those whose keys and values are kept."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from genlab.model.network.fused_linear import FusedLinear
from genlab.model.network.positions import turn
from genlab.model.network.quantized_weight import QuantizedWeight

if TYPE_CHECKING:
    from genlab.model.network.token_transformer import Attention, KeyValueCache, TokenTransformer

_SMALL = 2**20  # rows * width^2 below which what oneDNN does before it multiplies takes longer than multiplying

_FEW = 4  # rows from which on torch's own library multiplies quicker by a matrix that lies by columns
_LONG = 16  # tokens that are worth laying it so


def fits_one_token(network: "TokenTransformer") -> bool:
    """Whether :class:`OneToken` can stand for ``network.forward`` now: it has no gradients, no dropout, attends to
    tokens alone, and does not gather weights that lie on several devices."""
    if torch.is_grad_enabled() or (network.training and network.dropout) or network.seen_width is not None:
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
        self.cache = cache
        self.small = device.type == "cpu" and (rows == 1 or rows * width**2 < _SMALL)
        is_long = length - cache.used >= _LONG
        self.network: Any = bare(network, by_columns=self.small and rows >= _FEW and is_long)
        self.large = device.type == "cpu" and not self.small
        self.places = torch.arange(length, device=device)  # of every token that there may be
        self.hidden = None if padding is None else (self.places < padding[:, None])[:, None, None]  # (N, 1, 1, length)
        positions = self.places if padding is None else (self.places - padding[:, None]).clamp(min=0)
        self.positions = positions.split(1, dim=-1)  # of each place (1,) or (N, 1)
        turns = network.positions.turns(positions)  # (1 or N, 1, length, d) each
        self.turns = None if turns is None else [*zip(*(t[:, 0].split(1, dim=1) for t in turns), strict=True)]
        self.blocks = [
            (block, _Attention(block.attention, keys, values))
            for block, keys, values in zip(self.network.blocks, cache.keys, cache.values, strict=True)
        ]

    def __call__(self, tokens: Tensor) -> Tensor:
        """(N, 1) -> logits (N, 1, num_outputs)."""
        network, place, hidden = self.network, self.cache.used, self.hidden
        with torch.inference_mode(), _torch_multiplies(self.small):
            x = network.positions.embed(network.embedding(tokens), self.positions[place])[:, 0]
            turns = None if self.turns is None else self.turns[place]
            for block, attention in self.blocks:
                query, key, value = attention.ask(block.attention_norm(x), turns)
                attention.keys.select(2, place).copy_(key)
                attention.values.select(2, place).copy_(value)
                start = 0 if attention.window is None else max(0, place + 1 - attention.window)
                if self.large:
                    with _torch_multiplies(True):
                        mixed = attention.mix(query, start, place + 1, hidden)
                else:
                    mixed = attention.mix(query, start, place + 1, hidden)
                x = x + attention.out(mixed)
                x = x + block.feed_forward(block.feed_forward_norm(x))
            self.cache.used = place + 1
            return network.logits(x[:, None])


class OneTokenOfFixedShapes(OneToken):
    """The same, whose tensors have one shape and one place for every token, so that a graph of a GPU's work, recorded
    once, is good for all: ``step`` waits for nothing and reads ``tokens`` and ``place``. A token asks all places of the
    cache, of which those that are not there yet are hidden."""

    def __init__(self, network: "TokenTransformer", cache: "KeyValueCache", padding: Tensor | None):
        super().__init__(network, cache, padding)
        self.place = self.places[:1].clone()
        self.tokens = self.place.new_zeros(len(cache.keys[0]), 1)
        self.all_positions = torch.cat(self.positions, dim=-1)
        self.all_turns = None if self.turns is None else [torch.cat(t, dim=1) for t in zip(*self.turns, strict=True)]
        for kept in (*cache.keys, *cache.values):
            kept[:, :, cache.used :] = 0  # what is hidden counts 0 times, and may be no NaN

    def __call__(self, tokens: Tensor) -> Tensor:
        with torch.inference_mode():
            self.place.fill_(self.cache.used)
            self.tokens.copy_(tokens)
            self.cache.used += 1
            return self.step()

    def step(self) -> Tensor:
        """-> logits (N, 1, num_outputs)."""
        network, place = self.network, self.place
        seen = self.places <= place  # (length,)
        seen = seen[None, None, None] if self.hidden is None else seen & ~self.hidden
        x = network.positions.embed(network.embedding(self.tokens), self.all_positions.index_select(-1, place))[:, 0]
        turns = None if self.all_turns is None else tuple(t.index_select(1, place) for t in self.all_turns)
        for block, attention in self.blocks:
            query, key, value = attention.ask(block.attention_norm(x), turns)
            attention.keys.index_copy_(2, place, key[:, :, None])
            attention.values.index_copy_(2, place, value[:, :, None])
            query = query.view(attention.apart)
            near = seen if attention.window is None else seen & (self.places > place - attention.window)
            mixed = F.scaled_dot_product_attention(query, attention.keys, attention.values, attn_mask=near)
            x = x + attention.out(mixed.reshape(attention.mixed))
            x = x + block.feed_forward(block.feed_forward_norm(x))
        return network.logits(x[:, None])


class _Attention:
    """Attention of one block: of a token to all so far, itself among them."""

    def __init__(self, attention: "Attention", keys: Tensor, values: Tensor):
        rows, kv_heads, _, head_width = keys.shape
        self.qkv, self.out = attention.qkv, attention.out
        self.normalized = None if isinstance(attention.head_norm, nn.Identity) else attention.normalized
        self.window = attention.window
        self.keys, self.values = keys, values  # (N, kv heads, length, d)
        self.flat_keys, self.flat_values = keys.flatten(0, 1), values.flatten(0, 1)
        self.num_heads, self.num_asked = attention.num_heads, attention.num_heads + kv_heads
        self.heads = (rows, self.num_asked + kv_heads, head_width)
        self.together = (rows * kv_heads, attention.num_heads // kv_heads, head_width)  # queries of the same keys
        self.apart = (rows, kv_heads, attention.num_heads // kv_heads, -1)
        self.mixed = (rows, attention.num_heads * head_width)
        self.scale = math.sqrt(head_width)

    def ask(self, x: Tensor, turns: tuple[Tensor, ...] | None) -> tuple[Tensor, Tensor, Tensor]:
        """(N, width) -> queries (N, heads, d), and the token's keys and values (N, kv heads, d)."""
        heads = self.qkv(x).view(self.heads)
        asked = heads[:, : self.num_asked]
        if self.normalized is not None:
            asked = self.normalized(asked)
        if turns is not None:
            asked = turn(asked, (turns[0], turns[1]))
        return asked[:, : self.num_heads], asked[:, self.num_heads :], heads[:, self.num_asked :]

    def mix(self, query: Tensor, start: int, end: int, hidden: Tensor | None) -> Tensor:
        """Values of the tokens from ``start`` on, before ``end``. -> (N, heads * d)."""
        query = (query / self.scale).view(self.together)
        scores = torch.bmm(query, self.flat_keys[:, start:end].transpose(1, 2))
        if hidden is not None:
            scores.view(*self.apart[:3], end - start).masked_fill_(hidden[..., start:end], -torch.inf)
        return torch.bmm(scores.softmax(dim=-1), self.flat_values[:, start:end]).view(self.mixed)


def bare(module: nn.Module, by_columns: bool = False) -> Any:
    """The same module, of the same tensors, for calls by the thousand: what ``nn.Module`` does to find a part of itself
    and before it calls ``forward`` takes longer than the arithmetic of a few rows. One that has hooks keeps them.

    Weights that are quantized are floats in it. ``by_columns``: those of linear maps are copies that lie in memory by
    columns."""
    if module._forward_hooks or module._forward_pre_hooks:
        return module
    kind = type(module)
    copy: Any = object.__new__(type(kind.__name__, (kind,), {"__call__": kind.forward}))
    parts = {name: None if part is None else bare(part, by_columns) for name, part in module._modules.items()}
    copy.__dict__.update(module.__dict__, _modules=parts, **module._parameters, **module._buffers, **parts)
    if by_columns and kind in (nn.Linear, FusedLinear):
        assert isinstance(module.weight, Tensor)
        copy.__dict__["weight"] = module.weight.detach().t().contiguous().t()
    if isinstance(module, QuantizedWeight):
        copy.__dict__["kept"] = module.dense()
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

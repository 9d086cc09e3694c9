"""A transformer over tokens, with the parts that published models differ in: GPT-2, Llama, and what came since."""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.model.network.attention import attend
from genlab.model.network.fused_linear import FusedLinear, Unembedding
from genlab.model.network.one_token import OneToken, OneTokenOfFixedShapes, fits_one_token
from genlab.model.network.positions import positions_within, turn, within_segments

Turns = tuple[Tensor, Tensor] | None


class Positions(Protocol):
    """Position information: added by :meth:`embed`, or by rotating queries and keys; one of the two does nothing."""

    def embed(self, x: Tensor, positions: Tensor) -> Tensor: ...

    def turns(self, positions: Tensor) -> Turns: ...


class KeyValueCache:
    """Keys and values of the tokens read so far, so that each is computed once: N rows of up to ``length`` tokens."""

    def __init__(self, network: "TokenTransformer", num_rows: int, length: int):
        weight = network.embedding.weight
        shape = (num_rows, network.num_kv_heads, length, network.head_width)
        self.keys = [torch.empty(shape, device=weight.device, dtype=weight.dtype) for _ in network.blocks]
        self.values = [torch.empty_like(keys) for keys in self.keys]
        self.seen: dict[int, tuple[Tensor, Tensor]] = {}  # keys and values of what blocks also attend to
        self.used = 0  # tokens in it
        self.one_token: OneToken | None = None  # made when there is a first single one

    def append(self, block: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """(N, heads, T, d) of the new tokens -> all up to them."""
        end = self.used + key.shape[2]
        self.keys[block][:, :, self.used : end] = key
        self.values[block][:, :, self.used : end] = value
        return self.keys[block][:, :, :end], self.values[block][:, :, :end]

    def reorder(self, rows: Tensor) -> None:
        """Row i becomes what row ``rows[i]`` was; ``rows``: (M,), of any number of rows. For beam search."""
        if len(rows) == len(self.keys[0]):  # in place: what was made for single tokens looks at these tensors
            for kept in (*self.keys, *self.values):
                kept[:, :, : self.used] = kept[:, :, : self.used].index_select(0, rows)
        else:
            self.keys = [keys.index_select(0, rows) for keys in self.keys]
            self.values = [values.index_select(0, rows) for values in self.values]
            self.one_token = None
        self.seen = {block: (k.index_select(0, rows), v.index_select(0, rows)) for block, (k, v) in self.seen.items()}


class Attention(nn.Module):
    """Attention with, if wanted, fewer heads of keys and values than of queries (Ainslie et al. 2023), queries and keys
    normalized, alike or apart (Henry et al. 2020), and a sliding window (Beltagy et al. 2020)."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        num_kv_heads: int,
        head_norm: Callable[[int], nn.Module] | None,
        bias: bool,
        qkv_bias: bool | None = None,  # of queries, keys and values; None: as ``bias``
        head_width: int | None = None,  # None: width / num_heads
        window: int | None = None,  # how many tokens a token sees, itself the last; None: all before it
        own_key_norm: bool = False,  # keys have a norm of their own, of the kind of ``head_norm``
    ):
        super().__init__()
        self.num_heads, self.num_kv_heads, self.window = num_heads, num_kv_heads, window
        self.head_width = width // num_heads if head_width is None else head_width
        qkv_bias = bias if qkv_bias is None else qkv_bias
        queries, keys = num_heads * self.head_width, num_kv_heads * self.head_width
        self.qkv = FusedLinear(width, {"query": queries, "key": keys, "value": keys}, qkv_bias)
        self.out = nn.Linear(queries, width, bias)
        self.head_norm = head_norm(self.head_width) if head_norm is not None else nn.Identity()
        self.key_norm = head_norm(self.head_width) if head_norm is not None and own_key_norm else None

    def forward(
        self,
        x: Tensor,  # (N, T, width)
        turns: Turns,
        causal: bool,  # each token sees those up to it alone
        mask: Tensor | None,  # (N or 1, 1, T, S), true where a token may be seen; in place of ``causal``
        dropout: float,
        cache: KeyValueCache | None,
        block: int,  # this one's number in the cache
    ) -> Tensor:
        heads = self.qkv(x).unflatten(2, (-1, self.head_width)).transpose(1, 2)  # (N, of all three, T, d)
        asked, value = heads.split((self.num_heads + self.num_kv_heads, self.num_kv_heads), dim=1)
        query, key = turn(self.normalized(asked), turns).split((self.num_heads, self.num_kv_heads), dim=1)
        if cache is not None:
            key, value = cache.append(block, key, value)
        if self.num_kv_heads < self.num_heads:
            repeats = self.num_heads // self.num_kv_heads
            key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
        mixed = attend(query, key, value, causal, mask, dropout if self.training else 0.0)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def normalized(self, asked: Tensor) -> Tensor:
        """Queries, then keys, along dimension 1: (N, heads of both, ..., d) -> the same."""
        if self.key_norm is None:
            return self.head_norm(asked)  # type: ignore[no-any-return]
        query, key = asked.split((self.num_heads, self.num_kv_heads), dim=1)
        return torch.cat([self.head_norm(query), self.key_norm(key)], dim=1)


class CrossAttention(nn.Module):
    """Attention of tokens to vectors that come from elsewhere, such as those of a picture (Vaswani et al. 2017, section
    3.2.3). All of these are seen by every token."""

    def __init__(self, width: int, num_heads: int, seen_width: int, bias: bool):
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, width, bias)
        self.key_value = FusedLinear(seen_width, {"key": width, "value": width}, bias)
        self.out = nn.Linear(width, width, bias)

    def forward(self, x: Tensor, seen: Tensor, cache: KeyValueCache | None, block: int) -> Tensor:
        """``x``: (N, T, width); ``seen``: (N, S, seen_width), whose keys and values are kept in ``cache``. -> like
        ``x``."""
        query = self.query(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # (N, heads, T, d)
        found = None if cache is None else cache.seen.get(block)
        if found is None:
            both = self.key_value(seen).unflatten(2, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
            found = both[0], both[1]  # (N, heads, S, d) each
            if cache is not None:
                cache.seen[block] = found
        return self.out(attend(query, *found).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention, then a feed-forward network, each of normalized input and added to it (Xiong et al. 2020); between
    them, if there is one, attention to what is ``seen``."""

    def __init__(
        self,
        width: int,
        attention: Attention,
        feed_forward: nn.Module,
        norm: Callable[[int], nn.Module],
        dropout: float,
        cross: CrossAttention | None = None,
    ):
        super().__init__()
        self.attention_norm, self.attention = norm(width), attention
        self.cross_norm, self.cross = None if cross is None else norm(width), cross
        self.feed_forward_norm, self.feed_forward = norm(width), feed_forward
        self.dropout = dropout

    def forward(
        self,
        x: Tensor,
        turns: Turns,
        causal: bool,
        mask: Tensor | None,
        cache: KeyValueCache | None,
        number: int,
        seen: Tensor | None = None,
    ) -> Tensor:
        mixed = self.attention(self.attention_norm(x), turns, causal, mask, self.dropout, cache, number)
        x = x + F.dropout(mixed, self.dropout, self.training)
        if self.cross is not None and self.cross_norm is not None:
            mixed = self.cross(self.cross_norm(x), seen, cache, number)
            x = x + F.dropout(mixed, self.dropout, self.training)
        return x + F.dropout(self.feed_forward(self.feed_forward_norm(x)), self.dropout, self.training)


def vocabulary_linear(x: Tensor, weight: Tensor) -> Tensor:
    """``F.linear`` onto a vocabulary of any size. On a GPU, whose tensor cores need rows that begin at multiples of 16
    bytes, tokens that do not exist fill it up to a multiple of 64; ``torch.compile`` does so by itself."""
    if not weight.is_cuda or torch.compiler.is_compiling():
        return F.linear(x, weight)
    return padded_linear(x, weight)


def padded_linear(x: Tensor, weight: Tensor) -> Tensor:
    """(..., D), (V, D) -> (..., V), a part of (..., V and up to 63 more)."""
    return F.linear(x, F.pad(weight, (0, 0, 0, -len(weight) % 64)))[..., : len(weight)]


class TokenTransformer(nn.Module):
    """Tokens to logits of the next ones (causal), or of those that are hidden (not causal).

    Weights start normal with deviation 0.02, those into the residual stream less by sqrt(2 depth) (Radford et al. 2019)
    or, with ``zero_init``, at zero, so that each block starts as the identity.
    """

    width: int
    head: nn.Linear | None  # to logits; None: the embedding's weights are these

    def __init__(
        self,
        num_tokens: int,  # of the input
        num_outputs: int,  # of the output: the first ones of the input's
        max_length: int,  # longest context
        causal: bool,
        positions: Callable[..., Positions],
        norm: Callable[[int], nn.Module],
        feed_forward: Callable[[int], nn.Module],
        head_norm: Callable[[int], nn.Module] | None = None,  # of queries and keys; None: not normalized
        width: int = 128,
        depth: int = 4,
        num_heads: int = 4,
        num_kv_heads: int | None = None,  # None: as many as of queries
        bias: bool = False,  # of the linear maps in attention
        tied: bool = True,  # the output's weights are those of the embedding
        zero_init: bool = False,
        logit_cap: float | None = None,  # c: logits become c tanh(logits / c), as in Gemma 2; None: as they are
        dropout: float = 0.0,
        seen_width: int | None = None,  # of the vectors that every block also attends to; None: of no others
        qkv_bias: bool | None = None,  # of queries, keys and values alone, as in Qwen2; None: as ``bias``
        head_width: int | None = None,  # None: width / num_heads
        window: int | None = None,  # tokens that a token sees, itself the last, as in Mistral; None: all before it
        windowed_blocks: Sequence[int] | None = None,  # the blocks, from 0, that have the window; None: all
        own_key_norm: bool = False,  # head_norm has other weights for keys than for queries, as in Qwen3
    ):
        """Raises ValueError: heads that do not divide the width, or each other; a window, or a norm of keys, where it
        has no meaning."""
        super().__init__()
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        if (head_width is None and width % num_heads) or num_heads % num_kv_heads:
            raise ValueError(
                f"num_heads={num_heads} must divide width={width}, and num_kv_heads={num_kv_heads} num_heads."
            )
        if head_width is not None and head_width < 1:
            raise ValueError(f"head_width={head_width} must be 1 or more.")
        if window is not None and (window < 1 or not causal):
            raise ValueError(f"window={window} must be 1 or more, and is for networks that predict the next token.")
        if own_key_norm and head_norm is None:
            raise ValueError("own_key_norm=true is of a head_norm, and there is none.")
        self.num_outputs, self.max_length, self.causal, self.width = num_outputs, max_length, causal, width
        self.num_kv_heads = num_kv_heads
        self.head_width = width // num_heads if head_width is None else head_width
        self.logit_cap, self.dropout = logit_cap, dropout
        self.embedding = nn.Embedding(num_tokens, width)
        self.positions = positions(max_length=max_length, width=width, head_width=self.head_width)
        self.seen_width = seen_width
        windowed = range(depth) if windowed_blocks is None else windowed_blocks
        self.windows = [window if number in windowed else None for number in range(depth)]  # of each block
        self.blocks = nn.ModuleList(
            Block(
                width,
                Attention(
                    width,
                    num_heads,
                    num_kv_heads,
                    head_norm,
                    bias,
                    qkv_bias,
                    head_width,
                    own_window,
                    own_key_norm,
                ),
                feed_forward(width),
                norm,
                dropout,
                None if seen_width is None else CrossAttention(width, num_heads, seen_width, bias),
            )
            for own_window in self.windows
        )
        self.has_windows = any(own_window is not None for own_window in self.windows)
        self.norm = norm(width)
        self.head = None if tied else Unembedding(width, num_outputs, bias=False)
        self.initialize(0.0 if zero_init else 0.02 / math.sqrt(2 * depth))

    def initialize(self, residual_std: float) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
                if isinstance(module, nn.Linear) and module.bias is not None:
                    nn.init.zeros_(module.bias)
        for name, parameter in self.blocks.named_parameters():
            if name.endswith("out.weight"):
                nn.init.normal_(parameter, std=residual_std)

    def cache(self, num_rows: int, length: int) -> KeyValueCache:
        """An empty cache for ``num_rows`` texts of up to ``length`` tokens."""
        return KeyValueCache(self, num_rows, length)

    def forward(
        self,
        tokens: Tensor,
        padding: Tensor | None = None,
        cache: KeyValueCache | None = None,
        hidden: bool = False,
        at: Tensor | None = None,
        prefix: Tensor | None = None,
        seen: Tensor | None = None,
        segment: Tensor | None = None,
    ) -> Tensor:
        """Logits (N, T, num_outputs) at each of ``tokens`` (N, T); with ``hidden`` what they are made from, normalized:
        (N, T, width).

        Args:
            padding: (N,), how many tokens at the beginning of each row are masked padding
            cache: keys and values of earlier tokens, which ``tokens`` follow; theirs are added
            hidden: see above; without a cache
            at: (N, K), the places among ``tokens`` that are answered, in place of all T; without a cache
            prefix: (N, P, width), vectors in the places before the first token, as if they were embeddings of tokens
            seen: (N, S, seen_width), for a network that has such a width
            segment: (N, T), the number of the sequence that a token is of, where rows hold several one after the other:
                none sees another, and positions begin anew; without a cache, a prefix or padding
        """
        before = 0 if cache is None else cache.used
        if cache is not None and before > 0 and tokens.shape[1] == 1 and fits_one_token(self):
            one_token = OneToken if tokens.device.type == "cpu" else OneTokenOfFixedShapes
            cache.one_token = cache.one_token or one_token(self, cache, padding)
            return cache.one_token(tokens)
        x = self.embedding(tokens)
        if prefix is not None:
            x = torch.cat([prefix.to(x.dtype), x], dim=1)
        length = x.shape[1]
        positions = torch.arange(before, before + length, device=tokens.device)
        alone = padding is None and (before == 0 or length == 1)
        mask = None if alone else self._mask(positions, before + length, padding)
        causal = self.causal and mask is None and length > 1  # a single token attends to all before it
        if segment is not None:
            mask, causal = within_segments(segment, self.causal), False
        windows = self._windows(positions, before + length, mask) if self.has_windows else {}
        if padding is not None:
            positions = (positions - padding[:, None]).clamp(min=0)
        if segment is not None:
            positions = positions_within(segment)
        x = F.dropout(self.positions.embed(x, positions), self.dropout, self.training)
        turns = self.positions.turns(positions)
        for number, block in enumerate(self.blocks):
            narrow = windows.get(self.windows[number])
            if narrow is None:
                x = block(x, turns, causal, mask, cache, number, seen)
            else:
                x = block(x, turns, False, narrow, cache, number, seen)
        if cache is not None:
            cache.used += length
        x = x[:, length - tokens.shape[1] :]
        if at is not None:
            x = x.take_along_dim(at[:, :, None], dim=1)  # (N, K, width)
        return self.norm(x) if hidden else self.logits(x)

    def logits(self, x: Tensor) -> Tensor:
        """What the last block makes, (N, T, width) -> (N, T, num_outputs)."""
        weight = self.embedding.weight[: self.num_outputs] if self.head is None else self.head.weight
        logits = vocabulary_linear(self.norm(x), weight) if self.training else F.linear(self.norm(x), weight)
        return logits if self.logit_cap is None else self.logit_cap * torch.tanh(logits / self.logit_cap)

    def _windows(self, positions: Tensor, length: int, mask: Tensor | None) -> dict[int | None, Tensor]:
        """By a block's window, where it is shorter than the ``length`` tokens so far: which of these those at
        ``positions`` (T,) see of what ``mask`` (N or 1, 1, T, length) lets them see. -> like ``mask``."""
        seen = self._mask(positions, length, None) if mask is None else mask
        found: dict[int | None, Tensor] = {}
        for window in {*self.windows}:
            if window is not None and window < length:
                near = torch.arange(length, device=positions.device) > positions[:, None] - window  # (T, length)
                found[window] = seen & near
        return found

    def _mask(self, positions: Tensor, length: int, padding: Tensor | None) -> Tensor:
        """(N or 1, 1, T, length): which of all tokens so far those at ``positions`` (T,) see."""
        all_so_far = torch.arange(length, device=positions.device)
        mask = (all_so_far <= positions[:, None]) | (not self.causal)  # (T, length)
        if padding is None:
            return mask[None, None]
        itself = all_so_far == positions[:, None]  # else padding would attend to nothing
        return ((mask & (all_so_far >= padding[:, None, None])) | itself)[:, None]

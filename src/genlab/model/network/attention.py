"""Scaled dot-product attention (Vaswani et al. 2017, section 3.2), by the fastest kernel on each device."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from genlab.model.network.fused_linear import FusedLinear

_LONG = 512  # positions from which the fused kernel is the quicker one in bfloat16, too


def attend(
    query: Tensor, key: Tensor, value: Tensor, causal: bool = False, mask: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """Softmax(Q K^T / sqrt(d)) V. ``query``: (N, heads, T, d); ``key``, ``value``: (N, heads, S, d). -> like ``query``.

    ``causal``: position t sees the first t + 1 of S = T alone. ``mask``: (N or 1, 1, T, S) bool, true where a position
    may be seen; in place of ``causal``. On a CPU, torch's fused kernel is twice as quick in float32 and needs no memory
    for scores, but five times as slow where oneDNN multiplies its small blocks, so there it has MKL do it; in bfloat16
    it is slow up to some hundred positions, and for a single query, with a mask or with dropout of no use. Where it is
    switched off (``torch.backends.cuda.enable_flash_sdp(False)``, which speaks for CPUs too), it is not used.
    """
    if query.device.type != "cpu" or torch.compiler.is_compiling():
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=causal)
    if _is_fused(query, key, mask, dropout):
        return _Fused.apply(query, key, value, causal)  # type: ignore[no-any-return]
    if causal:
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).tril()
    return _by_matrices(query, key, value, mask, dropout)


def _is_fused(query: Tensor, key: Tensor, mask: Tensor | None, dropout: float) -> bool:
    if mask is not None or dropout or query.shape[2] == 1 or 0 in (query.numel(), key.numel()):
        return False
    if not torch.backends.cuda.flash_sdp_enabled():
        return False
    return query.dtype == torch.float32 or (query.dtype == torch.bfloat16 and key.shape[2] >= _LONG)


class _Fused(torch.autograd.Function):
    """Torch's fused kernel for CPUs and its gradient, with MKL multiplying in both."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, causal: bool) -> Tensor:
        with _mkl():
            mixed, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, causal)
        ctx.save_for_backward(query, key, value, mixed, sums)
        ctx.causal = causal
        return mixed  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        with _mkl():
            found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                gradient, *ctx.saved_tensors, 0.0, ctx.causal
            )
        return (*found, None)


@contextmanager
def _mkl() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _by_matrices(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    scores = (query / math.sqrt(query.shape[-1])) @ key.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = F.dropout(scores.softmax(dim=-1), dropout)
    return weights.to(value.dtype) @ value


class SelfAttention(nn.Module):
    """Multi-head attention of every position to every other, shared by the U-Net and the diffusion transformer."""

    passes_values = False  # whether it is the identity: each position has its own value (perturbed-attention guidance)

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = FusedLinear(width, {"query": width, "key": width, "value": width})
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, width) -> (N, T, width)."""
        qkv = self.qkv(x).unflatten(2, (3, self.num_heads, -1))  # (N, T, 3, heads, width / heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind()  # (N, heads, T, width / heads)
        mixed = value if self.passes_values else attend(query, key, value)
        return self.out(mixed.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Multi-head attention of every position to the tokens of something else, such as the words of a caption."""

    def __init__(self, width: int, context_width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, width)
        self.key_value = FusedLinear(context_width, {"key": width, "value": width})
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor, seen: Tensor) -> Tensor:
        """(N, T, width), (N or 1, S, context_width), (N or 1, S) bool, false where no token is. -> (N, T, width)."""
        query = self.query(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # (N, heads, T, width / heads)
        both = self.key_value(context).unflatten(2, (2, self.num_heads, -1))  # (N or 1, S, 2, heads, width / heads)
        key, value = both.permute(2, 0, 3, 1, 4).unbind()
        mixed = attend(
            query, key.expand(len(x), -1, -1, -1), value.expand(len(x), -1, -1, -1), mask=seen[:, None, None]
        )
        return self.out(mixed.transpose(1, 2).flatten(2))

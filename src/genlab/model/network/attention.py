"""Scaled dot-product attention (Vaswani et al. 2017, section 3.2), by the fastest kernel on each device."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def attend(
    query: Tensor, key: Tensor, value: Tensor, causal: bool = False, mask: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """Softmax(Q K^T / sqrt(d)) V. ``query``: (N, heads, T, d); ``key``, ``value``: (N, heads, S, d). -> like ``query``.

    ``causal``: position t sees the first t + 1 of S = T alone. ``mask``: (N or 1, 1, T, S) bool, true where a position
    may be seen; in place of ``causal``. On a CPU torch's kernel is slow in bfloat16 (backward 4.8 against 1.0 ms) and
    where matrices are multiplied by oneDNN, and for a single query of no use.
    """
    if query.device.type == "cpu" and _slow_as_one(query):
        if causal:
            mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
        return _by_matrices(query, key, value, mask, dropout)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=causal)


def _slow_as_one(query: Tensor) -> bool:
    return query.dtype == torch.bfloat16 or query.shape[2] == 1 or torch.get_float32_matmul_precision() != "highest"


def _by_matrices(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    scores = (query / math.sqrt(query.shape[-1])) @ key.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = F.dropout(scores.softmax(dim=-1), dropout)
    return weights.to(value.dtype) @ value


class SelfAttention(nn.Module):
    """Multi-head attention of every position to every other, shared by the U-Net and the diffusion transformer."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, width) -> (N, T, width)."""
        qkv = self.qkv(x).unflatten(2, (3, self.num_heads, -1))  # (N, T, 3, heads, width / heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind()  # (N, heads, T, width / heads)
        return self.out(attend(query, key, value).transpose(1, 2).flatten(2))

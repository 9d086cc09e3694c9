"""CLIP's text tower (Radford et al. 2021, arXiv:2103.00020, section 2.4): a caption to a vector."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.model.network.feed_forward import FeedForward
from genlab.model.network.positions import Learned
from genlab.model.network.token_transformer import Attention, Block

_EPSILON = 1e-5  # of layer norms, as in the published models


class TextEncoder(nn.Module):
    """A causal transformer over the words of a caption; the vector is its output at the end token.

    Number 0, which fills captions up, is the end token: the first 0 after the last word, of which a caption of full
    length gets one too. So what follows is never seen, and no mask is needed.

    With the same weights it equals transformers' ``CLIPTextModel`` of ``hidden_act="gelu"``. Weights start as CLIP's:
    words with deviation 0.02, positions 0.01, attention 1 / sqrt(width), and what goes into the residual stream less by
    sqrt(2 depth).
    """

    def __init__(
        self,
        num_words: int,  # of the vocabulary, number 0 among them
        length: int,  # words of the longest caption
        width: int = 128,
        depth: int = 4,
        num_heads: int = 4,
        mlp_ratio: float = 4.0,  # hidden units of a feed-forward network / width
        dropout: float = 0.0,  # of embeddings, attention, and what each block adds
    ):
        """Raises ValueError: heads that do not divide the width."""
        super().__init__()
        if width % num_heads:
            raise ValueError(f"num_heads={num_heads} must divide width={width}.")
        self.width, self.dropout = width, dropout
        self.embedding = nn.Embedding(num_words, width)
        self.positions = Learned(length + 1, width, width // num_heads)
        self.blocks = nn.ModuleList(
            Block(
                width,
                Attention(width, num_heads, num_heads, head_norm=None, bias=True),
                FeedForward(width, nn.GELU(), expansion=mlp_ratio, bias=True),
                _norm,
                dropout,
            )
            for _ in range(depth)
        )
        self.norm = _norm(width)
        self.initialize(width, depth)

    def initialize(self, width: int, depth: int) -> None:
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.positions.table.weight, std=0.01)
        residual_std = 1 / math.sqrt(2 * width * depth)
        stds = {"qkv": 1 / math.sqrt(width), "expand": 1 / math.sqrt(2 * width), "out": residual_std}
        for name, module in self.blocks.named_modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=stds[name.rpartition(".")[2]])
                nn.init.zeros_(module.bias)

    def forward(self, captions: Tensor) -> Tensor:
        """Captions (N, T) int64, filled up with 0 -> (N, width)."""
        tokens = F.pad(captions, (0, 1))  # (N, T + 1): each has an end token
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = F.dropout(self.positions.embed(self.embedding(tokens), places), self.dropout, self.training)
        for number, block in enumerate(self.blocks):
            x = block(x, None, True, None, None, number)
        end = (tokens == 0).int().argmax(dim=1)  # the first
        return self.norm(x[torch.arange(len(x), device=x.device), end])


def _norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=_EPSILON)

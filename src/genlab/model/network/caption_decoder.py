"""Decoders of captions: a token transformer that sees a picture, as a prefix or by cross-attention."""

from collections.abc import Callable

from torch import Tensor, nn

from genlab.model.network.token_transformer import KeyValueCache, TokenTransformer


class PrefixDecoder(nn.Module):
    """The vectors of a picture stand before the words, each mapped linearly to the width of an embedding (as in
    ClipCap, Mokady et al. 2021)."""

    def __init__(
        self,
        num_tokens: int,  # of the input
        num_outputs: int,  # of the output: the first ones of the input's
        max_length: int,  # of the longest text
        seen_length: int,  # S, vectors of a picture
        seen_width: int,  # of each
        transformer: Callable[..., TokenTransformer],
    ):
        super().__init__()
        self.transformer = transformer(
            num_tokens=num_tokens, num_outputs=num_outputs, max_length=seen_length + max_length, causal=True
        )
        self.seen_length = seen_length
        self.seen_norm = nn.LayerNorm(seen_width)
        self.project = nn.Linear(seen_width, self.transformer.embedding.embedding_dim)
        nn.init.normal_(self.project.weight, std=0.02)  # like embeddings
        nn.init.zeros_(self.project.bias)

    def cache(self, num_rows: int, length: int) -> KeyValueCache:
        """An empty cache for ``num_rows`` pictures with texts of up to ``length`` tokens."""
        return self.transformer.cache(num_rows, self.seen_length + length)

    def forward(self, tokens: Tensor, seen: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """``tokens``: (N, T); ``seen``: (N, S, seen_width), read once by a cache. -> logits (N, T, num_outputs)."""
        known = cache is not None and cache.used > 0
        prefix = None if known else self.project(self.seen_norm(seen))
        return self.transformer(tokens, cache=cache, prefix=prefix)


class CrossAttentionDecoder(nn.Module):
    """Every block of the transformer attends to the words so far and then to the vectors of the picture (Vaswani et al.
    2017, section 3.2.3)."""

    def __init__(
        self,
        num_tokens: int,  # of the input
        num_outputs: int,  # of the output: the first ones of the input's
        max_length: int,  # of the longest text
        seen_length: int,  # S, vectors of a picture
        seen_width: int,  # of each
        transformer: Callable[..., TokenTransformer],
    ):
        super().__init__()
        self.seen_norm = nn.LayerNorm(seen_width)
        self.transformer = transformer(
            num_tokens=num_tokens,
            num_outputs=num_outputs,
            max_length=max_length,
            causal=True,
            seen_width=seen_width,
        )

    def cache(self, num_rows: int, length: int) -> KeyValueCache:
        """An empty cache for ``num_rows`` pictures with texts of up to ``length`` tokens."""
        return self.transformer.cache(num_rows, length)

    def forward(self, tokens: Tensor, seen: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """``tokens``: (N, T); ``seen``: (N, S, seen_width), read once by a cache. -> logits (N, T, num_outputs)."""
        known = cache is not None and cache.used > 0
        return self.transformer(tokens, cache=cache, seen=seen if known else self.seen_norm(seen))

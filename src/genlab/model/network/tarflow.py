"""TarFlow (Zhai et al. 2024): a normalizing flow of causal transformers over the patches of an image."""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.model.network.attention import attend
from genlab.model.network.embedding import ConditionEmbedding, Told

Cache = list[tuple[Tensor, Tensor]]  # of each layer: keys and values so far, (N, heads, t, width / heads)


class TarFlow(nn.Module):
    """Affine autoregressive blocks that read the patches in turns from first to last and from last to first.

    A block maps each patch to ``(x - shift) * exp(-log_scale)``, where shift and log-scale come from a causal
    transformer over the patches before it (section 3.1, eq. 6 and 7), so the Jacobian is triangular. Unlike the
    published one, the first patch is transformed too: its context is a start token that carries the condition.
    """

    def __init__(
        self,
        shape: Sequence[int],  # of an image: (C, H, W)
        told: Told,  # the conditions by key
        patch_size: int = 2,  # pixels; a token is a square of that side
        width: int = 64,  # of a token
        num_blocks: int = 4,  # affine maps; every second one reads in reverse
        depth: int = 1,  # transformer layers of a block
        num_heads: int = 4,
        mlp_ratio: float = 4.0,  # hidden width of a layer's perceptron over its width
        dropout: float = 0.0,  # of what each half of a layer adds
    ):
        """
        Raises:
            ValueError: patches do not tile the image, or the width cannot be split into heads.
        """
        super().__init__()
        channels, height, image_width = shape
        if height % patch_size or image_width % patch_size:
            side = math.gcd(height, image_width, patch_size)
            raise ValueError(
                f"model/network=tarflow cuts the image into squares of {patch_size} pixels: {height}x{image_width} is "
                f"not divisible by {patch_size}. Use model.network.patch_size={side}."
            )
        if width % num_heads:
            raise ValueError(
                f"model.network.width={width} must be a multiple of model.network.num_heads={num_heads}. "
                "Change one of them."
            )
        self.patch_size = patch_size
        self.grid = (height // patch_size, image_width // patch_size)  # of patches
        num_tokens, features = self.grid[0] * self.grid[1], channels * patch_size**2
        self.blocks = nn.ModuleList(
            AffineBlock(num_tokens, features, told, width, depth, num_heads, mlp_ratio, dropout)
            for _ in range(num_blocks)
        )

    def forward(self, x: Tensor, condition: Mapping[str, Tensor] | None) -> tuple[Tensor, Tensor]:
        """Data to noise. ``x``: (N, C, H, W); ``condition``: by key, N rows each. -> noise like ``x``, and the
        logarithm of the Jacobian's determinant, (N,)."""
        tokens = self._tokens(x)
        log_det = tokens.new_zeros(len(x))
        for block in self.blocks:
            tokens, change = block(tokens, condition)
            tokens, log_det = tokens.flip(1), log_det + change
        return self._image(tokens), log_det

    def inverse(self, z: Tensor, condition: Mapping[str, Tensor] | None, guidance: float = 1.0) -> Tensor:
        """Noise to data, patch by patch. ``z``: (N, C, H, W). -> like ``z``.

        ``guidance`` w extrapolates every shift and log-scale from those of nothing told (section 3.4, eq. 11; their w
        is ours minus 1); 1 is the exact inverse of :meth:`forward`.
        """
        tokens = self._tokens(z)
        for block in reversed(self.blocks):
            tokens = block.inverse(tokens.flip(1), condition, guidance)  # type: ignore[operator]
        return self._image(tokens)

    def _tokens(self, x: Tensor) -> Tensor:
        return F.pixel_unshuffle(x, self.patch_size).flatten(2).mT  # (N, T, C * p * p)

    def _image(self, tokens: Tensor) -> Tensor:
        return F.pixel_shuffle(tokens.mT.unflatten(2, self.grid), self.patch_size)  # (N, C, H, W)


class AffineBlock(nn.Module):
    """One autoregressive affine map of a sequence, from its first token to its last."""

    def __init__(
        self,
        num_tokens: int,
        features: int,
        told: Told,
        width: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        dropout: float,
    ):
        super().__init__()
        self.stem = nn.Linear(features, width)
        self.start = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(num_tokens, width))  # of the token that is predicted
        self.told = ConditionEmbedding(told, width) if told else None
        self.layers = nn.ModuleList(CausalLayer(width, num_heads, mlp_ratio, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, 2 * features)
        nn.init.zeros_(self.out.weight)  # an untrained block is the identity
        nn.init.zeros_(self.out.bias)
        if self.told is not None:
            self.told.start_at(0.2)

    def forward(self, x: Tensor, condition: Mapping[str, Tensor] | None) -> tuple[Tensor, Tensor]:
        """(N, T, features) -> the same, and the log-determinant (N,)."""
        context = torch.cat(
            [self.start.expand(len(x), 1, -1), self.stem(x[:, :-1].to(self.stem.weight.dtype))], dim=1
        )  # (N, T, width)
        h = context + self.positions
        if self.told is not None:
            h = h + self.told(condition)[:, None]
        for layer in self.layers:
            h = layer(h)
        shift, log_scale = self._affine(h, x.dtype)
        return (x - shift) * torch.exp(-log_scale), -log_scale.sum(dim=(1, 2))

    def inverse(self, z: Tensor, condition: Mapping[str, Tensor] | None, guidance: float) -> Tensor:
        """(N, T, features) -> the same. Keys and values of the tokens before are kept, so a token costs one pass of
        one position."""
        guided = guidance != 1 and condition is not None and self.told is not None
        given: Tensor | None = None
        if self.told is not None:
            given = (self.told.guided(condition, len(z)) if guided else self.told(condition))[:, None]
        copies = 2 if guided else 1
        caches: Cache = [layer.empty(copies * len(z)) for layer in self.layers]  # type: ignore[operator]
        context = self.start.expand(copies * len(z), 1, -1)
        x = []
        for t, noise in enumerate(z.unbind(1)):
            h = context + self.positions[t : t + 1]  # (copies * N, 1, width)
            h = h if given is None else h + given
            for i, layer in enumerate(self.layers):
                h, caches[i] = layer.step(h, caches[i])  # type: ignore[operator]
            shift, log_scale = (half[:, 0] for half in self._affine(h, z.dtype))  # (copies * N, features)
            if guided:
                (free, told), (free_scale, told_scale) = shift.chunk(2), log_scale.chunk(2)
                shift, log_scale = torch.lerp(free, told, guidance), torch.lerp(free_scale, told_scale, guidance)
            x.append(noise * torch.exp(log_scale) + shift)
            context = self.stem(x[-1].repeat(copies, 1))[:, None]
        return torch.stack(x, dim=1)

    def _affine(self, h: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
        return self.out(self.norm(h)).to(dtype).chunk(2, dim=2)  # shift and log-scale, (N, t, features)


class CausalLayer(nn.Module):
    """A transformer layer with normalization first; a position sees itself and those before it."""

    def __init__(self, width: int, num_heads: int, mlp_ratio: float, dropout: float):
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.num_heads = num_heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.mixed = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, width) -> (N, T, width)."""
        query, key, value = self._heads(x)
        return self._add(x, attend(query, key, value, causal=True))

    def step(self, x: Tensor, cache: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The next position, (N, 1, width), given the keys and values before it. -> the same, and the longer cache."""
        query, key, value = self._heads(x)
        key, value = torch.cat([cache[0], key], dim=2), torch.cat([cache[1], value], dim=2)
        return self._add(x, attend(query, key, value)), (key, value)

    def empty(self, num: int) -> tuple[Tensor, Tensor]:
        """An empty cache for ``num`` sequences."""
        weight = self.mixed.weight
        return (weight.new_empty(num, self.num_heads, 0, len(weight) // self.num_heads),) * 2

    def _heads(self, x: Tensor) -> tuple[Tensor, ...]:
        qkv = self.qkv(self.norm1(x)).unflatten(2, (3, self.num_heads, -1))  # (N, T, 3, heads, width / heads)
        return qkv.permute(2, 0, 3, 1, 4).unbind()  # (N, heads, T, width / heads)

    def _add(self, x: Tensor, mixed: Tensor) -> Tensor:
        x = x + self.dropout(self.mixed(mixed.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.mlp(self.norm2(x)))

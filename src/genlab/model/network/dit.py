"""The diffusion transformer (Peebles and Xie 2023): patches as tokens, conditioned through adaptive layer norms."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.model.elsewhere import FROM_ELSEWHERE
from genlab.model.network.attention import CrossAttention, SelfAttention
from genlab.model.network.control import HintEncoder
from genlab.model.network.embedding import (
    CaptionEncoder,
    ConditionEmbedding,
    NoiseLevelEmbedding,
    Told,
    Words,
    sinusoids,
)

NUM_FREQUENCY_FEATURES = 256  # of the noise level, as published


class DiT(nn.Module):
    """A denoiser for images. The default size is DiT-S/2."""

    def __init__(
        self,
        shape: Sequence[int],  # of an image: (C, H, W)
        told: Told,  # the conditions by key
        patch_size: int = 2,  # pixels; a token is a square of that side
        width: int = 384,  # of a token
        depth: int = 12,  # blocks
        num_heads: int = 6,
        mlp_ratio: float = 4.0,  # hidden width of a block's perceptron over its width
        dropout: float = 0.0,  # of what each part of a block adds
        attends_to_words: bool = False,  # of captions, in every block; else a vector says it all
        caption_encoder: Annotated[
            CaptionEncoder | None, FROM_ELSEWHERE
        ] = None,  # hf:<a CLIP>; None: an embedding of words, trained with the rest
    ):
        """
        Raises:
            ValueError: patches do not tile the image, or the width cannot be split into heads or positions.
        """
        super().__init__()
        channels, self.height, self.width = shape
        check_sizes(shape, patch_size, width, num_heads, "dit")
        self.patch_size = patch_size
        self.stem = nn.Linear(channels * patch_size**2, width)
        self.noise_level = NoiseLevelEmbedding(NUM_FREQUENCY_FEATURES, width)
        self.told = ConditionEmbedding(told, width, caption_encoder) if told or attends_to_words else None
        words = self.told.width_of_words() if self.told is not None and attends_to_words else 0
        self.attends_to_words = attends_to_words
        self.blocks = nn.ModuleList(Block(width, num_heads, mlp_ratio, dropout, words) for _ in range(depth))
        self.modulation = nn.Linear(width, 2 * width)  # of the last layer norm
        self.out = nn.Linear(width, channels * patch_size**2)
        positions = grid_positions(self.height // patch_size, self.width // patch_size, width)
        self.positions: Tensor
        self.register_buffer("positions", positions, persistent=False)
        self._initialize()

    def _initialize(self) -> None:
        """As published; what is zero makes every block, and the whole network, start as a residual of nothing."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        small = [self.noise_level.hidden.weight, self.noise_level.out.weight]  # so that all conditions start alike
        for weight in small:
            nn.init.normal_(weight, std=0.02)
        if self.told is not None:
            self.told.start_at(0.02)
        for module in [*self.blocks, self]:  # adaLN-Zero
            nn.init.zeros_(module.modulation.weight)  # type: ignore[union-attr, arg-type]
        for block in self.blocks:
            if (reading := getattr(block, "reading", None)) is not None:
                nn.init.zeros_(reading.out.weight)
        nn.init.zeros_(self.out.weight)

    def forward(
        self,
        x: Tensor,
        noise_level: Tensor,
        condition: Mapping[str, Tensor] | None,
        control: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """``x``: (N, C, H, W); ``noise_level``: (N,); ``condition``: by key, N rows each; ``control``: what a branch of
        :meth:`control_branch` puts out, which is added after the first blocks. -> (N, C, H, W)."""
        tokens, (rows, columns) = self.begin(x)  # (N, T, width)
        embedding, words = self.embed(noise_level, condition)  # (N, width)
        for number, block in enumerate(self.blocks):
            tokens = block(tokens, embedding, words)
            if control is not None and number < len(control):
                tokens = tokens + control[number]
        scale, shift = self.modulation(embedding)[:, None].chunk(2, dim=2)
        patches = self.out(modulate(tokens, scale, shift)).mT.unflatten(2, (rows, columns))
        return F.pixel_shuffle(patches, self.patch_size)

    def begin(self, x: Tensor) -> tuple[Tensor, Sequence[int]]:
        """Patches of images (N, C, H, W) as tokens (N, T, width), and how many rows and columns of them there are."""
        patches = F.pixel_unshuffle(x.to(self.stem.weight.dtype), self.patch_size)  # (N, C * p * p, H / p, W / p)
        return self.stem(patches.flatten(2).mT) + self.positions, patches.shape[2:]

    def embed(self, noise_level: Tensor, condition: Mapping[str, Tensor] | None) -> tuple[Tensor, Words | None]:
        """What modulates blocks, (N, width), and the words that they attend to, if they do."""
        embedding = self.noise_level(noise_level)  # (N, width)
        words = None
        if self.told is not None and self.attends_to_words:
            told, words = self.told.with_words(condition)
            embedding = embedding + told
        elif self.told is not None:
            embedding = embedding + self.told(condition)
        return F.silu(embedding), words

    def control_branch(self, hint_channels: int) -> "DiTBranch":
        """A trainable copy of the first half of the blocks, which reads a hint (N, hint_channels, H, W) too."""
        return DiTBranch(self, hint_channels)


class DiTBranch(nn.Module):
    """The control of a diffusion transformer (Chen et al. 2024, arXiv:2401.05252, section 3.3): a copy of the first
    half of its blocks, which sees a hint, and a zero-initialized linear map for what each of them puts out."""

    def __init__(self, network: DiT, hint_channels: int):
        super().__init__()
        for name in ("noise_level", "told", "stem"):
            self.register_module(name, copy.deepcopy(getattr(network, name)))
        self.attends_to_words, self.patch_size = network.attends_to_words, network.patch_size
        self.positions: Tensor
        self.register_buffer("positions", network.positions.clone(), persistent=False)
        self.blocks = copy.deepcopy(network.blocks[: (len(network.blocks) + 1) // 2])
        width = network.stem.out_features
        self.hint = HintEncoder(hint_channels, self.patch_size, width)
        self.links = nn.ModuleList(_zero(nn.Linear(width, width)) for _ in self.blocks)
        self.requires_grad_(True)

    def copied_from(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of the state dict of the network, what this one begins with, by its own names."""
        return {name: value for name, value in weights.items() if name in {*self.state_dict()}}

    begin, embed = DiT.begin, DiT.embed

    def forward(
        self, x: Tensor, noise_level: Tensor, condition: Mapping[str, Tensor] | None, hint: Tensor
    ) -> list[Tensor]:
        """``hint``: (N, hint_channels, H, W). -> what is added after each of the first blocks."""
        embedding, words = self.embed(noise_level, condition)  # type: ignore[misc]
        tokens = self.begin(x)[0] + self.hint(hint).flatten(2).mT  # type: ignore[misc]
        outputs = []
        for block, link in zip(self.blocks, self.links, strict=True):
            tokens = block(tokens, embedding, words)
            outputs.append(link(tokens))
        return outputs


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Block(nn.Module):
    """Attention and a perceptron, each scaled, shifted and gated by the embedding (figure 3, adaLN-Zero). Between them,
    if ``words`` is not 0, attention to a caption's tokens of that width, as in PixArt-alpha (Chen et al. 2023)."""

    def __init__(self, width: int, num_heads: int, mlp_ratio: float, dropout: float, words: int = 0):
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.attention = SelfAttention(width, num_heads)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width))
        self.modulation = nn.Linear(width, 6 * width)
        self.dropout = nn.Dropout(dropout)
        if words > 0:
            self.reading = CrossAttention(width, words, num_heads)

    def forward(self, tokens: Tensor, embedding: Tensor, words: Words | None = None) -> Tensor:
        """(N, T, width), (N, width) -> (N, T, width)."""
        scale1, shift1, gate1, scale2, shift2, gate2 = self.modulation(embedding)[:, None].chunk(6, dim=2)
        tokens = tokens + gate1 * self.dropout(self.attention(modulate(tokens, scale1, shift1)))
        if words is not None:
            tokens = tokens + self.dropout(self.reading(tokens, *words))
        return tokens + gate2 * self.dropout(self.mlp(modulate(tokens, scale2, shift2)))


def check_sizes(shape: Sequence[int], patch_size: int, width: int, num_heads: int, name: str) -> None:
    """Raises ValueError: patches do not tile the image, or the width cannot be split into heads or positions."""
    _, height, across = shape
    if height % patch_size or across % patch_size:
        side = math.gcd(height, across, patch_size)
        raise ValueError(
            f"model/network={name} cuts the image into squares of {patch_size} pixels: {height}x{across} is "
            f"not divisible by {patch_size}. Use model.network.patch_size={side}."
        )
    if width % num_heads or width % 4:
        raise ValueError(
            f"model.network.width={width} must be a multiple of model.network.num_heads={num_heads} and of 4. "
            "Change one of them."
        )


def modulate(tokens: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """A layer norm whose scale and shift depend on the example. (N, T, width), (N, 1, width) twice -> (N, T, width)."""
    return F.layer_norm(tokens, tokens.shape[2:], eps=1e-6) * (1 + scale) + shift


def grid_positions(height: int, width: int, num_features: int) -> Tensor:
    """Fixed positions: half the features say the row, half say the column. -> (height * width, num_features)."""
    half = num_features // 2
    rows = sinusoids(torch.arange(height).float(), half)[:, None].expand(height, width, half)
    columns = sinusoids(torch.arange(width).float(), half)[None].expand(height, width, half)
    return torch.cat([rows, columns], dim=2).flatten(0, 1)

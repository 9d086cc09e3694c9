"""The multimodal diffusion transformer (Esser et al. 2024): patches and words attend to each other."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.model.elsewhere import FROM_ELSEWHERE
from genlab.model.network.attention import attend
from genlab.model.network.dit import NUM_FREQUENCY_FEATURES, check_sizes, grid_positions, modulate
from genlab.model.network.embedding import (
    NO_LABEL,
    CaptionEncoder,
    ConditionEmbedding,
    NoiseLevelEmbedding,
    Told,
    Words,
)
from genlab.model.network.fused_linear import FusedLinear


class MMDiT(nn.Module):
    """A denoiser for images with captions. Words and patches have weights of their own, and one attention in common.
    Without captions, what else the model is told stands for the words: a token for each condition."""

    def __init__(
        self,
        shape: Sequence[int],  # of an image: (C, H, W)
        told: Told,  # the conditions by key
        patch_size: int = 2,  # pixels; a token is a square of that side
        width: int = 384,  # of a token, of either kind
        depth: int = 12,  # blocks
        num_heads: int = 6,
        mlp_ratio: float = 4.0,  # hidden width of a block's perceptrons over its width
        qk_norm: bool = True,  # queries and keys of unit root mean square, which keeps bf16 stable (section 5.3.2)
        caption_encoder: Annotated[
            CaptionEncoder | None, FROM_ELSEWHERE
        ] = None,  # hf:<a text encoder>; None: an embedding of words, trained with the rest
    ):
        """
        Raises:
            ValueError: patches do not tile the image, or the width cannot be split into heads or positions.
        """
        super().__init__()
        channels, height, _ = shape
        check_sizes(shape, patch_size, width, num_heads, "mmdit")
        self.patch_size = patch_size
        self.told = ConditionEmbedding(told or NO_LABEL, width, caption_encoder)
        self.words = nn.Linear(self.told.width_of_words() if self.told.has_captions else width, width)
        self.stem = nn.Linear(channels * patch_size**2, width)
        self.noise_level = NoiseLevelEmbedding(NUM_FREQUENCY_FEATURES, width)
        self.blocks = nn.ModuleList(
            JointBlock(width, num_heads, mlp_ratio, qk_norm, is_last=i == depth - 1) for i in range(depth)
        )
        self.modulation = nn.Linear(width, 2 * width)  # of the last layer norm
        self.out = nn.Linear(width, channels * patch_size**2)
        self.positions: Tensor
        positions = grid_positions(height // patch_size, shape[2] // patch_size, width)
        self.register_buffer("positions", positions, persistent=False)
        self._initialize()

    def _initialize(self) -> None:
        """As DiT: what is zero makes every block, and the whole network, start as a residual of nothing."""
        for module in [self.words, self.stem, *self.blocks.modules(), self.noise_level.hidden, self.noise_level.out]:
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for weight in (self.noise_level.hidden.weight, self.noise_level.out.weight):
            nn.init.normal_(weight, std=0.02)
        self.told.start_at(0.02)
        for block in self.blocks:
            for stream in (block.image, block.text):
                nn.init.zeros_(stream.modulation.weight)  # type: ignore[union-attr, arg-type]
        for layer in (self.modulation, self.out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, noise_level: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        """``x``: (N, C, H, W); ``noise_level``: (N,); ``condition``: by key, N rows each. -> (N, C, H, W)."""
        patches = F.pixel_unshuffle(x.to(self.stem.weight.dtype), self.patch_size)  # (N, C * p * p, H / p, W / p)
        image = self.stem(patches.flatten(2).mT) + self.positions  # (N, T, width)
        if self.told.has_captions:
            told, words = self.told.with_words(condition)
        else:
            vectors = self.told.side_by_side(condition, len(x)).unflatten(1, (len(self.told), -1))  # (N, keys, width)
            told, words = vectors.sum(dim=1), Words(vectors, vectors.new_ones(vectors.shape[:2], dtype=torch.bool))
        embedding = F.silu(self.noise_level(noise_level) + told)  # (N, width)
        text = self.words(words.tokens).expand(len(x), -1, -1)  # (N, S, width)
        seen = words.seen.expand(len(x), -1)
        for block in self.blocks:
            image, text = block(image, text, seen, embedding)
        scale, shift = self.modulation(embedding)[:, None].chunk(2, dim=2)
        patches = self.out(modulate(image, scale, shift)).mT.unflatten(2, patches.shape[2:])
        return F.pixel_shuffle(patches, self.patch_size)


class JointBlock(nn.Module):
    """A block of both streams (figure 2b): adaLN-Zero as in DiT, attention of all tokens to all. The last one leaves
    the words as they are, since nothing reads them any more."""

    passes_values = False  # whether image tokens have their own values in place of attention; words attend as ever

    def __init__(self, width: int, num_heads: int, mlp_ratio: float, qk_norm: bool, is_last: bool = False):
        super().__init__()
        self.num_heads, self.is_last = num_heads, is_last
        self.image = Stream(width, num_heads, mlp_ratio, qk_norm)
        self.text = Stream(width, num_heads, mlp_ratio, qk_norm, is_read_alone=is_last)

    def forward(self, image: Tensor, text: Tensor, seen: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T, width), (N, S, width), (N, S) bool: false where there is no word, (N, width). -> the first two."""
        of_image, image_modulation = self.image.queries(image, embedding)
        of_text, text_modulation = self.text.queries(text, embedding)
        query, key, value = (torch.cat(pair, dim=2) for pair in zip(of_image, of_text, strict=True))
        all_seen = F.pad(seen, (image.shape[1], 0), value=True)  # (N, T + S)
        mixed = attend(query, key, value, mask=all_seen[:, None, None])
        if self.passes_values:
            mixed = torch.cat([of_image[2], mixed[:, :, image.shape[1] :]], dim=2)
        from_image, from_text = mixed.transpose(1, 2).flatten(2).split([image.shape[1], text.shape[1]], dim=1)
        image = self.image.add(image, from_image, image_modulation)
        return image, text if self.is_last else self.text.add(text, from_text, text_modulation)


class Stream(nn.Module):
    """The weights of one kind of tokens in a block. ``is_read_alone``: others attend to them, they do not change."""

    def __init__(self, width: int, num_heads: int, mlp_ratio: float, qk_norm: bool, is_read_alone: bool = False):
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.num_heads, self.is_read_alone = num_heads, is_read_alone
        self.modulation = nn.Linear(width, (2 if is_read_alone else 6) * width)
        self.qkv = FusedLinear(width, {"query": width, "key": width, "value": width})
        norm = (width // num_heads, 1e-6)
        self.query_norm = nn.RMSNorm(*norm) if qk_norm else nn.Identity()
        self.key_norm = nn.RMSNorm(*norm) if qk_norm else nn.Identity()
        if not is_read_alone:
            self.out = nn.Linear(width, width)
            self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width))

    def queries(self, tokens: Tensor, embedding: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], list[Tensor]]:
        """Queries, keys and values (N, heads, T, width / heads), and the modulation that :meth:`add` goes on with."""
        scale, shift, *others = self.modulation(embedding)[:, None].chunk(2 if self.is_read_alone else 6, dim=2)
        qkv = self.qkv(modulate(tokens, scale, shift)).unflatten(2, (3, self.num_heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind()
        return (self.query_norm(query), self.key_norm(key), value), others

    def add(self, tokens: Tensor, mixed: Tensor, modulation: Sequence[Tensor]) -> Tensor:
        gate1, scale2, shift2, gate2 = modulation
        tokens = tokens + gate1 * self.out(mixed)
        return tokens + gate2 * self.mlp(modulate(tokens, scale2, shift2))

"""A vision transformer: an image as a sequence of vectors, one for each patch and one for the whole."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.model.network.attention import SelfAttention
from genlab.model.network.feed_forward import FeedForward
from genlab.model.network.group_norm import group_norm

EPSILON = 1e-6  # of layer norms, as in the published models
_STD = 0.02  # of weights at the start


class ViT(nn.Module):
    """The encoder of Dosovitskiy et al. (2021, section 3.1): patches, embedded linearly (or by a few convolutions), a
    class token before them, learned positions, and pre-norm transformer blocks.

    Weights start normal with deviation 0.02, cut off at two deviations; biases start at zero.
    """

    def __init__(
        self,
        shape: Sequence[int],  # of an image (C, H, W)
        patch_size: int = 4,  # pixels; divides both sides
        width: int = 192,
        depth: int = 6,
        num_heads: int = 4,
        mlp_ratio: float = 4.0,  # hidden units of a feed-forward network / width
        dropout: float = 0.0,  # of embeddings, and of what each block adds
        stem: Literal["linear", "convolutions"] = "linear",  # how a patch becomes a vector
    ):
        """Raises ValueError: patches that do not tile the image, heads that do not divide the width, or
        convolutions for patches whose side is not 2, 4, 8, ..."""
        super().__init__()
        channels, height, across = checked_sides(shape, patch_size)
        if width % num_heads:
            raise ValueError(f"num_heads={num_heads} must divide width={width}.")
        self.shape, self.patch_size, self.width = tuple(shape), patch_size, width
        self.grid = height // patch_size, across // patch_size  # patches in a column and in a row of them
        self.length = 1 + self.grid[0] * self.grid[1]  # vectors: the class token and P patches
        self.patches: nn.Module = nn.Conv2d(channels, width, patch_size, stride=patch_size)
        if stem == "convolutions":
            self.patches = _convolutions(channels, width, patch_size)
        self.class_token = nn.Parameter(torch.empty(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, self.length, width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(ViTBlock(width, num_heads, mlp_ratio, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.initialize()

    def initialize(self) -> None:
        for tensor in (self.class_token, self.positions):
            nn.init.trunc_normal_(tensor, std=_STD, a=-2 * _STD, b=2 * _STD)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=_STD, a=-2 * _STD, b=2 * _STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) on [-1, 1] -> (N, 1 + P, width): the class token, then the P patches row by row, each
        after the last layer norm."""
        return self.tokens(images)

    def tokens(self, image: Tensor) -> Tensor:
        """As :meth:`forward` of this class."""
        x = self.patches(image).flatten(2).transpose(1, 2)  # (N, P, width)
        x = torch.cat([self.class_token.expand(len(x), -1, -1).to(x.dtype), x], dim=1)
        x = self.dropout(x + self.positions)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def of_patches(self, tokens: Tensor) -> Tensor:
        """:meth:`tokens` without the class token: (N, P, width)."""
        return tokens[:, 1:]


class ViTFeatures(ViT):
    """The same, as a network of features: the class token's vector, or the mean of those of the patches."""

    def __init__(
        self,
        shape: Sequence[int],  # of an image (C, H, W)
        patch_size: int = 4,  # pixels; divides both sides
        width: int = 192,
        depth: int = 6,
        num_heads: int = 4,
        mlp_ratio: float = 4.0,  # hidden units of a feed-forward network / width
        dropout: float = 0.0,  # of embeddings, and of what each block adds
        stem: Literal["linear", "convolutions"] = "linear",  # how a patch becomes a vector
        features: Literal["class_token", "mean"] = "class_token",
    ):
        """Raises ValueError as :class:`ViT` does."""
        super().__init__(shape, patch_size, width, depth, num_heads, mlp_ratio, dropout, stem)
        self.num_features, self.is_mean = width, features == "mean"

    def forward(self, image: Tensor) -> Tensor:
        """Images (N, C, H, W) on [-1, 1] -> (N, num_features)."""
        vectors = self.tokens(image)
        return self.of_patches(vectors).mean(dim=1) if self.is_mean else vectors[:, 0]


class ViTBlock(nn.Module):
    """Attention, then a feed-forward network, each of normalized input and added to it."""

    def __init__(self, width: int, num_heads: int, mlp_ratio: float, dropout: float):
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=EPSILON)
        self.attention = SelfAttention(width, num_heads)
        self.feed_forward_norm = nn.LayerNorm(width, eps=EPSILON)
        self.feed_forward = FeedForward(width, nn.GELU(), expansion=mlp_ratio, bias=True)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, width) -> (N, T, width)."""
        x = x + F.dropout(self.attention(self.attention_norm(x)), self.dropout, self.training)
        return x + F.dropout(self.feed_forward(self.feed_forward_norm(x)), self.dropout, self.training)


def _convolutions(channels: int, width: int, patch_size: int) -> nn.Sequential:
    """The stem of Xiao et al. (2021, "Early Convolutions Help Transformers See Better", section 4), with group in place
    of batch normalization: 3x3 convolutions that halve the image and double their channels, each followed by one that
    does not, then a linear map. All places share what is learned of edges and corners, so that shapes are told apart
    after fewer examples: at patches of 4, a vector has seen 19 pixels."""
    halvings = round(math.log2(patch_size))
    if halvings < 1 or 2**halvings != patch_size or width % 2**halvings:
        raise ValueError(
            f"stem=convolutions halves the image: patch_size={patch_size} must be 2, 4, 8, ..., and divide "
            f"width={width}."
        )
    layers: list[nn.Module] = []
    for step in range(halvings):
        wider = width // 2 ** (halvings - 1 - step)
        for stride in (2, 1):
            layers += [nn.Conv2d(channels, wider, 3, stride, padding=1), group_norm(wider), nn.ReLU()]
            channels = wider
    return nn.Sequential(*layers, nn.Conv2d(width, width, 1))


def checked_sides(shape: Sequence[int], patch_size: int) -> tuple[int, int, int]:
    """(C, H, W). Raises ValueError: not an image's, or patches do not tile it."""
    if len(shape) != 3:
        raise ValueError(f"a vision transformer sees images (C, H, W); the data have shape {tuple(shape)}.")
    channels, height, width = shape
    if patch_size < 1 or height % patch_size or width % patch_size:
        raise ValueError(f"patch_size={patch_size} does not divide both sides of images of {height} x {width} pixels.")
    return channels, height, width

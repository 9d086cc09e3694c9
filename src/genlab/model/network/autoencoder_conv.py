"""Convolutions between images and latents: residual blocks that halve the image step by step, and double it again."""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.model.network.embedding import NO_LABEL, ConditionEmbedding, Told
from genlab.model.network.group_norm import group_norm
from genlab.model.network.unet import Block

_COARSEST = 4  # side of the feature map that is mapped to a vector


class ConvEncoder(nn.Module):
    """Images to the parameters of their latents."""

    def __init__(
        self,
        shape: Sequence[int],  # of an image: (C, H, W)
        latent_shape: Sequence[int],  # (Z, h, w); a vector is (Z, 1, 1)
        told: Told,  # the conditions by key
        out_channels: int,  # for each place of the latent
        channels: int = 32,  # at the finest resolution; each halving doubles them
        max_channels: int = 128,
        num_blocks: int = 1,  # at each resolution
        patch_size: int = 1,  # side of pixel blocks at the finest feature map: 2 costs a quarter
        dropout: float = 0.0,
    ):
        """Raises ValueError: the latent is larger than the image in patches, the image is not made of whole patches, or
        the channels cannot be split into groups."""
        super().__init__()
        shape = in_patches(shape, patch_size)
        sizes = sizes_between(shape, latent_shape)
        widths = widths_of(channels, max_channels, len(sizes))
        embedding = 4 * channels
        self.told = ConditionEmbedding(told or NO_LABEL, embedding)
        self.to_patches = nn.PixelUnshuffle(patch_size)
        self.stem = nn.Conv2d(shape[0], channels, 3, padding=1)
        self.blocks = nn.ModuleList()
        current = channels
        for i, (width, size) in enumerate(zip(widths, sizes, strict=True)):
            if i > 0:
                self.blocks.append(Block(current, width, embedding, nn.AdaptiveAvgPool2d(size), 0, dropout))
                current = width
            self.blocks.extend(Block(current, current, embedding, nn.Identity(), 0, dropout) for _ in range(num_blocks))
        self.norm = group_norm(current)
        is_vector = tuple(latent_shape[1:]) == (1, 1)
        self.out = nn.Conv2d(current, out_channels, sizes[-1] if is_vector else 1)

    def forward(self, image: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        """``image``: (N, C, H, W); ``condition``: by key, N rows each. -> (N, out_channels, h, w)."""
        embedding = F.silu(self.told(condition))  # (N or 1, 4 * channels)
        h = self.stem(self.to_patches(image).to(self.stem.weight.dtype))
        for block in self.blocks:
            h = block(h, embedding)
        return self.out(F.silu(self.norm(h)))


class ConvDecoder(nn.Module):
    """Latents to images, or to the parameters of their distribution. A vector also scales and shifts every block."""

    def __init__(
        self,
        shape: Sequence[int],  # of an image: (C, H, W)
        latent_shape: Sequence[int],  # (Z, h, w); a vector is (Z, 1, 1)
        told: Told,  # the conditions by key
        out_channels: int,  # for each pixel
        channels: int = 32,  # at the finest resolution; each halving doubles them
        max_channels: int = 128,
        num_blocks: int = 1,  # at each resolution
        patch_size: int = 1,  # side of pixel blocks at the finest feature map: 2 costs a quarter
        dropout: float = 0.0,
    ):
        """Raises ValueError: the latent is larger than the image in patches, the image is not made of whole patches, or
        the channels cannot be split into groups."""
        super().__init__()
        sizes = sizes_between(in_patches(shape, patch_size), latent_shape)[::-1]
        widths = widths_of(channels, max_channels, len(sizes))[::-1]
        embedding, current = 4 * channels, widths[0]
        self.told = ConditionEmbedding(told or NO_LABEL, embedding)
        is_vector = tuple(latent_shape[1:]) == (1, 1)
        self.style = nn.Linear(latent_shape[0], embedding) if is_vector else None
        self.num_places = latent_shape[1] * latent_shape[2]
        self.stem = nn.ConvTranspose2d(latent_shape[0], current, sizes[0] if is_vector else 1)
        self.blocks = nn.ModuleList()
        for i, (width, size) in enumerate(zip(widths, sizes, strict=True)):
            if i > 0:
                self.blocks.append(Block(current, width, embedding, nn.Upsample(size), 0, dropout))
                current = width
            self.blocks.extend(Block(current, current, embedding, nn.Identity(), 0, dropout) for _ in range(num_blocks))
        self.norm = group_norm(current)
        self.out = nn.Conv2d(current, out_channels * patch_size**2, 3, padding=1)
        self.to_pixels = nn.PixelShuffle(patch_size)

    def latent_maps(self) -> Tensor:
        """(outputs, Z h w), of the first feature map, and of the style if the latent is a vector."""
        weight = self.stem.weight  # (Z, channels, kh, kw)
        if self.style is not None:
            return torch.cat([weight.flatten(1).T, self.style.weight])
        return torch.kron(weight[:, :, 0, 0].T.contiguous(), torch.eye(self.num_places).to(weight))

    def forward(self, latent: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        """``latent``: (N, Z, h, w); ``condition``: by key, N rows each. -> (N, out_channels, H, W)."""
        latent = latent.to(self.stem.weight.dtype)
        embedding = self.told(condition)  # (N or 1, 4 * channels)
        if self.style is not None:
            embedding = embedding + self.style(latent.flatten(1))
        embedding = F.silu(embedding)
        h = self.stem(latent)
        for block in self.blocks:
            h = block(h, embedding)
        return self.to_pixels(self.out(F.silu(self.norm(h))))


def in_patches(shape: Sequence[int], patch_size: int) -> tuple[int, int, int]:
    """(C, H, W) with patches as channels. Raises ValueError: not whole patches."""
    channels, height, width = shape
    if height % patch_size or width % patch_size:
        raise ValueError(f"patch_size={patch_size} does not divide an image of {height}x{width}. Use one that does.")
    return channels * patch_size**2, height // patch_size, width // patch_size


def sizes_between(shape: Sequence[int], latent_shape: Sequence[int]) -> list[tuple[int, int]]:
    """(H, W) of the feature maps from an image to its latent, each about half the last; a vector is read off 4 x 4.

    Raises:
        ValueError: the latent is larger than the image.
    """
    (_, height, width), (_, low, narrow) = shape, latent_shape
    if low > height or narrow > width:
        raise ValueError(f"a latent of {low}x{narrow} is larger than the image of {height}x{width}. Use a smaller one.")
    if (low, narrow) == (1, 1):
        low, narrow = min(_COARSEST, height), min(_COARSEST, width)
    sizes = [(height, width)]
    while sizes[-1] != (low, narrow):
        sizes.append((max(low, math.ceil(sizes[-1][0] / 2)), max(narrow, math.ceil(sizes[-1][1] / 2))))
    return sizes


def widths_of(channels: int, max_channels: int, count: int) -> list[int]:
    """Channels at each of ``count`` resolutions, the finest first. Raises ValueError: not multiples of 4."""
    if channels % 4 or max_channels % 4:
        raise ValueError(
            f"channels={channels} and max_channels={max_channels} must be multiples of 4, for their groups."
        )
    return [channels, *(min(channels * 2**i, max(channels, max_channels)) for i in range(1, count))]

"""Vision transformers of which only some patches are seen: an encoder, and a predictor of the others."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from genlab.model.network.dit import grid_positions
from genlab.model.network.vit import EPSILON, ViTBlock, checked_sides

_STD = 0.02  # of tokens at the start


class MaskedViT(nn.Module):
    """A vision transformer (Dosovitskiy et al. 2021) with fixed positions, half of whose features are sines and cosines
    of the row, half of the column, that encodes all patches of an image or those that it is shown.

    A class token, which has no position, is seen with them, as in masked autoencoders (He et al. 2022, section 3);
    I-JEPA (Assran et al. 2023) has none.
    """

    def __init__(
        self,
        shape: Sequence[int],  # of an image: (C, H, W)
        patch_size: int = 2,  # pixels; divides both sides
        width: int = 128,
        depth: int = 4,
        num_heads: int = 4,
        mlp_ratio: float = 4.0,  # hidden units of a feed-forward network / width
        class_token: bool = True,
        features: Literal["class_token", "mean"] = "mean",  # of an image: see forward
    ):
        """Raises ValueError: patches that do not tile the image, heads that do not divide the width, a width that is
        no multiple of 4, or features of a class token without one."""
        super().__init__()
        channels, height, across = checked_sides(shape, patch_size)
        check_width(width, num_heads)
        if features == "class_token" and not class_token:
            raise ValueError("features=class_token needs a class token. Use features=mean, or class_token=true.")
        self.shape, self.patch_size, self.width = (channels, height, across), patch_size, width
        self.num_features, self.is_mean = width, features == "mean"
        self.grid = height // patch_size, across // patch_size  # patches in a column and in a row of them
        self.patches = nn.Conv2d(channels, width, patch_size, stride=patch_size)
        self.class_token = nn.Parameter(torch.empty(1, 1, width)) if class_token else None
        self.blocks = nn.ModuleList(ViTBlock(width, num_heads, mlp_ratio, dropout=0.0) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.positions: Tensor
        self.register_buffer("positions", grid_positions(*self.grid, width), persistent=False)  # (P, width)
        _initialize(self)

    def forward(self, image: Tensor) -> Tensor:
        """Images (N, C, H, W) on [-1, 1] -> their features (N, width): the class token after the last layer norm, or
        the mean of all patches after it."""
        return self.pooled(self.tokens(image))

    def tokens(self, image: Tensor, seen: Tensor | None = None) -> Tensor:
        """Images (N, C, H, W), and the numbers of the K patches of each that are seen, (N, K), counted row by row;
        None: all in order. -> (N, K, width) after the last layer norm, behind the class token if there is one."""
        x = self.patches(image).flatten(2).mT + self.positions  # (N, P, width)
        if seen is not None:
            x = x.take_along_dim(seen[:, :, None], dim=1)
        if self.class_token is not None:
            x = torch.cat([self.class_token.expand(len(x), -1, -1).to(x.dtype), x], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def pooled(self, tokens: Tensor) -> Tensor:
        """Features (N, width) of what :meth:`tokens` gives."""
        return self.of_patches(tokens).mean(dim=1) if self.is_mean else tokens[:, 0]

    def of_patches(self, tokens: Tensor) -> Tensor:
        """:meth:`tokens` without the class token: (N, K, width)."""
        return tokens if self.class_token is None else tokens[:, 1:]


class MaskedPredictor(nn.Module):
    """Vectors of the patches that are seen to vectors of others: the decoder of a masked autoencoder (He et al. 2022,
    section 3), and the predictor of I-JEPA (Assran et al. 2023, section 3).

    A transformer on the mapped vectors, and on a learned mask token for each patch that is asked for, all with their
    fixed positions. Without these it would not know the order of its input, so the sequence need not be in order.
    """

    def __init__(
        self,
        in_features: int,  # of a vector of what is seen
        out_features: int,  # of what is predicted
        grid: tuple[int, int],  # patches in a column and in a row of them
        width: int = 64,
        depth: int = 2,
        num_heads: int = 4,
        mlp_ratio: float = 4.0,  # hidden units of a feed-forward network / width
    ):
        """Raises ValueError: heads that do not divide the width, or a width that is no multiple of 4."""
        super().__init__()
        check_width(width, num_heads)
        self.stem = nn.Linear(in_features, width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.blocks = nn.ModuleList(ViTBlock(width, num_heads, mlp_ratio, dropout=0.0) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.out = nn.Linear(width, out_features)
        self.positions: Tensor
        self.register_buffer("positions", grid_positions(*grid, width), persistent=False)  # (P, width)
        _initialize(self)

    def forward(self, tokens: Tensor, seen: Tensor, asked: Tensor) -> Tensor:
        """``tokens`` (N, K, in_features), or one more, a class token before them; the numbers of their patches (N, K),
        and of the M that are asked for (N, M). -> (N, M, out_features)."""
        x = self.stem(tokens)
        before = x.shape[1] - seen.shape[1]  # a class token or none
        known = x[:, before:] + self.positions[seen]
        wanted = self.mask_token.to(x.dtype) + self.positions[asked]
        x = torch.cat([x[:, :before], known, wanted], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.out(self.norm(x[:, -asked.shape[1] :]))


def _initialize(network: nn.Module) -> None:
    """As masked autoencoders are: beside positions of about 0.7, patches of few pixels are to be seen."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(module.weight.flatten(1))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for token in network.parameters(recurse=False):
        nn.init.normal_(token, std=_STD)


def check_width(width: int, num_heads: int) -> None:
    """Raises ValueError: it cannot be split into heads, or into four parts of positions."""
    if width % num_heads or width % 4:
        raise ValueError(f"width={width} must be a multiple of num_heads={num_heads} and of 4.")

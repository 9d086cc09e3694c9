"""The network of a hierarchical VAE: features up from the image, latents down to it again (Child 2021, figure 3)."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.model.network.autoencoder_conv import in_patches, sizes_between, widths_of
from genlab.model.network.embedding import NO_LABEL, ConditionEmbedding, Told
from genlab.model.network.group_norm import group_norm
from genlab.model.network.unet import Block

Draw = Callable[[Tensor, Tensor | None], Tensor]  # prior and posterior, (N, 2 Z, h, w) each -> z (N, Z, h, w)


class ConvLadder(nn.Module):
    """Residual blocks up and down through the same resolutions, with layers of latents on the way down."""

    def __init__(
        self,
        shape: Sequence[int],  # of an image: (C, H, W)
        latent_shapes: Sequence[Sequence[int]],  # (Z, h, w) of each layer, the top (and coarsest) first
        told: Told,  # the conditions by key
        out_channels: int,  # for each pixel
        channels: int = 32,  # at the finest resolution; each halving doubles them
        max_channels: int = 128,
        num_blocks: int = 1,  # at each resolution, up; down there is one for each layer of latents, too
        patch_size: int = 1,  # side of pixel blocks at the finest feature map: 2 costs a quarter
        dropout: float = 0.0,
    ):
        """Raises ValueError: latents larger than the image in patches or than those below them, an image that is not
        made of whole patches, channels without groups."""
        super().__init__()
        shape = in_patches(shape, patch_size)
        sizes = _sizes(shape, latent_shapes)
        widths = widths_of(channels, max_channels, len(sizes))
        embedding = 4 * channels
        self.told = ConditionEmbedding(told or NO_LABEL, embedding)
        self.to_patches, self.to_pixels = nn.PixelUnshuffle(patch_size), nn.PixelShuffle(patch_size)
        self.stem = nn.Conv2d(shape[0], channels, 3, padding=1)
        self.up, self.down = nn.ModuleList(), nn.ModuleList()
        current = channels
        for width, size in zip(widths, sizes, strict=True):
            self.up.append(Up(current, width, embedding, size, num_blocks, dropout))
            current = width
        self.top = nn.Parameter(torch.zeros(1, current, *sizes[-1]))
        for width, size in reversed(list(zip(widths, sizes, strict=True))):
            here = [latent[0] for latent in latent_shapes if tuple(latent[1:]) == size]
            self.down.append(Down(current, width, embedding, size, here, dropout))
            current = width
        self.last = Block(current, current, embedding, nn.Identity(), 0, dropout)
        self.norm = group_norm(current)
        self.out = nn.Conv2d(current, out_channels * patch_size**2, 3, padding=1)

    def forward(self, image: Tensor | None, condition: Mapping[str, Tensor] | None, draw: Draw, count: int) -> Tensor:
        """``image``: (N, C, H, W), or None to go down alone; ``condition``: by key, N rows each.

        ``draw`` is called once for each layer, the top first, with its prior and, given an image, its posterior, which
        is relative to the prior: (N, 2 Z, h, w) each, means and log scales. -> (count, out_channels, H, W)."""
        embedding = F.silu(self.told(condition))  # (N or 1, 4 * channels)
        features: list[Tensor | None] = [None] * len(self.up)
        if image is not None:
            h = self.stem(self.to_patches(image).to(self.stem.weight.dtype))
            for i, up in enumerate(self.up):
                h = features[i] = up(h, embedding)
        h = self.top.expand(count, -1, -1, -1)
        for down in self.down:
            h = down(h, features.pop(), embedding, draw)
        return self.to_pixels(self.out(F.silu(self.norm(self.last(h, embedding)))))


class Up(nn.Module):
    """To the next resolution, then residual blocks."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        embedding_width: int,
        size: tuple[int, int],
        num_blocks: int,
        dropout: float,
    ):
        super().__init__()
        first = Block(in_channels, channels, embedding_width, nn.AdaptiveAvgPool2d(size), 0, dropout)
        more = (Block(channels, channels, embedding_width, nn.Identity(), 0, dropout) for _ in range(num_blocks))
        self.blocks = nn.ModuleList([first, *more])

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, embedding)
        return x


class Down(nn.Module):
    """To the next resolution, then its layers of latents."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        embedding_width: int,
        size: tuple[int, int],
        latent_channels: Sequence[int],
        dropout: float,
    ):
        super().__init__()
        self.resize = Block(in_channels, channels, embedding_width, nn.Upsample(size), 0, dropout)
        self.blocks = nn.ModuleList(StochasticBlock(channels, z, embedding_width, dropout) for z in latent_channels)

    def forward(self, x: Tensor, features: Tensor | None, embedding: Tensor, draw: Draw) -> Tensor:
        x = self.resize(x, embedding)
        for block in self.blocks:
            x = block(x, features, embedding, draw)
        return x


class StochasticBlock(nn.Module):
    """A layer of latents: predicted from the features above, drawn, and added to them."""

    def __init__(self, channels: int, latent_channels: int, embedding_width: int, dropout: float):
        super().__init__()
        self.latent_channels = latent_channels
        self.prior = Block(channels, channels, embedding_width, nn.Identity(), 0, dropout)
        self.prior_out = nn.Conv2d(channels, 2 * latent_channels + channels, 1)
        self.posterior = Block(2 * channels, channels, embedding_width, nn.Identity(), 0, dropout)
        self.posterior_out = nn.Conv2d(channels, 2 * latent_channels, 1)
        self.latent = nn.Conv2d(latent_channels, channels, 1)
        self.after = Block(channels, channels, embedding_width, nn.Identity(), 0, dropout)
        nn.init.zeros_(self.prior_out.weight)  # standard normal at first; a posterior that were, too, would
        assert self.prior_out.bias is not None  # carry nothing, and the network would learn to do without latents
        nn.init.zeros_(self.prior_out.bias)

    def forward(self, x: Tensor, features: Tensor | None, embedding: Tensor, draw: Draw) -> Tensor:
        """(N, channels, h, w), twice; ``features`` are of the image, if there is one. -> (N, channels, h, w)."""
        out = self.prior_out(F.silu(self.prior(x, embedding)))
        prior, more = out[:, : 2 * self.latent_channels], out[:, 2 * self.latent_channels :]
        posterior = None
        if features is not None:
            posterior = self.posterior_out(F.silu(self.posterior(torch.cat([x, features], dim=1), embedding)))
        z = draw(prior, posterior)  # (N, Z, h, w)
        return self.after(x + more + self.latent(z.to(x.dtype)), embedding)


def _sizes(shape: Sequence[int], latent_shapes: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """(H, W) of the feature maps, the image's first: halved down to the finest latent, on to the next, and so on."""
    sides = [tuple(latent[1:]) for latent in latent_shapes]
    if any(a[0] > b[0] or a[1] > b[1] for a, b in pairwise(sides)):
        raise ValueError(f"the layers {sides} must come coarsest first.")
    sizes = [(shape[1], shape[2])]
    for side in reversed(sides):
        if side != sizes[-1]:
            sizes += sizes_between((0, *sizes[-1]), (0, *side))[1:]
            if side == (1, 1):  # from the 4 x 4 that a vector is read off
                sizes.append((1, 1))
    return sizes

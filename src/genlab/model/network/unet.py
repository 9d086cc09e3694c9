"""The U-Net of diffusion models: DDPM++ (Song et al. 2021) with the blocks of ADM (Dhariwal and Nichol 2021)."""

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
from genlab.model.network.embedding import CaptionEncoder, ConditionEmbedding, NoiseLevelEmbedding, Told, Words
from genlab.model.network.group_norm import group_norm
from genlab.model.network.image_size import ImageSizeError


class UNet(nn.Module):
    """A denoiser for images: coarse to fine and back, with a skip connection from every block to its mirror image."""

    def __init__(
        self,
        shape: Sequence[int],  # of an image: (C, H, W)
        told: Told,  # the conditions by key
        channels: int = 128,  # at full resolution
        channel_mult: Sequence[int] = (1, 2, 2, 2),  # of the channels, one for each resolution: each halves the last
        num_blocks: int = 2,  # at each resolution on the way down; one more on the way up
        attention_resolutions: Sequence[int] = (16,),  # heights of feature maps that get attention, if they occur
        num_heads: int = 4,
        patch_size: int = 1,  # side of pixel blocks at the finest feature map: 2 costs a quarter
        dropout: float = 0.1,  # between the two convolutions of a block
        attends_to_words: bool = False,  # of captions, wherever pixels attend to each other; else a vector says it all
        caption_encoder: Annotated[
            CaptionEncoder | None, FROM_ELSEWHERE
        ] = None,  # hf:<a CLIP>; None: an embedding of words, trained with the rest
    ):
        """Attention also stands between the way down and the way up, whatever ``attention_resolutions`` says.

        Raises:
            ValueError: the image cannot be halved that often, or the channels cannot be split into groups or heads.
        """
        super().__init__()
        in_channels, height, width = shape
        _check(height, width, channels, patch_size, len(channel_mult), num_heads)
        embedding_width = 4 * channels
        self.noise_level = NoiseLevelEmbedding(channels, embedding_width)
        self.told = ConditionEmbedding(told, embedding_width, caption_encoder) if told or attends_to_words else None
        words = self.told.width_of_words() if self.told is not None and attends_to_words else 0
        self.attends_to_words = attends_to_words
        self.to_patches, self.to_pixels = nn.PixelUnshuffle(patch_size), nn.PixelShuffle(patch_size)
        patch_channels = in_channels * patch_size**2
        self.stem = nn.Conv2d(patch_channels, channels, 3, padding=1)

        finest = height // patch_size
        levels = [(channels * mult, finest >> i) for i, mult in enumerate(channel_mult)]  # (channels, resolution)
        self.encoder, self.decoder = Encoder(), Decoder()
        current, skips = channels, [channels]
        for i, (width, resolution) in enumerate(levels):
            heads = num_heads if resolution in attention_resolutions else 0
            if i > 0:
                self.encoder.blocks.append(Block(current, current, embedding_width, nn.AvgPool2d(2), 0, dropout))
                skips.append(current)
            for _ in range(num_blocks):
                self.encoder.blocks.append(Block(current, width, embedding_width, nn.Identity(), heads, dropout, words))
                skips.append(current := width)

        for heads in (num_heads, 0):  # the middle: at the coarsest resolution, without a skip connection
            self.decoder.append(
                Block(current, current, embedding_width, nn.Identity(), heads, dropout, words), takes_skip=False
            )
        for i, (width, resolution) in reversed(list(enumerate(levels))):
            heads = num_heads if resolution in attention_resolutions else 0
            for _ in range(num_blocks + 1):
                block = Block(current + skips.pop(), width, embedding_width, nn.Identity(), heads, dropout, words)
                self.decoder.append(block, takes_skip=True)
                current = width
            if i > 0:
                up = nn.Upsample(scale_factor=2)
                self.decoder.append(Block(current, current, embedding_width, up, 0, dropout), takes_skip=False)

        self.out_norm = group_norm(current)
        self.out = _zero(nn.Conv2d(current, patch_channels, 3, padding=1))  # an untrained network predicts the mean, 0

    def middle(self) -> nn.Module:
        """The last block at the coarsest resolution, after which the way up begins."""
        return self.decoder.blocks[1]

    def forward(
        self,
        x: Tensor,
        noise_level: Tensor,
        condition: Mapping[str, Tensor] | None,
        control: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """``x``: (N, C, H, W); ``noise_level``: (N,); ``condition``: by key, N rows each; ``control``: what a branch of
        :meth:`control_branch` puts out, which is added to the skip connections and to the middle. -> (N, C, H, W)."""
        embedding, words = self.embed(noise_level, condition)
        h = self.decoder(self.encoder(self.begin(x), embedding, words), embedding, words, control)
        return self.to_pixels(self.out(F.silu(self.out_norm(h))))

    def begin(self, x: Tensor) -> Tensor:
        """The finest feature map of images (N, C, H, W)."""
        x = self.to_patches(x).to(self.stem.weight.dtype, memory_format=torch.channels_last)  # quicker convolutions
        return self.stem(x)

    def embed(self, noise_level: Tensor, condition: Mapping[str, Tensor] | None) -> tuple[Tensor, Words | None]:
        """What modulates blocks, (N, 4 * channels), and the words that they attend to, if they do."""
        embedding = self.noise_level(noise_level)  # (N, 4 * channels)
        words = None
        if self.told is not None and self.attends_to_words:
            told, words = self.told.with_words(condition)
            embedding = embedding + told
        elif self.told is not None:
            embedding = embedding + self.told(condition)
        return F.silu(embedding), words

    def control_branch(self, hint_channels: int) -> "UNetBranch":
        """A trainable copy of the way down and the middle, which reads a hint (N, hint_channels, H, W) too."""
        return UNetBranch(self, hint_channels)


class Encoder(nn.Module):
    """The way down: what the stem and every block put out."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()

    def forward(self, x: Tensor, embedding: Tensor, words: Words | None) -> list[Tensor]:
        outputs = [x]
        for block in self.blocks:
            outputs.append(block(outputs[-1], embedding, words))
        return outputs


class Decoder(nn.Module):
    """The middle and the way up. A block that takes a skip sees the encoder's latest unused output beside its input."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        self.takes_skip: list[bool] = []

    def append(self, block: "Block", takes_skip: bool) -> None:
        self.blocks.append(block)
        self.takes_skip.append(takes_skip)

    def forward(
        self,
        skips: list[Tensor],
        embedding: Tensor,
        words: Words | None,
        control: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """``control``: added to each of ``skips``, and to the output of the middle."""
        x = skips[-1]
        waiting = list(control or ())
        for block, takes_skip in zip(self.blocks, self.takes_skip, strict=True):
            if takes_skip and len(waiting) == len(skips) + 1:  # the middle is done
                x = x + waiting.pop()
            skip = skips.pop() if takes_skip else None
            if skip is not None and waiting:
                skip = skip + waiting.pop()
            x = block(x if skip is None else torch.cat([x, skip], dim=1), embedding, words)
        return x


class Block(nn.Module):
    """A residual block, modulated by the embedding, that may resample and may attend (ADM, section 3 and table 3)."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        embedding_width: int,
        resample: nn.Module,
        num_heads: int,  # 0: no attention
        dropout: float,
        words: int = 0,  # width of a caption's tokens that it attends to, if it has attention; 0: to none
    ):
        super().__init__()
        self.resample = resample
        self.norm1 = group_norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.modulation = nn.Linear(embedding_width, 2 * channels)
        self.norm2 = group_norm(channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = _zero(nn.Conv2d(channels, channels, 3, padding=1))  # a block starts as the identity
        self.shortcut = nn.Conv2d(in_channels, channels, 1) if in_channels != channels else nn.Identity()
        self.attention = PixelAttention(channels, num_heads) if num_heads > 0 else nn.Identity()
        if num_heads > 0 and words > 0:
            self.reading = Reading(channels, words, num_heads)
        self.reads = num_heads > 0 and words > 0

    def forward(self, x: Tensor, embedding: Tensor, words: Words | None = None) -> Tensor:
        """(N, in_channels, H, W), (N, embedding_width) -> (N, channels, H', W')."""
        h = self.conv1(self.resample(F.silu(self.norm1(x))))
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)  # (N, channels, 1, 1) each
        h = torch.addcmul(shift.to(h.dtype), self.norm2(h).to(h.dtype), 1 + scale.to(h.dtype))
        h = self.conv2(self.dropout(F.silu(h)))
        h = self.attention(self.shortcut(self.resample(x)) + h)
        return self.reading(h, words) if self.reads else h


class PixelAttention(nn.Module):
    """Residual self-attention among the pixels of a feature map."""

    def __init__(self, channels: int, num_heads: int):
        super().__init__()
        self.norm = group_norm(channels)
        self.attention = SelfAttention(channels, num_heads)
        _zero(self.attention.out)

    def forward(self, x: Tensor) -> Tensor:
        pixels = self.norm(x).flatten(2).mT  # (N, H * W, channels)
        return x + self.attention(pixels).mT.unflatten(2, x.shape[2:])


class Reading(nn.Module):
    """Residual attention of the pixels of a feature map to the words of a caption (Rombach et al. 2022, 3.3)."""

    def __init__(self, channels: int, words: int, num_heads: int):
        super().__init__()
        self.norm = group_norm(channels)
        self.attention = CrossAttention(channels, words, num_heads)
        _zero(self.attention.out)

    def forward(self, x: Tensor, words: Words) -> Tensor:
        pixels = self.norm(x).flatten(2).mT  # (N, H * W, channels)
        return x + self.attention(pixels, *words).mT.unflatten(2, x.shape[2:])


class UNetBranch(nn.Module):
    """The control of a U-Net (Zhang et al. 2023, figure 3): copies of its way down and its middle, which see a hint,
    and a zero-initialized convolution of 1x1 for what each of them puts out."""

    encoder: Encoder
    to_patches: nn.PixelUnshuffle

    def __init__(self, network: UNet, hint_channels: int):
        super().__init__()
        for name in ("noise_level", "told", "to_patches", "stem", "encoder"):
            self.register_module(name, copy.deepcopy(getattr(network, name)))
        self.attends_to_words = network.attends_to_words
        self.middle = Decoder()
        for block, takes_skip in zip(network.decoder.blocks, network.decoder.takes_skip, strict=True):
            if takes_skip:
                break
            self.middle.append(copy.deepcopy(block), takes_skip=False)  # type: ignore[arg-type]
        widths: list[int] = [network.stem.out_channels]
        widths += [block.conv2.out_channels for block in self.encoder.blocks]  # type: ignore[misc, union-attr]
        self.hint = HintEncoder(hint_channels, self.to_patches.downscale_factor, widths[0])
        self.links = nn.ModuleList(_zero(nn.Conv2d(width, width, 1)) for width in [*widths, widths[-1]])
        self.requires_grad_(True)

    def copied_from(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of the state dict of the network, what this one begins with, by its own names."""
        own = {*self.state_dict()}
        middle = {f"middle.{name.removeprefix('decoder.')}": value for name, value in weights.items()}
        return {name: value for name, value in {**weights, **middle}.items() if name in own}

    begin, embed = UNet.begin, UNet.embed

    def forward(
        self, x: Tensor, noise_level: Tensor, condition: Mapping[str, Tensor] | None, hint: Tensor
    ) -> list[Tensor]:
        """``hint``: (N, hint_channels, H, W). -> what is added to each skip connection, and to the middle's output."""
        embedding, words = self.embed(noise_level, condition)  # type: ignore[misc]
        skips = self.encoder(self.begin(x) + self.hint(hint), embedding, words)  # type: ignore[misc]
        outputs = [*skips, self.middle(list(skips), embedding, words)]  # of the middle last
        return [link(output) for link, output in zip(self.links, outputs, strict=True)]


def _zero(layer: nn.Conv2d | nn.Linear) -> nn.Module:
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def _check(height: int, width: int, channels: int, patch_size: int, num_levels: int, num_heads: int) -> None:
    multiple = patch_size * 2 ** (num_levels - 1)
    if height % multiple or width % multiple:
        size = multiple * math.ceil(max(height, width) / multiple)
        raise ImageSizeError(
            f"model/network=unet needs sides that are multiples of {multiple} (patch_size {patch_size}, "
            f"{num_levels} entries in channel_mult), got {height}x{width}. "
            "Use fewer entries in model.network.channel_mult.",
            size,
        )
    unit = math.lcm(4, num_heads)
    if channels % unit:
        raise ValueError(
            f"model.network.channels={channels} must be a multiple of {unit} (4 for its groups, {num_heads} attention "
            f"heads). Use model.network.channels={unit * math.ceil(channels / unit)}."
        )

"""StyleGAN2 (Karras et al. 2020, arXiv:1912.04958): noise is mapped to styles, which modulate convolutions.

With the settings and sizes of StyleGAN2-ADA (Karras et al. 2020, arXiv:2006.06676). Weights are equalized; feature
maps are in the channels-last layout, in which the blurs are several times quicker on a CPU. A leaky rectifier commutes
with positive factors, so its gain of sqrt(2), that of a residual branch and demodulation are one factor before it.
"""

import math
from collections.abc import Callable, Sequence
from collections.abc import Mapping as MappingOf
from functools import partial
from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.model.network.embedding import ConditionEmbedding, Told
from genlab.model.network.equalized import EqualizedConv2d, EqualizedLinear, MinibatchStd, PixelNorm
from genlab.model.network.image_size import ImageSizeError
from genlab.model.network.resample import Blur, doubled

Architecture = Literal["plain", "skip", "residual"]
Normal = Callable[..., Tensor]  # (*shape) -> standard normal, (N, *shape)
Condition = MappingOf[str, Tensor]
SLOPE = 0.2  # of the rectifier below zero
RECTIFIER_GAIN = math.sqrt(2)
BRANCH_GAIN = math.sqrt(0.5)  # of each of two branches whose sum keeps its variance


class StyleGAN2Generator(nn.Module):
    """Noise to styles (``map``), and styles to images (``synthesize``), a block for each resolution from 4x4.

    Every layer has a style of its own, (N, ``num_styles``, style_width): those of the coarse layers first.
    """

    def __init__(
        self,
        shape: Sequence[int],  # of an image: (C, H, W)
        told: Told,  # the conditions by key
        latent_dim: int,
        channel_base: int = 32768,  # channels of feature maps, times their side: 32768 / 64 = 512 at 64x64
        channel_max: int = 512,
        style_width: int = 512,
        mapping_layers: int = 8,
        mapping_lr: float = 0.01,  # how much slower the mapping learns
        architecture: Architecture = "skip",
        noise: bool = True,  # random numbers for each pixel, scaled by a weight
        style_mixing: float = 0.9,  # how often a batch of training has two styles, the second from a random layer on
        psi: float = 1.0,  # samples' styles are drawn toward the average style; 1: not, 0: all are the average
        psi_layers: int | None = None,  # so many of the coarse styles only; None: all
        half_resolutions: int = 4,  # the finest ones that compute in half precision, where training is mixed
        clamp: float | None = 256.0,  # of feature maps; null: none
    ):
        """Raises ValueError: the image is no square of side 8, 16, 32 ...; a value is out of its range."""
        super().__init__()
        for name, value in {"style_mixing": style_mixing}.items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name}={value} is outside [0, 1]. It is a share of the batches.")
        self.mapping = Mapping(told, latent_dim, style_width, mapping_layers, mapping_lr)
        self.synthesis = Synthesis(
            shape, channel_base, channel_max, style_width, architecture, noise, half_resolutions, clamp
        )
        self.num_styles = self.synthesis.num_styles
        self.style_mixing, self.psi, self.psi_layers = style_mixing, psi, psi_layers

    def forward(self, noise: Tensor, condition: Condition | None) -> Tensor:
        """``noise``: (N, latent_dim); ``condition``: by key, N rows each. -> (N, C, H, W) around [-1, 1], with
        the constant noise of pixels and ``psi``."""
        return self.synthesize(self.truncated(self.map(noise, condition)))

    def map(self, noise: Tensor, condition: Condition | None) -> Tensor:
        """``noise``: (N, latent_dim). -> styles (N, num_styles, style_width), the same for all layers."""
        return self.mapping(noise, condition)[:, None].expand(-1, self.num_styles, -1)

    def follow(self, styles: Tensor) -> None:
        """Have the average style follow those of a batch of training, (N, num_styles, W)."""
        self.mapping.follow(styles[:, 0])

    def mixed(self, styles: Tensor, others: Tensor, uniform: Tensor) -> Tensor:
        """Styles whose finer layers are others', from a layer on that is the same for the batch (Karras et al. 2019,
        section 3.1). ``styles``, ``others``: (N, num_styles, W); ``uniform``: two numbers in [0, 1). -> like them."""
        often, where = uniform.unbind()
        first = 1 + (where * (self.num_styles - 1)).long()
        first = torch.where(often < self.style_mixing, first, self.num_styles)
        layer = torch.arange(self.num_styles, device=styles.device)[:, None]
        return torch.where(layer < first, styles, others)

    def truncated(self, styles: Tensor) -> Tensor:
        """Styles (N, num_styles, W) drawn toward the average (Karras et al. 2019, appendix B)."""
        if self.psi == 1:
            return styles
        count = self.num_styles if self.psi_layers is None else self.psi_layers
        drawn = torch.lerp(self.mapping.average, styles[:, :count], self.psi)
        return torch.cat([drawn, styles[:, count:]], dim=1)

    def synthesize(self, styles: Tensor, normal: Normal | None = None) -> Tensor:
        """``styles``: (N, num_styles, W); ``normal``: draws the noise of pixels; None: it is constant.
        -> (N, C, H, W)."""
        return self.synthesis(styles, normal)

    def latent_maps(self) -> Tensor:
        """(outputs, style_width): of the styles of all layers."""
        layers = (layer for layer in self.synthesis.modules() if isinstance(layer, StyledConv | ToColors))
        return torch.cat([layer.style.scaled_weight() for layer in layers])

    def stages(self) -> Sequence[nn.Module]:
        """What is compiled, where it is asked for."""
        return [self.mapping, self.synthesis]


class Mapping(nn.Module):
    """Noise, conditions or both to styles, by a perceptron on the unit sphere (Karras et al. 2019, section 2)."""

    KEPT = 0.995  # of the average style, by a batch
    average: Tensor

    def __init__(self, told: Told, latent_dim: int, width: int, num_layers: int, lr_multiplier: float):
        super().__init__()
        if not 1 <= num_layers <= 32:
            raise ValueError(f"mapping_layers={num_layers} is not between 1 and 32. Published networks have 2 or 8.")
        self.told = ConditionEmbedding(told, width) if told else None
        self.norm = PixelNorm()
        first = latent_dim + (width if told else 0)
        self.layers = nn.ModuleList(
            EqualizedLinear(width if i else first, width, lr_multiplier=lr_multiplier) for i in range(num_layers)
        )
        if latent_dim:
            self.register_buffer("average", torch.zeros(width))

    def forward(self, noise: Tensor | None, condition: Condition | None) -> Tensor:
        """``noise``: (N, latent_dim); None: conditions only. -> (N or 1, width), in float32."""
        device = self.layers[0].weight.device
        with torch.autocast(device.type, enabled=False):  # type: ignore[arg-type]
            h = None if noise is None else self.norm(noise.float())
            if self.told is not None:
                told = self.norm(self.told(condition).float())
                h = told if h is None else torch.cat([h, told.expand(len(h), -1)], dim=1)
            for layer in self.layers:
                h = F.leaky_relu(layer(h), SLOPE) * RECTIFIER_GAIN
        assert h is not None
        return h

    @torch.no_grad()
    def follow(self, styles: Tensor) -> None:
        """Move the average style toward the mean of a batch's, (N, width) on each rank."""
        mean = styles.mean(dim=0)
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(mean)
            mean = mean / dist.get_world_size()
        self.average.lerp_(mean, 1 - self.KEPT)


class Synthesis(nn.Module):
    """Styles to images: a constant, then a block for each resolution."""

    def __init__(
        self,
        shape: Sequence[int],
        channel_base: int,
        channel_max: int,
        style_width: int,
        architecture: Architecture,
        noise: bool,
        half_resolutions: int,
        clamp: float | None,
    ):
        super().__init__()
        sides = resolutions(shape)
        widths = channels_of(sides, channel_base, channel_max)
        self.constant = nn.Parameter(torch.randn(widths[4], 4, 4))
        self.blocks = nn.ModuleList(
            SynthesisBlock(
                widths.get(side // 2, 0), widths[side], side, shape[0], style_width, architecture, side == sides[-1],
                noise, clamp,
            )
            for side in sides
        )  # fmt: skip
        self.in_half = [len(sides) - i <= half_resolutions and side > 4 for i, side in enumerate(sides)]
        self.num_styles = 2 * len(sides)

    def forward(self, styles: Tensor, normal: Normal | None) -> Tensor:
        """(N, num_styles, style_width) -> (N, C, H, W)."""
        half = half_dtype(styles.device)
        style_of = list(styles.float().unbind(dim=1))
        x = self.constant.expand(len(styles), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        image = None
        with torch.autocast(styles.device.type, enabled=False):
            for i, (block, in_half) in enumerate(zip(self.blocks, self.in_half, strict=True)):
                x = x.to(half if in_half else torch.float32)
                x, image = block(x, image, style_of[max(0, 2 * i - 1) :], normal)
        assert image is not None
        return image


class SynthesisBlock(nn.Module):
    """Twice the resolution, and a second convolution; the first block has only the latter."""

    def __init__(
        self,
        in_channels: int,  # 0: the first block
        channels: int,
        side: int,
        colors: int,
        style_width: int,
        architecture: Architecture,
        is_last: bool,
        noise: bool,
        clamp: float | None,
    ):
        super().__init__()
        self.gain = BRANCH_GAIN if in_channels and architecture == "residual" else 1.0
        self.up = StyledConv(in_channels, channels, side, style_width, True, noise, clamp) if in_channels else None
        self.conv = StyledConv(channels, channels, side, style_width, False, noise, clamp)
        self.to_colors = ToColors(channels, colors, style_width, clamp) if is_last or architecture == "skip" else None
        beside = in_channels and architecture == "residual"
        self.beside = EqualizedConv2d(in_channels, channels, 1, bias=False) if beside else None

    def forward(
        self, x: Tensor, image: Tensor | None, styles: Sequence[Tensor], normal: Normal | None
    ) -> tuple[Tensor, Tensor | None]:
        """Features (N, in_channels, H/2, W/2), the image so far (N, C, H/2, W/2), or None, and styles (N, W), as many
        as it needs or more. -> features and image at twice the resolution."""
        style = iter(styles)
        shortcut = None if self.beside is None else doubled(_on_branch(x, self.beside))
        if self.up is not None:
            x = self.up(x, next(style), normal)
        x = self.conv(x, next(style), normal, self.gain)
        if shortcut is not None:
            x = shortcut + x
        image = None if image is None else doubled(image)
        if self.to_colors is not None:
            colors = self.to_colors(x, next(style))
            image = colors if image is None else image + colors
        return x, image


class StyledConv(nn.Module):
    """A convolution whose inputs a style scales, and whose outputs are scaled to unit variance (section 2.2)."""

    constant: Tensor | None

    def __init__(
        self,
        in_channels: int,
        channels: int,
        side: int,  # of its output
        style_width: int,
        doubles: bool,  # the resolution
        noise: bool,
        clamp: float | None,
    ):
        super().__init__()
        self.style = EqualizedLinear(style_width, in_channels, first_bias=1.0)
        self.weight = nn.Parameter(torch.randn(channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.side, self.clamp = side, clamp
        self.blur = Blur() if doubles else None
        if noise:
            self.strength = nn.Parameter(torch.zeros(()))
            self.register_buffer("constant", torch.randn(side, side))
        else:
            self.constant = None

    def forward(self, x: Tensor, style: Tensor, normal: Normal | None, gain: float = 1.0) -> Tensor:
        """(N, in_channels, h, w), (N, style_width) -> (N, channels, side, side), times ``gain``."""
        scale, factor = self.style(style), gain * RECTIFIER_GAIN
        weight: Tensor = self.weight
        if x.dtype == torch.float16:  # sums stay within its range; what is divided out comes back with demodulation
            weight = weight / (math.sqrt(weight[0].numel()) * weight.abs().amax(dim=(1, 2, 3), keepdim=True))
            scale = scale / scale.abs().amax(dim=1, keepdim=True)
        deviation = torch.rsqrt(scale.square() @ weight.square().sum(dim=(2, 3)).t() + 1e-8)  # (N, channels)
        x, weight = x * _of_channels(scale, x), weight.to(x.dtype)
        x = F.conv2d(x, weight, padding=1) if self.blur is None else self.blur.convolve_doubled(x, weight)
        x = x * _of_channels(factor * deviation, x) + _of_channels(factor * self.bias[None], x)
        if self.constant is not None:
            noise = self.constant[None] if normal is None else normal(self.side, self.side)
            x = x + (noise * (factor * self.strength)).to(x.dtype)[:, None]
        return _clamped(F.leaky_relu(x, SLOPE), self.clamp, gain)


class ToColors(nn.Module):
    """A convolution of single pixels whose inputs a style scales, and whose outputs are not demodulated."""

    def __init__(self, in_channels: int, colors: int, style_width: int, clamp: float | None):
        super().__init__()
        self.style = EqualizedLinear(style_width, in_channels, first_bias=1.0)
        self.weight = nn.Parameter(torch.randn(colors, in_channels))
        self.bias = nn.Parameter(torch.zeros(colors))
        self.clamp = clamp

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(N, in_channels, H, W), (N, style_width) -> (N, colors, H, W), in float32."""
        scale = self.style(style) / math.sqrt(self.weight.shape[1])
        weight = (scale[:, :, None] * self.weight.t()).to(x.dtype)  # (N, in_channels, colors)
        pixels = x.permute(0, 2, 3, 1)
        colors = torch.bmm(pixels.flatten(1, 2), weight) + self.bias.to(x.dtype)
        return _clamped(colors, self.clamp).unflatten(1, pixels.shape[1:3]).permute(0, 3, 1, 2).float()


class StyleGAN2Discriminator(nn.Module):
    """Convolutions that halve the resolution down to 4x4, the deviation within groups of images, and two layers.

    Conditions are mapped to a vector, whose product with the output is the score (Miyato and Koyama 2018).
    """

    def __init__(
        self,
        shape: Sequence[int],  # of an image: (C, H, W)
        told: Told,  # the conditions by key
        channel_base: int = 32768,  # channels of feature maps, times their side
        channel_max: int = 512,
        mapping_layers: int = 8,  # of conditions
        mapping_lr: float = 0.01,
        architecture: Architecture = "residual",
        group_size: int | None = 4,  # of images whose deviation it sees; null: the batch; 1: none
        half_resolutions: int = 4,  # the finest ones that compute in half precision, where training is mixed
        clamp: float | None = 256.0,  # of feature maps; null: none
    ):
        """Raises ValueError: the image is no square of side 8, 16, 32 ...; a value is out of its range."""
        super().__init__()
        sides = resolutions(shape)
        widths = channels_of(sides, channel_base, channel_max)
        self.blocks = nn.ModuleList(  # the coarsest first: a network for other sides begins with the same
            DiscriminatorBlock(shape[0], widths[side], widths[side // 2], architecture, side == sides[-1], clamp)
            for side in sides[1:]
        )
        self.in_half = [len(self.blocks) - i <= half_resolutions for i in range(len(self.blocks))]
        width = widths[4]
        self.from_colors = EqualizedConv2d(shape[0], width, 1) if architecture == "skip" else None
        self.deviation = MinibatchStd(group_size)
        self.conv, self.hidden = EqualizedConv2d(width + 1, width, 3), EqualizedLinear(16 * width, width)
        self.mapping = Mapping(told, 0, width, mapping_layers, mapping_lr) if told else None
        self.out = EqualizedLinear(width, width if told else 1)
        self.clamp, self.blur = clamp, Blur()

    def forward(self, candidate: Tensor, condition: Condition | None) -> Tensor:
        """``candidate``: (N, C, H, W); ``condition``: by key, N rows each. -> scores (N,), in float32."""
        half = half_dtype(candidate.device)
        image, x = candidate.float().contiguous(memory_format=torch.channels_last), None
        with torch.autocast(candidate.device.type, enabled=False):
            for block, in_half in zip(reversed(self.blocks), reversed(self.in_half), strict=True):
                dtype = half if in_half else torch.float32
                x = block(None if x is None else x.to(dtype), image.to(dtype))
                if self.from_colors is not None:
                    image = self.blur.halve(image)
            assert x is not None
            x = x.float()
            if self.from_colors is not None:
                x = x + rectified(F.conv2d, image, self.from_colors, self.clamp)
            x = rectified(partial(F.conv2d, padding=1), self.deviation(x), self.conv, self.clamp)
            x = self.out(rectified(F.linear, x.flatten(1), self.hidden, None))
            if self.mapping is None:
                return x[:, 0]
            return (x * self.mapping(None, condition)).sum(dim=1) / math.sqrt(x.shape[1])


class DiscriminatorBlock(nn.Module):
    """Two convolutions, of which the second halves the resolution. The finest block reads pixels, with the architecture
    ``skip`` every one does."""

    def __init__(
        self, colors: int, channels: int, out_channels: int, architecture: Architecture, is_finest: bool,
        clamp: float | None,
    ):  # fmt: skip
        super().__init__()
        self.from_colors = EqualizedConv2d(colors, channels, 1) if is_finest or architecture == "skip" else None
        self.conv, self.down = EqualizedConv2d(channels, channels, 3), EqualizedConv2d(channels, out_channels, 3)
        residual = architecture == "residual"
        self.beside = EqualizedConv2d(channels, out_channels, 1, bias=False) if residual else None
        self.blur, self.clamp, self.gain = Blur(), clamp, BRANCH_GAIN if residual else 1.0

    def forward(self, x: Tensor | None, image: Tensor) -> Tensor:
        """Features (N, channels, H, W), None in the finest block, and the image (N, C, H, W) -> (N, out_channels, H/2,
        W/2)."""
        if self.from_colors is not None:
            pixels = rectified(F.conv2d, image, self.from_colors, self.clamp)
            x = pixels if x is None else x + pixels
        assert x is not None
        h = rectified(partial(F.conv2d, padding=1), x, self.conv, self.clamp)
        h = rectified(self.blur.convolve_halved, h, self.down, self.clamp, self.gain)
        if self.beside is None:
            return h
        return _on_branch(self.blur.halve(x), self.beside) + h


def rectified(
    apply: Callable[[Tensor, Tensor, Tensor], Tensor],
    x: Tensor,
    layer: EqualizedLinear | EqualizedConv2d,
    clamp: float | None,
    gain: float = 1.0,
) -> Tensor:
    """What ``apply`` makes of ``x`` with the layer's weight and bias, rectified, times ``gain``."""
    factor, bias = gain * RECTIFIER_GAIN, layer.scaled_bias()
    assert bias is not None
    x = apply(x, (layer.scaled_weight() * factor).to(x.dtype), (bias * factor).to(x.dtype))
    return _clamped(F.leaky_relu(x, SLOPE), clamp, gain)


def _on_branch(x: Tensor, layer: EqualizedConv2d) -> Tensor:
    """The branch of a block that goes around its convolutions: (N, in_channels, H, W) -> (N, channels, H, W)."""
    return F.conv2d(x, (layer.scaled_weight() * BRANCH_GAIN).to(x.dtype))


def resolutions(shape: Sequence[int]) -> list[int]:
    """The sides of feature maps for images (C, H, W): 4, 8, 16 ... Raises ValueError: there are none."""
    _, height, width = shape
    if height != width or height < 8 or height & (height - 1):
        raise ImageSizeError(
            f"StyleGAN2 draws squares whose side is 8, 16, 32, 64 or a higher power of two, got {height}x{width}.", 32
        )
    return [4 << i for i in range(height.bit_length() - 2)]


def channels_of(sides: Sequence[int], base: int, most: int) -> dict[int, int]:
    """The channels of feature maps by their side: base / side, and no more than ``most``. Raises ValueError: none."""
    if most < 1:
        raise ValueError(f"channel_max={most} must be a whole number >= 1.")
    finest = max(sides)
    if base < finest:
        raise ValueError(
            f"channel_base={base} leaves no channels at {finest}x{finest}. Use "
            f"model.generator.channel_base={16 * finest} model.discriminator.channel_base={16 * finest}, or more."
        )
    return {side: min(base // side, most) for side in sides}


def half_dtype(device: torch.device) -> torch.dtype:
    """That of mixed precision, where it is on; float32 elsewhere."""
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else torch.float32


def _of_channels(vectors: Tensor, like: Tensor) -> Tensor:
    """(N or 1, C) -> (N or 1, C, 1, 1), of the type of ``like``."""
    return vectors.to(like.dtype)[:, :, None, None]


def _clamped(x: Tensor, limit: float | None, gain: float = 1.0) -> Tensor:
    return x if limit is None else x.clamp(-limit * gain, limit * gain)

"""Up- and down-sampling by two with a smooth kernel, for convolutions of StyleGAN2."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Blur(nn.Module):
    """The kernel [1, 3, 3, 1] / 8 along both axes, which keeps aliases away (Zhang 2019; Karras et al. 2020, app. B).

    Feature maps in the channels-last layout are several times quicker on a CPU.
    """

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", line[:, None] * line, persistent=False)

    def forward(self, x: Tensor, padding: int, stride: int = 1, gain: float = 1.0) -> Tensor:
        """(N, C, H, W), with ``padding`` zeros on each side -> (N, C, (H + 2 padding - 4) // stride + 1, ...)."""
        channels = x.shape[1]
        kernel = (self.kernel * gain).to(x.dtype).expand(channels, 1, 4, 4)
        return F.conv2d(x, kernel, stride=stride, padding=padding, groups=channels)

    def halve(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H/2, W/2)."""
        return self(x, padding=1, stride=2)

    def convolve_doubled(self, x: Tensor, weight: Tensor) -> Tensor:
        """(N, I, H, W) by ``weight`` (O, I, 3, 3) -> (N, O, 2H, 2W): zeros between pixels, convolution, blur."""
        return self(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2), padding=1, gain=4.0)

    def convolve_halved(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(N, I, H, W) by ``weight`` (O, I, 3, 3) -> (N, O, H/2, W/2): blur, then a strided convolution."""
        return F.conv2d(self(x, padding=2), weight, bias, stride=2)


def doubled(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, 2H, 2W): zeros between pixels and the kernel of :class:`Blur`, which is linear
    interpolation to zeros outside."""
    return F.interpolate(F.pad(x, (1, 1, 1, 1)), scale_factor=2, mode="bilinear")[:, :, 2:-2, 2:-2]

"""ResNet-18 for small images: He et al. (2016, arXiv:1512.03385, section 4.2), with batch norm."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from genlab.model.network.batch_norm import BatchNorm


class ResNet18(nn.Module):
    """Basic blocks of two 3x3 convolutions in four stages, each of which but the first halves the resolution and has
    twice the channels; the features are those of the last stage.

    Other than for large images, the first convolution is of 3x3 pixels, at full resolution, and no pooling follows
    (Chen et al. 2020, arXiv:2002.05709, appendix B.9). In training a feature depends on the other images of the batch,
    those of all ranks.
    """

    def __init__(
        self,
        shape: Sequence[int],  # of an image: (C, H, W), of any size
        width: int = 64,  # channels of the first stage
        stages: Sequence[int] = (2, 2, 2, 2),  # blocks of each; of ResNet-34: 3, 4, 6, 3
    ):
        """Raises ValueError: no channels, no stage, or a stage without blocks."""
        super().__init__()
        if width < 1 or not stages or min(stages) < 1:
            raise ValueError(f"width={width} and each of stages={list(stages)} must be 1 or more.")
        self.num_features = width * 2 ** (len(stages) - 1)
        self.conv, self.norm = _conv(shape[0], width), BatchNorm(width)
        self.blocks = nn.ModuleList()
        channels = width
        for stage, count in enumerate(stages):
            for block in range(count):
                self.blocks.append(BasicBlock(channels, width * 2**stage, stride=2 if stage and not block else 1))
                channels = width * 2**stage

    def forward(self, image: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> (N, num_features), none below 0: means over the places of a map."""
        x = F.relu(self.norm(self.conv(image)))
        for block in self.blocks:
            x = block(x)
        return x.mean(dim=(2, 3))


class BasicBlock(nn.Module):
    """Convolution, norm and ReLU, convolution and norm; then the sum with a shortcut, and ReLU."""

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        self.conv1, self.norm1 = _conv(channels, width, stride=stride), BatchNorm(width)
        self.conv2, self.norm2 = _conv(width, width), BatchNorm(width)
        is_plain = channels == width and stride == 1
        self.shortcut = (
            nn.Identity() if is_plain else nn.Sequential(_conv(channels, width, 1, stride), BatchNorm(width))
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> (N, width, H / stride, W / stride), rounded up."""
        h = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.shortcut(x) + self.norm2(self.conv2(h)))


def _conv(channels: int, width: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv

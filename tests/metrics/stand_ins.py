"""Files of random weights in the place of what metrics would download."""

from pathlib import Path
from typing import Literal

import torch
import torchvision
from torch import Tensor, nn

MAKERS = {"alex": torchvision.models.alexnet, "vgg": torchvision.models.vgg16,
          "squeeze": torchvision.models.squeezenet1_1}  # fmt: skip


def backbone(net: Literal["alex", "vgg", "squeeze"], seed: int = 0) -> dict[str, Tensor]:
    """Of the shapes of torchvision's, without the classifier; activations neither die nor explode."""
    with torch.device("meta"):
        network = MAKERS[net](weights=None)
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, tensor in network.features.state_dict(prefix="features.").items():
        scale = (2 / nn.init._calculate_correct_fan(tensor, "fan_in")) ** 0.5 if tensor.dim() > 1 else 0.1
        state[name] = scale * torch.randn(tensor.shape, generator=generator)
    return state


def backbone_file(folder: Path, net: Literal["alex", "vgg", "squeeze"]) -> Path:
    path = folder / f"{net}.pth"
    torch.save(backbone(net), path)
    return path

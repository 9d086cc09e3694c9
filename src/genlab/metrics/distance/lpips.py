"""LPIPS, the learned perceptual distance (Zhang et al. 2018, arXiv:1801.03924, eq. 1), by torchmetrics."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from genlab.metrics.extractor.fingerprint import network_fingerprint
from genlab.metrics.extractor.precision import full_precision
from genlab.metrics.extractor.weights import Published, load_tensors, misfit, named_by_hash, weights_file

_SMALLEST = 64  # pixels of the shorter side: below that the last layers of the networks see nothing
_BACKBONES = {  # torchvision's name for the weights
    "alex": "AlexNet_Weights",  # 233 MB
    "vgg": "VGG16_Weights",  # 528 MB
    "squeeze": "SqueezeNet1_1_Weights",  # 5 MB
}


class LPIPS:
    """Squared differences of an ImageNet classifier's normalized features, weighted as people judge; about 0 to 1.

    The weights of the five (or seven) layers are version 0.1, which comes with torchmetrics; the classifier's are
    torchvision's. Images whose shorter side is under 64 pixels are enlarged to that, bilinearly.
    """

    def __init__(
        self,
        net: Literal["alex", "vgg", "squeeze"] = "alex",  # the authors' choice to measure with; StyleGAN's PPL has vgg
        at_most: int
        | None = None,  # pixels of the shorter side: larger images are shrunk by a whole factor; 256 in PPL
        weights: str | None = None,  # torchvision's .pth file; null: from the cache, or else downloaded into it
        cache: str | None = None,  # a folder; null: torch.hub's
        timeout: float = 5.0,  # seconds that the server may take to answer
    ):
        """Raises ResourceError if the weights are neither here nor can be downloaded, or are not this network's."""
        self.name = f"lpips_{net}"
        self.at_most = at_most
        from torchvision import models  # here and below: slow to import, and not for whoever only asks what this is

        url, instead = getattr(models, _BACKBONES[net]).IMAGENET1K_V1.url, "use metrics that need no download"
        published = named_by_hash(f"the weights of LPIPS ({net})", url, instead)
        self.network = _network(net, weights_file(published, weights, cache, timeout), published)
        self._resize = f"shorter side to {_SMALLEST} or more (bilinear)"
        if at_most is not None:
            self._resize += f" and by a whole factor towards {at_most} (mean)"

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        """(N, C, H, W), (N, C, H, W) -> (N,)."""
        self.network.to(a.device)
        with full_precision(a.device):
            return self.network(self._seen(a), self._seen(b)).flatten()

    def settings(self) -> dict[str, int | float | str]:
        fingerprint = network_fingerprint(self.network, self.name, self._resize)
        return {"distance": f"{self.name} v0.1", "resize": self._resize, "distance_fingerprint": fingerprint}

    def _seen(self, images: Tensor) -> Tensor:
        """(N, C, H, W) on [-1, 1] -> (N, 3, H', W')."""
        images = images.float().expand(-1, 3, -1, -1)
        shorter = min(images.shape[2:])
        if shorter < _SMALLEST:
            size = [round(side * _SMALLEST / shorter) for side in images.shape[2:]]
            return interpolate(images, size, mode="bilinear", align_corners=False)
        factor = shorter // self.at_most if self.at_most else 1
        return avg_pool2d(images, factor) if factor > 1 else images


def _network(net: Literal["alex", "vgg", "squeeze"], path: Path, published: Published) -> torch.nn.Module:
    """The library's network with given weights, without random initialization first."""
    from torchmetrics.functional.image import lpips as library

    heads = Path(library.__file__).parent / "lpips_models" / f"{net}.pth"
    with torch.device("meta"):
        network = library._LPIPS(pretrained=False, net=net, pnet_rand=True)
    network.scaling_layer = library.ScalingLayer()  # constants, which no file holds
    judged = load_tensors(heads, published)  # lin0.model.1.weight ..., of modules that are also in a list
    state = judged | {f"lins.{name.removeprefix('lin')}": tensor for name, tensor in judged.items()}
    state |= _backbone(network, load_tensors(path, published))
    try:
        network.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        raise misfit(path, published, error) from error
    return network.eval().requires_grad_(False)


def _backbone(network: torch.nn.Module, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What torchvision calls ``features.3.weight`` is ``net.slice2.3.weight`` here, or ``net.slices.1.3.weight``."""
    found = {}
    for name in network.state_dict():
        layer = re.sub(r"^net\.slice(s\.)?\d+\.", "features.", name)
        if layer in given and layer != name:
            found[name] = given[layer].float()
    return found

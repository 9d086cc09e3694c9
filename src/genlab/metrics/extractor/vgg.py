"""VGG-16 features, as torch-fidelity takes them."""

from typing import Literal

import torch
import torchvision
from torch import Tensor
from torchvision.transforms.functional import normalize

from genlab.metrics.extractor.fingerprint import network_fingerprint
from genlab.metrics.extractor.precision import full_precision
from genlab.metrics.extractor.tensorflow_resize import resize_like_tensorflow
from genlab.metrics.extractor.weights import load_tensors, misfit, named_by_hash, weights_file

_PUBLISHED = named_by_hash("the VGG-16 weights", torchvision.models.VGG16_Weights.IMAGENET1K_V1.url)
_PREPROCESSING = "vgg16 fc2_relu; TensorFlow 1 bilinear resize to 224x224; ImageNet mean and deviation"
_MEAN, _STD = [255 * x for x in (0.485, 0.456, 0.406)], [255 * x for x in (0.229, 0.224, 0.225)]


class VGG16:
    """4096 features of VGG-16 (Simonyan & Zisserman 2015), after the ReLU of the second of its fully connected layers.

    What torch-fidelity calls ``vgg16``. Kynkaanniemi et al. (2019) measured precision and recall with such features.
    """

    name = "vgg4096"
    modality: Literal["image"] = "image"
    gives = frozenset({"features"})
    preprocessing = _PREPROCESSING

    def __init__(
        self,
        weights: str | None = None,  # torchvision's .pth file; null: from torch.hub's cache, or downloaded (528 MB)
    ):
        """Raises ResourceError if the weights are neither here nor can be downloaded, or are not VGG-16's."""
        path = weights_file(_PUBLISHED, weights)
        with torch.device("meta"):
            self.network = torchvision.models.vgg16()
        try:
            self.network.load_state_dict(load_tensors(path, _PUBLISHED), assign=True)
        except RuntimeError as error:
            raise misfit(path, _PUBLISHED, error) from error
        self.network.eval().requires_grad_(False)
        self._fingerprint = network_fingerprint(self.network, _PREPROCESSING)
        self.network.classifier = self.network.classifier[:5]  # what follows is the dropout and the classes

    def fingerprint(self) -> str:
        return self._fingerprint

    def extract(self, examples: Tensor, wanted: frozenset[str]) -> dict[str, Tensor]:
        """uint8 (N, C, H, W), C of 1 or 3, any size -> ``features`` (N, 4096), float32."""
        self.network.to(examples.device)
        with full_precision(examples.device):
            pixels = resize_like_tensorflow(examples.expand(-1, 3, -1, -1), 224)
            return {"features": self.network(normalize(pixels, _MEAN, _STD))}

"""CLIP's image features, as torch-fidelity takes them."""

from typing import Literal

import torch
from torch import Tensor
from torch_fidelity.feature_extractor_clip import MODEL_METADATA, MODEL_URLS, build_model
from torchvision.transforms.functional import normalize

from genlab.metrics.extractor.fingerprint import network_fingerprint
from genlab.metrics.extractor.precision import full_precision
from genlab.metrics.extractor.tensorflow_resize import resize_like_tensorflow
from genlab.metrics.extractor.weights import Published, load_tensors, misfit, weights_file

_MODEL = "clip-vit-b-32"
_HASH = MODEL_METADATA[_MODEL]["hash"]
_PUBLISHED = Published("the CLIP weights", MODEL_URLS[_MODEL], f"{_MODEL}-{_HASH}.pt", _HASH)
_PREPROCESSING = f"{_MODEL}; TensorFlow 1 bilinear resize to the network's resolution; CLIP's mean and deviation"
_MEAN = [255 * x for x in (0.48145466, 0.4578275, 0.40821073)]
_STD = [255 * x for x in (0.26862954, 0.26130258, 0.27577711)]


class CLIP:
    """512 features of CLIP ViT-B/32 (Radford et al. 2021), in the space that images and captions share.

    What torch-fidelity calls ``clip-vit-b-32``, with its resize, which is not CLIP's own.
    """

    name = "clip512"
    modality: Literal["image"] = "image"
    gives = frozenset({"features"})
    preprocessing = _PREPROCESSING

    def __init__(
        self,
        weights: str | None = None,  # OpenAI's .pt file, or its tensors; null: torch.hub's, or downloaded (338 MB)
    ):
        """Raises ResourceError if the weights are neither here nor can be downloaded, or are not CLIP's."""
        path = weights_file(_PUBLISHED, weights)
        try:
            model = build_model(load_tensors(path, _PUBLISHED), torch.float32)
        except (KeyError, RuntimeError) as error:
            raise misfit(path, _PUBLISHED, error) from error
        self.network, self._resolution = model.visual, model.visual.input_resolution

    def fingerprint(self) -> str:
        return network_fingerprint(self.network, _PREPROCESSING)

    def extract(self, examples: Tensor, wanted: frozenset[str]) -> dict[str, Tensor]:
        """uint8 (N, C, H, W), C of 1 or 3, any size -> ``features`` (N, 512), float32."""
        self.network.to(examples.device)
        with full_precision(examples.device):
            pixels = resize_like_tensorflow(examples.expand(-1, 3, -1, -1), self._resolution)
            return {"features": self.network(normalize(pixels, _MEAN, _STD))}

"""The Inception-v3 features of the FID literature: torch-fidelity's port of the TensorFlow network."""

import copy
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, BasicConv2d, FeatureExtractorInceptionV3

from genlab.metrics.extractor.fingerprint import network_fingerprint
from genlab.metrics.extractor.precision import full_precision
from genlab.metrics.extractor.tensorflow_resize import resize_like_tensorflow
from genlab.metrics.extractor.weights import load_tensors, misfit, named_by_hash, weights_file

_PREPROCESSING = "inception-v3-compat 2048; TensorFlow 1 bilinear resize to 299x299; (x - 128) / 128"
PUBLISHED = named_by_hash("the Inception weights for FID", URL_INCEPTION_V3)
_LAYERS = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1", "Conv2d_4a_3x3",
           "MaxPool_2", "Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e",
           "Mixed_7a", "Mixed_7b", "Mixed_7c", "AvgPool")  # fmt: skip
_SPATIAL = ("Mixed_6d", 7)  # layer, channels
_CPU_CHUNK = 16  # images per pass on a CPU: activations of 64 do not fit its caches


class Inception:
    """Inception-v3 (Szegedy et al. 2015), the network that published FIDs are measured with.

    * ``features``: 2048, after the last pooling.
    * ``logits``: 1008 classes without the biases of the last layer, "logits_unbiased" to torch-fidelity: published
      inception scores leave them out.
    * ``spatial``: 7 channels of 17 x 17, 2023 in all, for sFID (Nash et al. 2021). The tensor ``mixed_6/conv:0`` of the
      TensorFlow graph, its first 7 channels, as guided-diffusion's evaluator reads it; torch-fidelity's name for the
      layer is ``Mixed_6d.branch1x1``, after the ReLU, which the block's output begins with.

    Batch norms are folded into convolutions, which moves features by about 1e-7 of themselves.
    """

    name = "inception2048"
    modality: Literal["image"] = "image"
    gives = frozenset({"features", "logits", "spatial"})
    preprocessing = _PREPROCESSING

    def __init__(
        self,
        weights: str | None = None,  # a .pth file; null: from the cache, or else downloaded into it (91 MB)
        cache: str | None = None,  # a folder; null: torch.hub's, where torch-fidelity keeps the file too
        timeout: float = 5.0,  # seconds that the server may take to answer
        interim_bfloat16: bool = False,  # evaluations on the way, not the final one, by a network in bfloat16
    ):
        """Raises ResourceError if the weights are neither here nor can be downloaded, or hold anything but weights."""
        path = weights_file(PUBLISHED, weights, cache, timeout)
        load_tensors(path, PUBLISHED)  # torch-fidelity unpickles whatever the file says: look first
        try:
            network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(path))
        except RuntimeError as error:
            raise misfit(path, PUBLISHED, error) from error
        self._fingerprint = network_fingerprint(network, _PREPROCESSING)  # of the weights as they came
        self.network: Any = _fold_batch_norms(network)
        self.dtype, self.interim_bfloat16 = torch.float32, interim_bfloat16

    def fingerprint(self) -> str:
        return self._fingerprint

    def interim(self) -> "Inception | None":
        """The same in bfloat16, of another name and fingerprint: its features are off by about half a percent, and
        where a processor multiplies bfloat16, they take half the time."""
        if not self.interim_bfloat16:
            return None
        quick = copy.copy(self)
        quick.name, quick.preprocessing = f"{self.name}_bf16", f"{self.preprocessing}; in bfloat16"
        quick._fingerprint = f"{self._fingerprint}-bf16"
        quick.dtype, quick.network = torch.bfloat16, copy.deepcopy(self.network).to(torch.bfloat16)
        quick.interim_bfloat16 = False
        return quick

    def extract(self, examples: Tensor, wanted: frozenset[str]) -> dict[str, Tensor]:
        """uint8 (N, C, H, W), C of 1 or 3, any size -> ``features`` (N, 2048), ``logits`` (N, 1008), ``spatial``
        (N, 2023), float32."""
        on_cpu = examples.device.type == "cpu"
        layout = torch.channels_last if on_cpu else torch.contiguous_format
        self.network.to(device=examples.device, memory_format=layout)
        with full_precision(examples.device):
            chunks = [self._look(part, wanted) for part in examples.split(_CPU_CHUNK if on_cpu else len(examples))]
        return {output: torch.cat([chunk[output] for chunk in chunks]) for output in chunks[0]}

    def _look(self, images: Tensor, wanted: frozenset[str]) -> dict[str, Tensor]:
        given = {}
        x = (resize_like_tensorflow(images, 299) - 128) / 128
        x = x.expand(-1, 3, -1, -1).to(self.dtype)
        for name in _LAYERS:
            x = getattr(self.network, name)(x if name != _LAYERS[-1] else x.float())
            if name == _SPATIAL[0] and "spatial" in wanted:
                given["spatial"] = x[:, : _SPATIAL[1]].flatten(1).float()  # (N, 7 * 17 * 17)
                if wanted == {"spatial"}:
                    return given
        features = x.flatten(1)
        if "features" in wanted:
            given["features"] = features
        if "logits" in wanted:
            given["logits"] = features @ self.network.fc.weight.float().T
        return given


def _fold_batch_norms(network: nn.Module) -> nn.Module:
    for block in network.modules():
        if isinstance(block, BasicConv2d):
            block.conv, block.bn = fuse_conv_bn_eval(block.conv, block.bn), nn.Identity()
    return network.requires_grad_(False)

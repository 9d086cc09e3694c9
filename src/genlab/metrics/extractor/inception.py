"""The Inception-v3 features of the FID literature, by torch-fidelity, whose numbers are the original TensorFlow's."""

import pickle
import urllib.request
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

from genlab.errors import ResourceError
from genlab.metrics.extractor.fingerprint import network_fingerprint
from genlab.metrics.extractor.precision import full_precision

_PREPROCESSING = "inception-v3-compat 2048; TensorFlow 1 bilinear resize to 299x299; (x - 128) / 128"
_FILE = Path(URL_INCEPTION_V3).name  # ends in the first digits of its own SHA-256
_SHA256_PREFIX = _FILE.rsplit("-", 1)[1].removesuffix(".pth")


class Inception:
    """2048 pooled features of Inception-v3 (Szegedy et al. 2015), the network that published FIDs are measured with."""

    name = "inception2048"
    modality: Literal["image"] = "image"
    gives = frozenset({"features"})
    preprocessing = _PREPROCESSING

    def __init__(
        self,
        weights: str | None = None,  # a .pth file; null: from the cache, or else downloaded into it (91 MB)
        cache: str | None = None,  # a folder; null: torch.hub's, where torch-fidelity keeps the file too
        timeout: float = 5.0,  # seconds that the server may take to answer
    ):
        """Raises ResourceError if the weights are neither here nor to be had, or hold anything but weights."""
        if weights is None:
            folder = Path(cache) if cache else Path(torch.hub.get_dir()) / "checkpoints"
            path = folder / _FILE
            if not path.is_file():
                _download(path, timeout)
        else:
            path = Path(weights)
            if not path.is_file():
                raise ResourceError(f"the Inception weights for FID are not at {path}. Put {_FILE} there.")
        _refuse_code(path)
        self.network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(path))

    def fingerprint(self) -> str:
        return network_fingerprint(self.network, _PREPROCESSING)

    def extract(self, examples: Tensor, wanted: frozenset[str]) -> dict[str, Tensor]:
        """uint8 (N, C, H, W), C of 1 or 3, any size -> ``features`` (N, 2048), float32."""
        self.network.to(examples.device)
        with full_precision(examples.device):
            return {"features": self.network(examples.expand(-1, 3, -1, -1))[0]}


def _download(path: Path, timeout: float) -> None:
    try:
        request = urllib.request.Request(URL_INCEPTION_V3, method="HEAD")
        urllib.request.urlopen(request, timeout=timeout).close()  # the download itself has no time limit
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(URL_INCEPTION_V3, str(path), hash_prefix=_SHA256_PREFIX, progress=False)
    except (OSError, RuntimeError) as error:  # no network, no such page, no space; or not the right bytes
        raise ResourceError(
            "the Inception weights for FID are not here and cannot be downloaded. "
            f"Put {_FILE} into {path.parent}, or use metrics/extractor=random (no download)."
        ) from error


def _refuse_code(path: Path) -> None:
    """torch-fidelity unpickles whatever the file says; look first."""
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ResourceError(
            f"{path} does not hold plain weights ({type(error).__name__}); genlab loads weights only. Get {_FILE} anew."
        ) from error

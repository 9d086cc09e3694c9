"""DINOv2 features, by Hugging Face's transformers: a Frechet distance over them is what papers call FD-DINOv2."""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from genlab.data.hub import model_folder
from genlab.errors import ConfigError, ResourceError
from genlab.files.paths import read_path
from genlab.metrics.extractor.fingerprint import network_fingerprint
from genlab.metrics.extractor.precision import full_precision

_SIZE = 224  # pixels
_PREPROCESSING = f"PIL bicubic to {_SIZE}x{_SIZE}; ImageNet mean and deviation; class token after the last norm"
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_LETTERS = {384: "s", 768: "b", 1024: "l", 1536: "g"}  # the published widths, and their names
_BESIDE_WEIGHTS = ("patch_size", "num_attention_heads", "hidden_act", "layer_norm_eps")  # what they do not show
_OFFSET = 0.1  # see _fit_positions


class DINOv2:
    """The class token of a DINOv2 vision transformer (Oquab et al. 2023, arXiv:2304.07193), which saw no labels.

    Stein et al. (2023, arXiv:2306.04675) find distances over the features of ViT-L/14 closest to human judgment.
    Images are prepared as in their program, pixels rounded to 8 bits after the resize as PIL does it; and positions are
    interpolated as in DINOv2's own program, which transformers does a little differently.
    """

    modality: Literal["image"] = "image"
    gives = frozenset({"features"})
    preprocessing = _PREPROCESSING

    def __init__(
        self,
        weights: str = "facebook/dinov2-large",  # a folder with config.json and *.safetensors; or a name at the Hub
        revision: str | None = None,  # at the Hub: a branch, tag or commit
    ):
        """
        Raises:
            ConfigError: transformers is not installed.
            ResourceError: the model is neither here nor can be downloaded, or it is not a DINOv2 as safetensors.
        """
        try:
            from transformers import Dinov2Model
        except ImportError as error:
            raise ConfigError("metrics/extractor=dinov2 needs a package: pip install 'genlab[dinov2]'") from error
        folder = read_path(weights)
        folder = folder if folder.is_dir() else model_folder(weights, revision)
        _check(folder)
        try:
            load: Any = Dinov2Model.from_pretrained  # typed as if it always gave one thing
            network, found = load(
                folder, use_safetensors=True, local_files_only=True, dtype=torch.float32, output_loading_info=True
            )
        except Exception as error:  # of many kinds, safetensors' own among them
            raise ResourceError(f"cannot load a DINOv2 from {folder}: {' '.join(str(error).split())[:200]}") from error
        if lacking := sorted(set(found["missing_keys"]) - {"embeddings.mask_token"}):  # filled with noise
            raise ResourceError(
                f"the weights in {folder} lack {lacking[0]}, and {len(lacking) - 1} more. Get them anew."
            )
        network.eval().requires_grad_(False)
        width = network.config.hidden_size
        self.name = f"dinov2{_LETTERS.get(width, '')}{width}"
        shape = str([getattr(network.config, name) for name in _BESIDE_WEIGHTS])
        self._fingerprint = network_fingerprint(network, "dinov2", shape, _PREPROCESSING)
        self.network = _fit_positions(network)

    def fingerprint(self) -> str:
        return self._fingerprint

    def extract(self, examples: Tensor, wanted: frozenset[str]) -> dict[str, Tensor]:
        """uint8 (N, C, H, W), C of 1 or 3, any size -> ``features`` (N, width), float32."""
        self.network.to(examples.device)
        with full_precision(examples.device):
            return {"features": self.network(prepared(examples).to(examples.device)).pooler_output}


def prepared(images: Tensor) -> Tensor:
    """uint8 (N, C, H, W) -> float32 (N, 3, 224, 224), as the network takes them. On the CPU."""
    pixels = images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()  # (N, H, W, 3)
    squares = [Image.fromarray(image).resize((_SIZE, _SIZE), Image.Resampling.BICUBIC) for image in pixels]
    x = torch.from_numpy(np.stack([np.asarray(square) for square in squares])).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (_MEAN, _STD))
    return (x - mean) / std


def _check(folder: Path) -> None:
    """Raises ResourceError if a folder does not hold a DINOv2 as safetensors."""
    if not list(folder.glob("*.safetensors")):
        raise ResourceError(f"{folder} has no *.safetensors. Save the model with save_pretrained of transformers.")
    try:
        kind = json.loads((folder / "config.json").read_text()).get("model_type")
    except (OSError, ValueError, AttributeError):
        kind = None
    if kind != "dinov2":
        raise ResourceError(f"{folder}/config.json is not that of a DINOv2 (model_type is {kind}, not dinov2).")


def _fit_positions(network: Any) -> nn.Module:
    """Position embeddings for images of ``_SIZE``; published ones are for 518 pixels.

    DINOv2's own program adds 0.1 to the number of patches before it computes the scale of the interpolation, once
    against rounding, now because its numbers rest on it.
    """
    embeddings, patches = network.embeddings, _SIZE // network.config.patch_size
    token, grid = embeddings.position_embeddings.split([1, embeddings.position_embeddings.shape[1] - 1], dim=1)
    side = round(grid.shape[1] ** 0.5)
    if side != patches:
        grid = grid.view(1, side, side, -1).permute(0, 3, 1, 2)  # (1, width, side, side)
        grid = nn.functional.interpolate(grid, scale_factor=(patches + _OFFSET) / side, mode="bicubic")
        grid = grid.flatten(2).transpose(1, 2)
        embeddings.position_embeddings = nn.Parameter(torch.cat([token, grid], dim=1), requires_grad=False)
    return network

"""CLIP (Radford et al. 2021, arXiv:2103.00020): embeddings of images and texts, by transformers."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from genlab.data.base import DataSpec
from genlab.errors import ConfigError, ResourceError
from genlab.files.paths import read_path
from genlab.metrics.extractor.fingerprint import network_fingerprint
from genlab.metrics.extractor.precision import full_precision

_PREPROCESSING = "bicubic resize of the shorter side with antialiasing, rounded; centre crop"
_FILES = ("*.json", "*.txt", "model.safetensors")
_TIMEOUT = 5.0  # seconds in which the Hub has to answer; its own library would try for half a minute


class CLIP:
    """A network of transformers' CLIPModel, in float32, from safetensors alone."""

    def __init__(self, model: str, option: str = "metrics.clip_score.model"):
        """``model``: a folder, or a name on the Hugging Face Hub; ``option``: that names it, for messages.

        Raises ConfigError if transformers is missing, ResourceError if the model is neither here nor can be
        downloaded."""
        try:
            from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel
        except ImportError as error:
            raise ConfigError("CLIP needs a package: pip install 'genlab[clip]'") from error
        folder = _folder(model, option)
        try:
            made: Any = CLIPModel  # typed for other uses
            self.network = made.from_pretrained(folder, use_safetensors=True, local_files_only=True)
            self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            pixels = CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # of many kinds: a file is missing, or not what its name says
            raise ResourceError(
                f"{folder} does not hold a CLIP that can be loaded ({' '.join(str(error).split())[:200]}). It needs "
                "config.json, model.safetensors, the tokenizer's files and preprocessor_config.json."
            ) from error
        self.network.float().eval().requires_grad_(False)
        self.size = int(self.network.config.vision_config.image_size)
        self.length = int(self.network.config.text_config.max_position_embeddings)
        self.mean, self.std = (torch.tensor(c).view(1, -1, 1, 1) for c in (pixels.image_mean, pixels.image_std))

    @cached_property
    def fingerprint(self) -> str:
        """A hash of everything that its outputs depend on."""
        constants = f"{self.size} {self.mean.flatten().tolist()} {self.std.flatten().tolist()}"
        return network_fingerprint(self.network, _PREPROCESSING, constants)

    def check(self, spec: DataSpec, captions: bool) -> None:
        """Images of any size, and captions of any words."""

    def images(self, images: Tensor) -> Tensor:
        """uint8 (N, C, H, W), C of 1 or 3, any size -> unit vectors (N, D) float32."""
        self.network.to(images.device)
        with full_precision(images.device):
            seen = self.network.vision_model(pixel_values=self.prepared(images)).pooler_output
            return normalize(self.network.visual_projection(seen), dim=1)

    def texts(self, texts: Sequence[str], device: torch.device) -> Tensor:
        """-> unit vectors (N, D) float32. A text is cut after the network's context, 77 tokens."""
        self.network.to(device)
        tokens = self.tokenizer(list(texts), padding=True, truncation=True, max_length=self.length, return_tensors="pt")
        with full_precision(device):
            read = self.network.text_model(
                **{name: tokens[name].to(device) for name in ("input_ids", "attention_mask")}
            )
            return normalize(self.network.text_projection(read.pooler_output), dim=1)

    def prepared(self, images: Tensor) -> Tensor:
        """The network's input for uint8 images (N, C, H, W): float32 (N, 3, S, S)."""
        x = images.float().expand(-1, 3, -1, -1)
        height, width = (int(self.size * side / min(x.shape[2:])) for side in x.shape[2:])
        x = interpolate(x, (height, width), mode="bicubic", antialias=True, align_corners=False).round().clamp(0, 255)
        top, left = (height - self.size) // 2, (width - self.size) // 2
        x = x[:, :, top : top + self.size, left : left + self.size] / 255
        return (x - self.mean.to(x.device)) / self.std.to(x.device)


def _folder(model: str, option: str) -> str:
    """Where a model's files are: as named, in the Hub's cache, or downloaded into that. Raises ResourceError."""
    if read_path(model).is_dir():
        return str(read_path(model))
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        try:
            return snapshot_download(model, allow_patterns=list(_FILES), local_files_only=True)
        except FileNotFoundError:  # LocalEntryNotFoundError
            revision = HfApi().model_info(model, timeout=_TIMEOUT).sha
            return snapshot_download(model, revision=revision, allow_patterns=list(_FILES))
    except HFValidationError as error:
        raise ResourceError(
            f"{model} is neither a folder nor the name of a model, which is like owner/name."
        ) from error
    except Exception as error:  # of the network, in the classes of whichever HTTP library is below
        raise ResourceError(
            f"the CLIP {model} is not here and cannot be downloaded ({type(error).__name__}). Name a folder that holds "
            f"it: {option}=/path, or leave {option.split('.')[1]} out of metrics=[...]."
        ) from error

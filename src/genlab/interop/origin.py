"""``hf:<folder or name>``: models saved by Hugging Face transformers or diffusers, read from safetensors only."""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from genlab.checkpoint.tensors import as_bytes, read_file, tensors_in
from genlab.data.hub import model_folder
from genlab.errors import ConfigError, ResourceError
from genlab.files.paths import read_path
from genlab.files.regular_file import read_text
from genlab.interop import autoencoder_kl, bert_text, clip_text, t5_text, unet2d_condition

_FILES = ("model.safetensors", "diffusion_pytorch_model.safetensors")
_KNOWN = (
    "Known are CLIP's text tower, T5, BERT and MiniLM (transformers), AutoencoderKL and, to start from, "
    "UNet2DConditionModel (diffusers)."
)


class HubOrigin:
    """A model's folder, or its name at the Hub, from where it is downloaded unless it is in the Hub's cache."""

    def __init__(self, where: str, option: str):
        self.where, self.option = where, option
        name = where.partition(":")[2]
        if not name:
            raise ConfigError(f"{option}={where}: write hf:<folder>, or hf:<owner>/<name> for a model at the Hub.")
        folder = read_path(name)
        self.folder_of_model = folder if folder.is_dir() else _from_the_hub(name)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        path = self.folder_of_model / "config.json"
        try:
            content = json.loads(read_text(path.resolve()))
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"{self.option}={self.where}: there is no readable config.json. {_KNOWN}") from error
        if not isinstance(content, dict):
            raise ConfigError(f"{self.option}={self.where}: its config.json does not describe a model. {_KNOWN}")
        return content

    @cached_property
    def _kind(self) -> Any:
        """The module for this kind of model."""
        for module in (clip_text, t5_text, bert_text, autoencoder_kl, unet2d_condition):
            if module.knows(self.config):
                return module
        named = self.config.get("_class_name") or self.config.get("model_type")
        raise ConfigError(f"{self.option}={self.where}: a model of the kind {named} cannot be used. {_KNOWN}")

    def model(self) -> dict[str, Any]:
        try:
            node: dict[str, Any] = self._kind.node(self.config, self.folder_of_model)
        except (KeyError, TypeError, ValueError) as error:
            said = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise ConfigError(f"{self.option}={self.where}: its config.json does not fit ({said}).") from error
        return node

    @cached_property
    def _contents(self) -> dict[Path, bytes]:
        found = [path for name in _FILES if (path := self.folder_of_model / name).is_file()]
        if not found:
            raise ResourceError(
                f"{self.option}={self.where}: there is no {' or '.join(_FILES)}, and no other file is read. Save the "
                "model with save_pretrained, in one file (max_shard_size=1TB)."
            )
        return {found[0]: read_file(found[0].resolve())}  # in the Hub's cache, files are links

    def weights(self) -> Mapping[str, torch.Tensor]:
        ((path, content),) = self._contents.items()
        found: Mapping[str, torch.Tensor] = self._kind.weights(tensors_in(content, path), self.folder_of_model)
        return found

    def sha256(self) -> str:
        """Hash of the weight file and of the other files that are read."""
        digest = hashlib.sha256()
        for part in (*self._contents.values(), self._kind.beside(self.folder_of_model)):
            digest.update(hashlib.sha256(part).digest())
        return digest.hexdigest()

    def content(self) -> bytes:
        return as_bytes(self.weights(), self.model())


def _from_the_hub(name: str) -> Path:
    try:
        return model_folder(name, None)
    except ImportError as error:
        raise ConfigError(
            f"there is no folder {name}, and a download needs a package: pip install huggingface_hub"
        ) from error

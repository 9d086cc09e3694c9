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
from genlab.errors import CheckpointError, ConfigError, ResourceError
from genlab.files.paths import read_path
from genlab.files.regular_file import read_text
from genlab.interop import autoencoder_kl, bert_text, clip_text, language_model, t5_text, unet2d_condition

_FILES = ("model.safetensors", "diffusion_pytorch_model.safetensors")
_KNOWN = (
    "Known are CLIP's text tower, T5, BERT and MiniLM (transformers), AutoencoderKL (diffusers) and, to start from, "
    f"UNet2DConditionModel (diffusers) and language models of model_type {', '.join(language_model.KINDS)}."
)
_INDEX = "model.safetensors.index.json"  # of weights in several files


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
        for module in (clip_text, t5_text, bert_text, autoencoder_kl, unet2d_condition, language_model):
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

    @property
    def is_language_model(self) -> bool:
        return self._kind is language_model

    def tokenizer(self) -> dict[str, Any]:
        """The config node of a language model's tokenizer. Raises ConfigError."""
        try:
            return language_model.tokenizer_node(self.config, self.folder_of_model)
        except (KeyError, TypeError, ValueError, OSError) as error:
            said = f"its tokenizer.json has no {error}" if isinstance(error, KeyError) else str(error)
            raise ConfigError(f"{self.option}={self.where}: {said}.") from error

    @cached_property
    def _files(self) -> list[Path]:
        """The files with weights. Raises ResourceError and CheckpointError."""
        found = [path for name in _FILES if (path := self.folder_of_model / name).is_file()]
        if found:
            return found[:1]
        index = self.folder_of_model / _INDEX
        if self.is_language_model and index.is_file():
            return self._files_of(index)
        pickled = sorted(self.folder_of_model.glob("*.bin"))
        has = f" ({pickled[0].name} is a pickle, which may hold code)" if pickled else ""
        raise ResourceError(
            f"{self.option}={self.where}: there is no {' or '.join(_FILES)}, and no other file is read{has}. Save the "
            "model with save_pretrained, in one file (max_shard_size=1TB)."
        )

    def _files_of(self, index: Path) -> list[Path]:
        try:
            names = sorted({str(name) for name in json.loads(read_text(index.resolve()))["weight_map"].values()})
        except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise CheckpointError(f"{index} does not list files of weights. Put it back.") from error
        for name in names:
            if Path(name).name != name or not name.endswith(".safetensors"):
                raise CheckpointError(f"{index} names {name!r}, and only .safetensors files beside it are read.")
        return [index.with_name(name) for name in names]

    @cached_property
    def _contents(self) -> dict[Path, bytes]:
        return {path: read_file(path.resolve()) for path in self._files}  # in the Hub's cache, files are links

    def weights(self) -> Mapping[str, torch.Tensor]:
        """Raises ConfigError too: those of a language model are not what its config.json says."""
        tensors: dict[str, torch.Tensor] = {}
        for path, content in self._contents.items():
            tensors |= tensors_in(content, path)
        try:
            found: Mapping[str, torch.Tensor] = self._kind.weights(tensors, self.folder_of_model)
        except ConfigError as error:
            if not self.is_language_model:
                raise
            raise CheckpointError(f"{self.option}={self.where}: {error}. Put the files of one model there.") from error
        return found

    def sha256(self) -> str:
        """Hash of the weight files and of the other files that are read."""
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

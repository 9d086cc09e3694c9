"""``<file>.gguf``: a language model in one file, read by transformers, which makes quantized weights float32 again."""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch

from genlab.checkpoint.tensors import as_bytes
from genlab.data.array_cache import default_folder
from genlab.errors import CheckpointError, ConfigError
from genlab.files.atomic import write_atomically
from genlab.files.paths import read_path
from genlab.interop import language_model

_NOT_TAKEN_OVER = ("quantization_config", "_attn_implementation_autoset")
_BLOCK = 1 << 24


class GgufOrigin:
    """Weights, config and tokenizer of a file. The tokenizer is kept in genlab's cache, as a tokenizer.json."""

    is_language_model = True

    def __init__(self, where: str, option: str):
        self.where, self.option, self.path = where, option, read_path(where).absolute()
        if not self.path.is_file():
            raise ConfigError(
                f"{option}={where}: there is no such file. Name a .gguf file that is there, or hf:<folder>."
            )
        try:
            import accelerate  # noqa: F401
            import gguf  # noqa: F401
            import transformers  # noqa: F401
        except ImportError as error:
            raise ConfigError(
                f"{option}={where}: a .gguf file needs packages: pip install transformers gguf accelerate"
            ) from error

    def _read(self, read: Any) -> Any:
        from transformers.utils import logging

        logging.disable_progress_bar()
        try:
            return read(self.path.parent, gguf_file=self.path.name, local_files_only=True)
        except Exception as error:  # of many kinds: it is damaged, or of a model that transformers does not read
            cause = " ".join(str(error).split())[:150] or type(error).__name__
            raise CheckpointError(f"{self.option}={self.where}: transformers cannot read it ({cause}).") from error

    @cached_property
    def config(self) -> dict[str, Any]:
        from transformers import AutoConfig

        self._check_positions()
        found = self._read(AutoConfig.from_pretrained).to_dict()
        if not language_model.knows(found):
            raise ConfigError(
                f"{self.option}={self.where}: a model of the kind {found.get('model_type')} cannot be used. Known are "
                f"{', '.join(language_model.KINDS)}."
            )
        return {name: value for name, value in found.items() if name not in _NOT_TAKEN_OVER}

    def _check_positions(self) -> None:
        """Raises ConfigError: positions are scaled, which transformers does not read from such a file."""
        from gguf import GGUFReader

        try:
            reader = GGUFReader(self.path)
        except Exception as error:
            raise CheckpointError(f"{self.path} is not a GGUF file, or is damaged ({error}).") from error
        scaled = [name for name in reader.fields if ".rope.scaling." in name]
        if scaled or any(tensor.name == "rope_freqs.weight" for tensor in reader.tensors):
            raise ConfigError(
                f"{self.option}={self.where}: its scaled rotary positions ({(scaled or ['rope_freqs.weight'])[0]}) are "
                "not read from .gguf files. Name the model's folder: start=hf:<folder>"
            )

    def model(self) -> dict[str, Any]:
        try:
            return language_model.node(self.config, self.path)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{self.option}={self.where}: {error}.") from error

    def tokenizer(self) -> dict[str, Any]:
        """The config node of its tokenizer."""
        key = hashlib.sha256(f"{self.path} {self.path.stat().st_size} {self.path.stat().st_mtime_ns}".encode())
        file = default_folder() / f"tokenizer-gguf-{key.hexdigest()[:32]}.json"
        if not file.is_file():
            from transformers import AutoTokenizer

            made = json.loads(self._read(AutoTokenizer.from_pretrained).backend_tokenizer.to_str())
            has = self.config["vocab_size"]  # transformers adds tokens of its own, which the network does not know
            made["added_tokens"] = [token for token in made["added_tokens"] if token["id"] < has]
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, lambda out: out.write(json.dumps(made).encode()))
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            return {**language_model.of_tokenizer(content, self.config), "name": str(file)}
        except (KeyError, ValueError) as error:
            raise ConfigError(f"{self.option}={self.where}: {error}.") from error

    @cached_property
    def _weights(self) -> dict[str, torch.Tensor]:
        from transformers import AutoModelForCausalLM

        made = self._read(lambda *a, **k: AutoModelForCausalLM.from_pretrained(*a, dtype=torch.float32, **k))
        return language_model.weights_for(made.state_dict(), self.config)

    def weights(self) -> Mapping[str, torch.Tensor]:
        return self._weights

    def sha256(self) -> str:
        digest = hashlib.sha256()
        with self.path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
        return digest.hexdigest()

    def content(self) -> bytes:
        return as_bytes(self.weights(), self.model())

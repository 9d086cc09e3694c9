"""Origins of pretrained weights: a run, a file that genlab wrote, or a Hugging Face folder.

An origin gives the weights, the config node of their model, and their SHA-256.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from genlab.checkpoint import read
from genlab.checkpoint.tensors import as_bytes, description_in, read_file, sha256_of, tensors_in
from genlab.errors import CheckpointError, ConfigError
from genlab.files.paths import read_path
from genlab.run import run_folder

HUB = "hf:"  # before a folder, or a name at the Hugging Face Hub
FILE = ".safetensors"
GGUF = ".gguf"  # a language model in one file, which transformers reads
PICKLE = ".pkl"  # StyleGAN2's networks, as their authors save them


class Origin(Protocol):
    """The protocol of origins."""

    def model(self) -> dict[str, Any]:
        """The node of a config that makes their model. Raises ConfigError: it is not known."""
        ...

    def weights(self) -> Mapping[str, torch.Tensor]:
        """By the names of that model's state dict, on the CPU. Raises CheckpointError and ResourceError."""
        ...

    def sha256(self) -> str:
        """Of the weights. Raises as :meth:`weights` does."""
        ...

    def content(self) -> bytes:
        """A file of safetensors with weights and model."""
        ...


@runtime_checkable
class HasSettings(Protocol):
    """An origin that says what its weights need of a config."""

    def check_settings(self, config: Mapping[str, Any]) -> None:
        """Raises ConfigError if the model of a resolved ``config`` is another than they need."""
        ...


def origin_of(where: str, option: str) -> Origin:
    """What ``where`` names, which stands at ``option``. Raises ConfigError: there is nothing."""
    if where.startswith(HUB):
        from genlab.interop.origin import HubOrigin  # with its optional packages

        return HubOrigin(where, option)
    if where.endswith(GGUF):
        from genlab.interop.gguf import GgufOrigin

        return GgufOrigin(where, option)
    if where.endswith(PICKLE):
        from genlab.interop.stylegan2_pickle import StyleGAN2Origin

        return StyleGAN2Origin(where, option)
    if where.endswith(FILE):
        return FileOrigin(where, option)
    return RunOrigin(where, option)


def is_a_reference(where: str) -> bool:
    """Whether weights are only referenced; those of a run are copied, since it may be continued."""
    return is_of_another_library(where) or where.endswith(FILE)


def is_of_another_library(where: str) -> bool:
    """Whether a place holds a model of another library."""
    return where.startswith(HUB) or where.endswith(GGUF)


class RunOrigin:
    """The newest checkpoint of a run, its averages where it has any."""

    def __init__(self, where: str, option: str):
        self.folder, self.option = run_folder.find(where, option), option

    @cached_property
    def last(self) -> read.Saved:
        """Read once, since the run may continue meanwhile."""
        return read.newest(self.folder)

    @cached_property
    def config(self) -> dict[str, Any]:
        return run_folder.read_config(self.folder)

    def model(self) -> dict[str, Any]:
        config = self.config
        if nested := [path for path in config["pretrained"] if str(path).startswith("model.")]:
            raise ConfigError(
                f"{self.option}={self.folder}: its model has a pretrained part itself ({nested[0]}), and such a "
                "model cannot be a part. Name another run."
            )
        model: dict[str, Any] = config["model"]
        return model

    def weights(self) -> Mapping[str, torch.Tensor]:
        return {**self.last.state, **self.last.content.get("ema", {})}

    def cost(self) -> dict[str, float]:
        """Examples and FLOPs that the weights were trained with, those of the run that it began with among them; {}:
        of that nobody knows."""
        before, progress = self.config.get("start"), self.last.progress
        own = {"examples": progress.examples, "flops": progress.flops}
        if before is None:
            return own
        earlier = {name: before.get(name) for name in own}
        if any(isinstance(value, bool) or not isinstance(value, int | float) for value in earlier.values()):
            return {}
        return {name: value + earlier[name] for name, value in own.items()}

    @property
    def kind(self) -> str:
        """Which weights they are: "ema", "best" (``callbacks.best``) or "raw"."""
        return str(self.last.content.get("ema_kind", "ema")) if self.last.content.get("ema") else "raw"

    @cached_property
    def _content(self) -> bytes:
        return as_bytes(self.weights(), self.config["model"])

    def content(self) -> bytes:
        return self._content

    def sha256(self) -> str:
        return sha256_of(self._content)


class FileOrigin:
    """A file that genlab wrote, such as ``parts/<sha256>.safetensors`` in the folder of a run."""

    def __init__(self, where: str, option: str):
        self.path, self.option = read_path(where), option
        if not self.path.is_file():
            raise ConfigError(
                f"{option}={where}: there is no such file. Name a run, hf:<folder>, or a file that is there."
            )

    @cached_property
    def _content(self) -> bytes:
        return read_file(self.path.resolve())  # a link that the user typed

    def model(self) -> dict[str, Any]:
        node = description_in(self._content)
        if not isinstance(node, dict) or not isinstance(node.get("_target_"), str):
            raise ConfigError(
                f"{self.option}={self.path}: the file does not describe the model of its weights, as files in parts/ "
                "of a run do. Name such a file, the run itself, or hf:<folder>."
            )
        run_folder.check_plain_values(node, self.path)
        return node

    def weights(self) -> Mapping[str, torch.Tensor]:
        return tensors_in(self._content, self.path)

    def content(self) -> bytes:
        return self._content

    def sha256(self) -> str:
        return sha256_of(self._content)


def weights_of(where: str, option: str) -> Mapping[str, torch.Tensor]:
    """Raises CheckpointError, with what to do: the run, file or folder is gone."""
    try:
        return origin_of(where, option).weights()
    except ConfigError as error:
        raise CheckpointError(str(error)) from error


def file_of(run: Path, sha256: str) -> Path:
    """Where a run keeps a part of its model that was trained elsewhere."""
    return run / run_folder.PARTS / f"{sha256}{FILE}"

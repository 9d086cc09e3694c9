"""Reads and writes safetensors files, each with a description of its tensors."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from genlab.errors import CheckpointError
from genlab.files.regular_file import LARGEST_CHECKPOINT, open_regular

_DESCRIPTION = "genlab"  # the only metadata key: with several, the bytes of the file would not be deterministic
_LONGEST_HEADER = 100 << 20


def as_bytes(tensors: Mapping[str, torch.Tensor], description: Mapping[str, Any]) -> bytes:
    """A file's content: the same for the same tensors, on the CPU, and description (plain values)."""
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in sorted(tensors.items())}
    return save(own, {_DESCRIPTION: json.dumps(description, sort_keys=True)})


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read_file(path: Path, root: Path | None = None) -> bytes:
    """Raises CheckpointError: it cannot be read, or is not a regular file. ``root``: no link is followed below it."""
    try:
        with open_regular(path, root, largest=LARGEST_CHECKPOINT) as file:
            return file.read()
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing. Put it back.") from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: it {error.strerror or error}.") from error


def tensors_in(content: bytes, path: Path) -> dict[str, torch.Tensor]:
    """Raises CheckpointError: this is not a safetensors file."""
    try:
        return load(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is not a safetensors file ({' '.join(str(error).split())[:100]}); other formats are not read."
        ) from error


def description_in(content: bytes) -> Any:
    """The description given to :func:`as_bytes`; None: another program wrote the file."""
    try:
        length = int.from_bytes(content[:8], "little")
        if length > _LONGEST_HEADER:
            return None
        return json.loads(json.loads(content[8 : 8 + length])["__metadata__"][_DESCRIPTION])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None

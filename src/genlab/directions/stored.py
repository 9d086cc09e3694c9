"""Directions as a file in the folder of a run."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from genlab.errors import CheckpointError, ConfigError, did_you_mean
from genlab.files.atomic import write_atomically

FILE = "directions.safetensors"  # of a run


@dataclass(frozen=True)
class Directions:
    """K unit vectors (K, D) of a space, and the standard deviations (K,) of samples along them: a strength of 1 is one
    of these."""

    kind: str  # of the space: "latent", "style" or "middle"
    method: str
    vectors: Tensor
    scale: Tensor
    names: Sequence[str]  # of labels; else their numbers

    def __len__(self) -> int:
        return len(self.vectors)

    def number(self, typed: str | int) -> int:
        """The place of a direction that is named or numbered. Raises ConfigError: there is none."""
        if str(typed) in self.names:
            return list(self.names).index(str(typed))
        if isinstance(typed, int) and 0 <= typed < len(self):
            return typed
        known = ", ".join(self.names) if any(not name.isdecimal() for name in self.names) else f"0 to {len(self) - 1}"
        guess = did_you_mean(str(typed), list(self.names))
        raise ConfigError(f"direction={typed}: there is none.{guess} Known: {known}. Use direction=0.")

    def shift(self, chosen: Sequence[int], strengths: Sequence[float]) -> Tensor:
        """The sum of directions, each ``strengths`` standard deviations long. -> (D,)"""
        weights = torch.tensor(strengths, dtype=torch.float32) * self.scale[list(chosen)]
        return (weights[:, None] * self.vectors[list(chosen)]).sum(dim=0)


def write(found: Directions, path: Path) -> None:
    """Raises StorageError."""
    told = {"kind": found.kind, "method": found.method, "names": list(found.names)}
    content = save(
        {"vectors": found.vectors.contiguous().cpu(), "scale": found.scale.contiguous().cpu()},
        {"directions": json.dumps(told)},
    )
    write_atomically(path, lambda file: file.write(content))


def read(run: Path, kind: str, size: int) -> Directions:
    """The directions of a run whose space is of this kind and size. Raises ConfigError: there are none, or of another
    space; CheckpointError: the file is damaged."""
    path = run / FILE
    if not path.exists():
        raise ConfigError(f"{run} has no directions yet: genlab directions run={run} finds some.")
    try:
        with safe_open(path, framework="pt") as file:
            told = json.loads((file.metadata() or {})["directions"])
            vectors, scale = file.get_tensor("vectors"), file.get_tensor("scale")
        names = [str(name) for name in told["names"]]
        found = Directions(str(told["kind"]), str(told["method"]), vectors, scale, names)
        whole = vectors.ndim == 2 and scale.shape == vectors.shape[:1] == (len(names),)
    except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({type(error).__name__}). Find directions again.") from error
    if not whole or not vectors.isfinite().all() or not scale.isfinite().all():
        raise CheckpointError(f"{path} is damaged (its tensors do not fit). Find directions again.")
    if (found.kind, vectors.shape[1]) != (kind, size):
        raise ConfigError(
            f"{path} has directions of {vectors.shape[1]} numbers of the {found.kind} space, and the model has "
            f"{size} of the {kind} space: its sampler was changed since. Find directions again."
        )
    return found

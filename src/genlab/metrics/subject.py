"""What is measured, and images: real ones to compare with, and ways to draw others from a model."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from genlab.data.base import Split
from genlab.data.image import ImageDataModule, to_uint8
from genlab.errors import DataError
from genlab.model.base import GenerativeModel
from genlab.progress import progress
from genlab.seeding import RandomStream


@dataclass(frozen=True)
class Examples:
    """N of them."""

    content: Tensor | Sequence[str]  # images (N, C, H, W) uint8, or texts
    labels: Tensor | None = None  # (N,), -1 = none
    length: int | None = None  # of texts: tokens of each

    def __len__(self) -> int:
        return len(self.content)

    def mine(self, rank: int, world: int) -> "Examples":
        """Every ``world``-th, from number ``rank`` on."""
        share = slice(rank, None, world)
        return Examples(self.content[share], None if self.labels is None else self.labels[share], self.length)


class Subject(Protocol):
    """Data of one modality, for an evaluation."""

    key: ClassVar[str]  # of a metric's batch: "image" or "text"

    def sized(self, count: int, of: GenerativeModel | Examples) -> "Subject":
        """What so many samples of a model, or examples that are there, are compared with: the reference may depend on
        their number and length. Raises ConfigError if the model and the data do not allow that."""
        ...

    def reference(self) -> Examples:
        """All real examples that samples are compared with. Of a subject that is ``sized``, as are the other methods
        but for ``facts``."""
        ...

    def reference_hash(self) -> str: ...

    def facts(self) -> dict[str, Any]:
        """What two numbers about these data must share to be compared: part of the protocol."""
        ...

    def asked(self, model: GenerativeModel, indices: Sequence[int]) -> Tensor | None:
        """The labels (N,) that the samples of these numbers are asked for; None: they are asked for none."""
        ...

    def draw(self, model: GenerativeModel, indices: Sequence[int], seed: int, batch_size: int) -> Examples:
        """The samples of these numbers, each a function of (seed, number). On the CPU."""
        ...

    def check(self, examples: Examples) -> None:
        """Raises DataError if examples are not such as the data are."""
        ...


class ImageSubject:
    """Images of a split. Sample i has label i mod classes where the data have labels."""

    key: ClassVar[str] = "image"

    def __init__(self, data: ImageDataModule, split: Split):
        self.data, self.split = data, split

    def sized(self, count: int, of: GenerativeModel | Examples) -> "ImageSubject":
        """As it is: samples of any number are compared with the whole split."""
        return self

    def reference(self) -> Examples:
        table = self.data.table(self.split)
        return Examples(
            torch.from_numpy(table.images), None if table.labels is None else torch.from_numpy(table.labels)
        )

    def reference_hash(self) -> str:
        return self._reference_hash

    @cached_property
    def _reference_hash(self) -> str:
        images = np.ascontiguousarray(self.data.table(self.split).images)
        return hashlib.sha256(images.data).hexdigest()[:16]

    def facts(self) -> dict[str, Any]:
        return {
            "shape": list(self.data.spec.shape),
            "quantisation": "clamp [-1,1], round to uint8",
            "reference": self.split,
            "reference_sha256": self.reference_hash(),
            "num_reference": len(self.data.table(self.split)),
        }

    def asked(self, model: GenerativeModel, indices: Sequence[int]) -> Tensor | None:
        return torch.tensor(indices) % model.num_classes if model.num_classes is not None else None

    def draw(self, model: GenerativeModel, indices: Sequence[int], seed: int, batch_size: int) -> Examples:
        """Raises NumericsError if a sample is not finite."""
        labels = self.asked(model, indices)
        images = []
        with progress(f"drawing {len(indices):,} samples", len(indices), quiet=rank() != 0) as advance:
            for start in range(0, len(indices), batch_size):
                batch = slice(start, start + batch_size)
                stream = RandomStream.for_samples(seed, indices[batch], model.device)
                condition = None if labels is None else {"label": labels[batch].to(model.device)}
                images.append(to_uint8(model.sample(len(stream), condition, stream)).cpu())
                advance(len(stream))
        return Examples(torch.cat(images), labels)

    def check(self, examples: Examples) -> None:
        assert isinstance(examples.content, Tensor)
        shape = tuple(examples.content.shape[1:])
        if shape != tuple(self.data.spec.shape):
            raise DataError(f"samples have shape {shape}, the data {tuple(self.data.spec.shape)}.")


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1

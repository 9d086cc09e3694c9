"""What is measured, and images: real ones to compare with, and ways to draw others from a model."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from genlab.data.base import Split
from genlab.data.image import ImageDataModule, content_hash, to_uint8
from genlab.errors import ConfigError, DataError
from genlab.machine.rank import rank
from genlab.metrics.asked_labels import AskedLabels
from genlab.metrics.protocol import CLASS_MIX
from genlab.model.base import GenerativeModel
from genlab.progress import progress
from genlab.seeding import RandomStream

_log = logging.getLogger(__name__)


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

    def label_facts(self) -> dict[str, str]:
        """What numbers of metrics that look at labels must share beside that."""
        ...

    def labels(self, indices: Sequence[int]) -> Tensor | None:
        """What the samples of these numbers are asked for, (N,), each a function of its number; None: nothing."""
        ...

    def asked(self, model: GenerativeModel, indices: Sequence[int]) -> Tensor | None:
        """The same of a model: None if it takes no labels. Raises ConfigError if it does not know one of them."""
        ...

    def draw(self, model: GenerativeModel, indices: Sequence[int], seed: int, batch_size: int) -> Examples:
        """The samples of these numbers, each a function of (seed, number). On the CPU."""
        ...

    def check(self, examples: Examples) -> None:
        """Raises DataError if examples are not such as the data are."""
        ...


class ImageSubject:
    """Images of a split. Where the data have labels, samples are asked for classes as often as the split has them, or
    ``balanced``: each as often as the next. See :class:`genlab.metrics.asked_labels.AskedLabels`."""

    key: ClassVar[str] = "image"

    def __init__(self, data: ImageDataModule, split: Split, balanced: bool = False):
        """Raises ConfigError if classes are to be balanced, and there are none."""
        self.data, self.split, self.balanced = data, split, balanced
        if balanced and "label" not in data.spec.condition:
            raise ConfigError("evaluation.balanced_classes=true: the data have no labels. Leave it out.")

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
        return content_hash(self.data.table(self.split).images)

    @cached_property
    def _asked(self) -> AskedLabels | None:
        label = self.data.spec.condition.get("label")
        if label is None:
            return None
        labels = self.data.table(self.split).labels
        strange = 0 if labels is None else int(np.isin(labels, label.empty).sum())
        if strange and rank() == 0:
            _log.warning(
                f"{strange:,} of the {len(self.data.table(self.split)):,} images of the reference are of classes that "
                "no training image has: no sample is asked for these, and distances hold it against the samples."
            )
        return AskedLabels.like(labels, label.size, label.empty, self.balanced)

    def labels(self, indices: Sequence[int]) -> Tensor | None:
        return None if self._asked is None else self._asked.of(indices)

    def label_facts(self) -> dict[str, str]:
        labels = self.data.table(self.split).labels
        return {} if labels is None else {"reference_labels": content_hash(labels)}

    def facts(self) -> dict[str, Any]:
        """With ``class_mix`` unless each class is asked for in turn, as all were once."""
        asked = self._asked
        return {
            **({} if asked is None or asked.in_turn else {CLASS_MIX: asked.described()}),
            "shape": list(self.data.spec.shape),
            "quantisation": "clamp [-1,1], round to uint8",
            "reference": self.split,
            "reference_sha256": self.reference_hash(),
            "num_reference": len(self.data.table(self.split)),
        }

    def asked(self, model: GenerativeModel, indices: Sequence[int]) -> Tensor | None:
        labels = None if model.num_classes is None else self.labels(indices)
        if labels is not None and int(labels.max()) >= (model.num_classes or 0):
            raise ConfigError(
                f"the reference has the class {int(labels.max())}, and the model's labels end at "
                f"{(model.num_classes or 0) - 1}. Measure it on data with the classes that it was trained on."
            )
        return labels

    def draw(self, model: GenerativeModel, indices: Sequence[int], seed: int, batch_size: int) -> Examples:
        """Raises NumericsError if a sample is not finite, ConfigError if the model does not know a class."""
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

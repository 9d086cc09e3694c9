"""What is measured, and images: real ones to compare with, and ways to draw others from a model."""

import logging
from collections.abc import Iterable, Sequence
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
from genlab.model.base import Condition, GenerativeModel
from genlab.model.condition import moved
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

    def condition_facts(self, keys: Iterable[str]) -> dict[str, str]:
        """What numbers of metrics that look at these keys of conditions must share beside that."""
        ...

    def asked_facts(self, model: GenerativeModel) -> dict[str, Any]:
        """What numbers of samples of a model must share beside that: how it was asked; in place of those of the same
        names. Nothing, where samples are asked for nothing or for labels alone."""
        ...

    def labels(self, indices: Sequence[int]) -> Tensor | None:
        """The classes of samples of these numbers, (N,), each a function of its number; None: there are none."""
        ...

    def asked(self, model: GenerativeModel, indices: Sequence[int]) -> Condition | None:
        """What the samples of a model are asked for, on the CPU; None: nothing. Raises ConfigError if it does not know
        one of the labels, or the reference lacks what it is told."""
        ...

    def draw(self, model: GenerativeModel, indices: Sequence[int], seed: int, batch_size: int) -> Examples:
        """The samples of these numbers, each a function of (seed, number). On the CPU."""
        ...

    def check(self, examples: Examples) -> None:
        """Raises DataError if examples are not such as the data are."""
        ...


class ImageSubject:
    """Images of a split. A model that is told labels is asked for classes as often as the split has them, or
    ``balanced``: each as often as the next; see :class:`genlab.metrics.asked_labels.AskedLabels`. One that is told more
    is asked for sample i what row i of the split has, all of it together, row 0 again after the last."""

    key: ClassVar[str] = "image"

    def __init__(self, data: ImageDataModule, split: Split, balanced: bool = False):
        """Raises ConfigError if classes are to be balanced, and there are none."""
        self.data, self.split, self.balanced = data, split, balanced
        if balanced and data.spec.label is None:
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
        label = self.data.spec.label
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

    def condition_facts(self, keys: Iterable[str]) -> dict[str, str]:
        told = self._told
        return {f"reference_{key}s": content_hash(told[key].numpy()) for key in sorted(keys) if key in told}

    def asked_facts(self, model: GenerativeModel) -> dict[str, Any]:
        kinds = model.conditions.kinds
        if not kinds or model.conditions.is_label_alone:
            return {}
        return {CLASS_MIX: f"rows of the reference {content_hash(*(self._told[key].numpy() for key in sorted(kinds)))}"}

    @cached_property
    def _told(self) -> dict[str, Tensor]:
        table = self.data.table(self.split)
        return table.told(np.arange(len(table)))

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

    def asked(self, model: GenerativeModel, indices: Sequence[int]) -> Condition | None:
        conditions = model.conditions
        if conditions.kinds and not conditions.is_label_alone:
            if self.balanced:
                raise ConfigError(
                    f"evaluation.balanced_classes=true: the model is told {' and '.join(conditions.kinds)}, and asked "
                    "for what the reference has. Leave it out."
                )
            if lacking := [key for key in conditions.kinds if key not in self._told]:
                raise ConfigError(
                    f"the model is told a {lacking[0]}, and the reference has none. Measure it on data such as it was "
                    "trained on."
                )
            rows = torch.tensor(indices) % len(self.data.table(self.split))
            return {key: self._told[key][rows] for key in conditions.kinds}
        labels = self.labels(indices) if conditions.kinds else None
        if labels is not None and int(labels.max()) >= (model.num_classes or 0):
            raise ConfigError(
                f"the reference has the class {int(labels.max())}, and the model's labels end at "
                f"{(model.num_classes or 0) - 1}. Measure it on data with the classes that it was trained on."
            )
        return None if labels is None else conditions.of_labels(labels)

    def draw(self, model: GenerativeModel, indices: Sequence[int], seed: int, batch_size: int) -> Examples:
        """Raises NumericsError if a sample is not finite, ConfigError if the model does not know a class."""
        asked = self.asked(model, indices)
        images = []
        with progress(f"drawing {len(indices):,} samples", len(indices), quiet=rank() != 0) as advance:
            for start in range(0, len(indices), batch_size):
                batch = slice(start, start + batch_size)
                stream = RandomStream.for_samples(seed, indices[batch], model.device)
                told = None if asked is None else {key: values[batch] for key, values in asked.items()}
                condition = moved(told, model.device)
                images.append(to_uint8(model.sample(len(stream), condition, stream)).cpu())
                advance(len(stream))
        return Examples(torch.cat(images), model.conditions.label_of(asked))

    def check(self, examples: Examples) -> None:
        assert isinstance(examples.content, Tensor)
        shape = tuple(examples.content.shape[1:])
        if shape != tuple(self.data.spec.shape):
            raise DataError(f"samples have shape {shape}, the data {tuple(self.data.spec.shape)}.")

"""Image generation, with the classes or captions of the reference."""

import copy
import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from genlab.data.base import DataModule, DataSpec, Split
from genlab.data.image import ImageDataModule, content_hash
from genlab.data.tokenizer.base import CaptionTokenizer
from genlab.errors import ConfigError, DataError
from genlab.machine.rank import rank
from genlab.model.base import Condition, GenerativeModel
from genlab.model.condition_kind import Drawn
from genlab.progress import progress
from genlab.sampling.draw import draws
from genlab.sampling.examples import Examples
from genlab.sampling.hints import conditions_at
from genlab.sampling.pictures import Pictures
from genlab.task.asked_labels import AskedLabels
from genlab.task.base import CLASS_MIX
from genlab.task.baselines import baselines

_log = logging.getLogger(__name__)


class Generate:
    """Images like those of a split. Samples of a model with labels have the class frequencies of the split,
    or all classes equally often; see :class:`genlab.task.asked_labels.AskedLabels`. With other
    conditions, sample i has all conditions of row i of the split, starting again with row 0 after the last."""

    key: ClassVar[str] = "image"
    suited: ClassVar[str] = "metrics=[fid]"
    of_samples: ClassVar[str] = "metrics=[fid]"
    data: ImageDataModule
    split: Split

    def __init__(self, balanced_classes: bool = False):
        """``balanced_classes``: all classes equally often, whatever the reference has."""
        self.balanced_classes = balanced_classes

    def form(self, spec: Mapping[str, Any], tokenizer: CaptionTokenizer | None) -> Pictures:
        return Pictures(spec.get("bits", 8))

    def check(self, spec: DataSpec) -> None:
        """Raises ConfigError: the data are not images, or classes are to be balanced and there are none."""
        if spec.modality != "image":
            raise ConfigError(f"task=generate is for images; the data are {spec.modality}. Leave task= out.")
        if self.balanced_classes and spec.label is None:
            raise ConfigError("task.balanced_classes=true: the data have no labels. Leave it out.")

    def on(self, data: DataModule, split: Split) -> Self:
        self.check(data.spec)
        bound = copy.copy(self)
        bound.data, bound.split = data, split  # type: ignore[assignment]
        return bound

    def gives(self, model: GenerativeModel) -> frozenset[str]:
        return frozenset({self.key, *model.conditions.kinds})

    def sized(self, count: int, of: GenerativeModel | Examples) -> Self:
        """As it is: samples of any number are compared with the whole split."""
        return self

    def reference(self) -> Examples:
        table = self.data.table(self.split)
        labels = None if table.labels is None else torch.from_numpy(table.labels)
        captions = self._captions(self._told) if "caption" in self._told else None
        numbers = None if table.attributes is None else torch.from_numpy(table.attributes)
        return Examples.of(image=torch.from_numpy(table.images), label=labels, caption=captions, attributes=numbers)

    def reference_hash(self) -> str:
        return self._reference_hash

    @cached_property
    def _reference_hash(self) -> str:
        return content_hash(self.data.table(self.split).images)

    @cached_property
    def _mix(self) -> AskedLabels | None:
        label = self.data.spec.label
        if label is None:
            return None
        labels = self.data.table(self.split).labels
        strange = 0 if labels is None else int(np.isin(labels, label.empty).sum())
        if strange and rank() == 0:
            _log.warning(
                f"{strange:,} of the {len(self.data.table(self.split)):,} images of the reference are of classes that "
                "no training image has: they are not sampled, which increases distances."
            )
        return AskedLabels.like(labels, label.size, label.empty, self.balanced_classes)

    @cached_property
    def _told(self) -> dict[str, Tensor]:
        table = self.data.table(self.split)
        return table.told(np.arange(len(table)))

    def _captions(self, condition: Mapping[str, Tensor]) -> list[str]:
        return self.data.caption_texts(condition["caption"].numpy())

    def facts(self) -> dict[str, Any]:
        """With ``class_mix`` unless classes come in turn, as in earlier versions."""
        mix = self._mix
        return {
            **({} if mix is None or mix.in_turn else {CLASS_MIX: mix.described()}),
            "shape": list(self.data.spec.shape),
            "quantisation": "clamp [-1,1], round to uint8",
            "reference": self.split,
            "reference_sha256": self.reference_hash(),
            "num_reference": len(self.data.table(self.split)),
        }

    def condition_facts(self, keys: Iterable[str]) -> dict[str, str]:
        told = self._told
        return {f"reference_{key}s": content_hash(told[key].numpy()) for key in sorted(keys) if key in told}

    def asked_facts(self, model: GenerativeModel) -> dict[str, Any]:
        kinds = model.conditions.kinds
        if not kinds or model.conditions.is_label_alone:
            return {}
        asked = {key: self._told[key].numpy() for key in sorted(kinds) if not isinstance(kinds[key], Drawn)}
        drawn = [repr(kind) for kind in kinds.values() if isinstance(kind, Drawn)]  # of the reference's images
        return {CLASS_MIX: " ".join([f"rows of the reference {content_hash(*asked.values())}", *drawn])}

    def labels(self, indices: Sequence[int]) -> Tensor | None:
        """The classes of samples of these numbers, (N,); None: there are none."""
        return None if self._mix is None else self._mix.of(indices)

    def asked(self, model: GenerativeModel, indices: Sequence[int]) -> Condition | None:
        conditions = model.conditions
        if conditions.kinds and not conditions.is_label_alone:
            if self.balanced_classes:
                raise ConfigError(
                    f"task.balanced_classes=true: the model is told {' and '.join(conditions.kinds)}, and asked "
                    "for what the reference has. Leave it out."
                )
            return self._rows(model, indices)
        labels = self.labels(indices) if conditions.kinds else None
        if labels is not None and int(labels.max()) >= (model.num_classes or 0):
            raise ConfigError(
                f"the reference has the class {int(labels.max())}, and the model's labels end at "
                f"{(model.num_classes or 0) - 1}. Measure it on data with the classes that it was trained on."
            )
        return None if labels is None else conditions.of_labels(labels)

    def _rows(self, model: GenerativeModel, indices: Sequence[int]) -> Condition:
        """The model's conditions in the rows of these numbers."""
        kinds = model.conditions.kinds
        if lacking := [key for key, kind in kinds.items() if key not in self._told and not isinstance(kind, Drawn)]:
            raise ConfigError(
                f"the model is conditioned on a {lacking[0]}, and the reference has none. Measure it on data like "
                "those it was trained on."
            )
        rows = np.array(indices) % len(self.data.table(self.split))
        found = model.conditions.of(conditions_at(self.data.table(self.split), rows))
        assert found is not None
        return found

    def draw(self, model: GenerativeModel, indices: Sequence[int], seed: int, batch_size: int) -> Examples:
        """Raises NumericsError if a sample is not finite, ConfigError if the model does not know a class."""
        asked, form = self.asked(model, indices), Pictures()
        images = []
        with progress(f"drawing {len(indices):,} samples", len(indices), quiet=rank() != 0) as advance:
            for samples in draws(model, indices, asked, seed, batch_size):
                images.append(form.content(samples))
                advance(len(samples))
        captions = self._written(model, asked) if asked is not None and "caption" in asked else None
        numbers = None if asked is None else asked.get("attributes")
        label = model.conditions.label_of(asked)
        return Examples.of(image=torch.cat(images), label=label, caption=captions, attributes=numbers)

    def _written(self, model: GenerativeModel, asked: Condition) -> list[str]:
        """The captions of samples; those of a model with words of its own in these."""
        kind = model.conditions.kinds["caption"]
        return kind.words(asked["caption"]) if isinstance(kind, Drawn) else self._captions(asked)

    def check_examples(self, examples: Examples) -> None:
        shape = tuple(examples[self.key].shape[1:])
        if shape != tuple(self.data.spec.shape):
            raise DataError(f"samples have shape {shape}, the data {tuple(self.data.spec.shape)}.")

    def baselines(self, count: int, seed: int) -> dict[str, Examples]:
        return baselines(self.data, count, seed, self.labels(range(count)))

"""Captioning: sample i describes a picture of the reference."""

import copy
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from genlab.data.base import DataModule, DataSpec, Split
from genlab.data.image import ImageDataModule, content_hash, to_float
from genlab.data.tokenizer.base import Tokenizer
from genlab.errors import ConfigError, DataError
from genlab.machine.rank import rank
from genlab.model.base import Condition, GenerativeModel
from genlab.model.condition_picture import KEY
from genlab.progress import progress
from genlab.sampling.captions import Captions
from genlab.sampling.draw import draws
from genlab.sampling.examples import Examples
from genlab.task.caption_baselines import nearest_captions, of_other_pictures

_CAPTION = "caption"


@runtime_checkable
class HasReferences(Protocol):
    """Data whose pictures have several captions each."""

    def references(self, split: Split) -> Sequence[Sequence[str]]:
        """All captions of each picture of a split, one at least."""
        ...


class CaptionImages:
    """Captions of the pictures of a split. Sample i describes picture i of ``count``, which are spread evenly over the
    split; with more samples than pictures, the first come again after the last. It is compared with all captions of
    that picture.

    Examples have ``text``, the caption, which of the reference is the first of its picture's; and ``references``, all
    of them. For metrics that judge a caption by its picture, samples have ``image`` and, as ``caption``, their text
    again.
    """

    key: ClassVar[str] = "text"
    written: ClassVar[frozenset[str]] = frozenset({"text", _CAPTION})
    beside: ClassVar[frozenset[str]] = frozenset({"image", "references"})
    suited: ClassVar[str] = "metrics=[cider]"
    of_samples: ClassVar[str] = "metrics=[cider]"
    data: ImageDataModule
    split: Split

    def __init__(self) -> None:
        self.count = 0

    def form(self, spec: Mapping[str, Any], tokenizer: Tokenizer | None) -> Captions:
        return Captions(tuple(spec["shape"]), spec.get("bits", 8))

    def check(self, spec: DataSpec) -> None:
        """Raises ConfigError: the data have no captions."""
        if spec.modality != "image" or _CAPTION not in spec.condition:
            raise ConfigError(
                f"task=caption needs images with captions; the data are {spec.modality} without. Leave task= out."
            )

    def on(self, data: DataModule, split: Split) -> Self:
        self.check(data.spec)
        bound = copy.copy(self)
        bound.data, bound.split = data, split  # type: ignore[assignment]
        return bound

    def gives(self, model: GenerativeModel) -> frozenset[str]:
        return self.written | self.beside

    def sized(self, count: int, of: GenerativeModel | Examples) -> Self:
        sized = copy.copy(self)
        sized.count = count
        return sized

    @cached_property
    def _texts(self) -> list[tuple[str, ...]]:
        """The captions of all pictures of the split."""
        return captions_of(self.data, self.split)

    def rows(self, indices: Sequence[int]) -> np.ndarray:
        """The pictures that samples of these numbers describe, (N,)."""
        there = len(self.data.table(self.split))
        numbers = np.array(indices, dtype=np.int64) % there
        if self.count >= there or self.count == 0:
            return numbers
        return np.linspace(0, there - 1, self.count).round().astype(np.int64)[numbers]

    def reference(self) -> Examples:
        texts = [self._texts[row] for row in self.rows(range(self.count or len(self._texts)))]
        return Examples({"text": [own[0] for own in texts], "references": texts})  # type: ignore[dict-item]

    @cached_property
    def _text_hash(self) -> str:
        return hashlib.sha256(repr(self._texts).encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @cached_property
    def _image_hash(self) -> str:
        return content_hash(self.data.table(self.split).images)

    def reference_hash(self) -> str:
        """A hash of the captions, and of how many pictures are described."""
        return f"{self._text_hash}-{self.count}"

    def facts(self) -> dict[str, Any]:
        return {
            "shape": list(self.data.spec.shape),
            "reference": self.split,
            "reference_sha256": self._text_hash,
            "pictures_sha256": self._image_hash,
            "num_reference": len(self._texts),
        }

    def condition_facts(self, keys: Iterable[str]) -> dict[str, str]:
        return {}

    def asked_facts(self, model: GenerativeModel) -> dict[str, Any]:
        return {}

    def asked(self, model: GenerativeModel, indices: Sequence[int]) -> Condition | None:
        """The pictures that samples of these numbers describe. Raises ConfigError: the model takes none, or others."""
        if KEY not in model.conditions.kinds:
            raise ConfigError(
                f"task=caption: a {type(model).__name__} does not describe pictures. Use model=captioner, or leave "
                "task= out."
            )
        pictures = {KEY: to_float(self.pictures(indices))}
        try:
            model.conditions.check(pictures)
        except ValueError as error:
            raise ConfigError(f"task=caption: {error}") from error
        return pictures

    def pictures(self, indices: Sequence[int]) -> Tensor:
        """(N, C, H, W), as the data hold them."""
        return torch.from_numpy(self.data.table(self.split).images[self.rows(indices)])

    def draw(self, model: GenerativeModel, indices: Sequence[int], seed: int, batch_size: int) -> Examples:
        form = self.form(self.data.spec.to_config(), None)
        texts: list[str] = []
        with progress(f"drawing {len(indices):,} samples", len(indices), quiet=rank() != 0) as advance:
            for start in range(0, len(indices), batch_size):
                some = indices[start : start + batch_size]
                for words in draws(model, some, self.asked(model, some), seed, batch_size):
                    texts += form.text_of(model, words)
                advance(len(some))
        return self._described(indices, texts)

    def _described(self, indices: Sequence[int], texts: Sequence[str]) -> Examples:
        return Examples({"text": texts, _CAPTION: texts, "image": self.pictures(indices)})

    def check_examples(self, examples: Examples) -> None:
        """Nothing to check: captions of any words and lengths are compared."""

    def baselines(self, count: int, seed: int) -> dict[str, Examples]:
        """As many captions of each kind as samples.

        * ``nearest_training_picture``: the caption of the training picture with the least squared distance of pixels.
          What a model must beat.
        * ``other_pictures``: the caption of another picture of the reference. The score of chance.
        """
        indices = range(count)
        rows = self.rows(indices)
        found = {
            "nearest_training_picture": nearest_captions(
                self.data.table("train").images, captions_of(self.data, "train"), self.pictures(indices).numpy()
            ),
            "other_pictures": of_other_pictures([self._texts[row] for row in rows], seed),
        }
        return {name: self._described(indices, texts) for name, texts in found.items()}


def captions_of(data: ImageDataModule, split: Split) -> list[tuple[str, ...]]:
    """All captions of each picture of a split, in words. Raises DataError if a picture has none."""
    if isinstance(data, HasReferences):
        texts = [tuple(own) for own in data.references(split)]
    else:
        captions, names = data.table(split).captions, data.spec.condition[_CAPTION].names
        assert captions is not None, "the data have captions"
        texts = [(" ".join(names[word] for word in row if word),) for row in captions.tolist()]
    if lacking := sum(not any(own) for own in texts):
        raise DataError(
            f"{lacking:,} of the {len(texts):,} pictures of the {split} split have no caption to compare with. Leave "
            "these pictures out."
        )
    return [tuple(filter(None, own)) for own in texts]

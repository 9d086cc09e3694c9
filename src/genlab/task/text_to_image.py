"""Text-to-image generation: sample i has the caption of example i of the reference."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from genlab.data.base import DataSpec, Split
from genlab.errors import ConfigError
from genlab.model.base import Condition, GenerativeModel
from genlab.sampling.examples import Examples
from genlab.seeding import derive_seed
from genlab.task.generate import Generate

_CAPTION = "caption"


class TextToImage(Generate):
    """Images of a split's captions, in order, the first again after the last. A model with labels too gets
    the label of the same example. ``shuffled`` compares each sample with the caption of the next example, as a control:
    the score of a model that ignores captions."""

    def __init__(self, shuffled: bool = False):
        super().__init__()
        self.shuffled = shuffled

    def check(self, spec: DataSpec) -> None:
        """Raises ConfigError: the data have no captions."""
        if spec.modality != "image" or _CAPTION not in spec.condition:
            raise ConfigError(
                f"task=text_to_image needs images with captions; the data are {spec.modality} without. Leave task= out."
            )

    def gives(self, model: GenerativeModel) -> frozenset[str]:
        return super().gives(model) | {_CAPTION}

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), **({"captions": "of the next example"} if self.shuffled else {})}

    def asked(self, model: GenerativeModel, indices: Sequence[int]) -> Condition | None:
        """Raises ConfigError if the model takes no captions."""
        if _CAPTION not in model.conditions.kinds:
            raise ConfigError(
                "task=text_to_image: the model takes no captions. Train it with model.conditions=[caption]."
            )
        return self._rows(model, indices)

    def draw(self, model: GenerativeModel, indices: Sequence[int], seed: int, batch_size: int) -> Examples:
        drawn = super().draw(model, indices, seed, batch_size)
        if not self.shuffled:
            return drawn
        others = self._captions(self._rows(model, [i + 1 for i in indices]))
        return Examples({**drawn.columns, _CAPTION: others})

    def baselines(self, count: int, seed: int) -> dict[str, Examples]:
        """Examples with captions, by name: ``floor``, distinct training pictures with theirs, left out where there are
        fewer than ``count``; ``real``, the pictures of the reference that samples are asked for; ``shuffled``, the same
        pictures with the caption of the next; ``uniform_noise`` for the captions of ``real``."""
        found: dict[str, Examples] = {}
        if count <= len(self.data.table("train")):
            chosen = np.random.default_rng(derive_seed(seed, 3)).permutation(len(self.data.table("train")))[:count]
            found["floor"] = self._real("train", chosen, chosen)
        rows, length = np.arange(count), len(self.data.table(self.split))
        found["real"] = self._real(self.split, rows % length, rows % length)
        found["shuffled"] = self._real(self.split, rows % length, (rows + 1) % length)
        noise = np.random.default_rng(derive_seed(seed, 0)).integers(0, 256, found["real"]["image"].shape, np.uint8)
        found["uniform_noise"] = Examples({**found["real"].columns, "image": torch.from_numpy(noise)})
        return found

    def _real(self, split: Split, pictures: np.ndarray, captions: np.ndarray) -> Examples:
        """Rows of a split, (N,) each: its pictures and their labels, with the captions of others perhaps."""
        table = self.data.table(split)
        told = table.told(pictures) | {_CAPTION: table.told(captions)[_CAPTION]}
        columns = {key: self._captions(told) if key == _CAPTION else rows for key, rows in told.items()}
        return Examples({"image": torch.from_numpy(table.images[pictures]), **columns})

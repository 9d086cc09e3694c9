"""CLIPScore of samples and their prompts (Hessel et al. 2021, arXiv:2104.08718)."""

import hashlib
import json
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from genlab.data.image import ImageDataModule
from genlab.errors import DataError
from genlab.metrics.base import Direction, MetricBatch
from genlab.metrics.classes import labels_of
from genlab.metrics.clip import CLIP


class CLIPScore(Metric):
    """Mean of 100 max(cos, 0) between the CLIP embeddings of a sample and of its prompt (eq. 1, with 100 for 2.5).

    No model here takes captions yet: a prompt is the class's name in a template. Higher is better, up to about 30 with
    the usual models: never 100. Numbers of different CLIPs, templates or names are not comparable. CLIP was trained on
    larger photographs: it says little about small or abstract images, and classes whose names are numbers.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"image", "label"})
    directions: ClassVar[Mapping[str, Direction | None]] = {"clip_score": "higher"}
    is_differentiable = False
    full_state_update = False

    total: Tensor
    count: Tensor

    def __init__(
        self,
        model: str = "openai/clip-vit-large-patch14",  # a folder, or a name on the Hugging Face Hub
        template: str = "a photo of a {}",  # {}: the name of the class
    ):
        """Raises ValueError for a template without a place, and as :class:`genlab.metrics.clip.CLIP` does."""
        super().__init__()
        if template.count("{}") != 1:
            raise ValueError(f"template must have one {{}} where the name goes, got {template!r}.")
        self.clip, self.template = CLIP(model), template
        self._prompts, self._names = torch.empty(0), ""  # (classes, D), and a hash of the names
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def prepare(self, data: ImageDataModule) -> None:
        """Embeds the prompts. Raises DataError if the data have no names of classes."""
        label = data.spec.condition.get("label")
        if label is None or not label.names:
            raise DataError("clip_score needs names of classes and the data have none. Leave it out of metrics=[...].")
        self._names = hashlib.sha256(json.dumps(label.names).encode()).hexdigest()[:16]
        self._prompts = self.clip.texts([self.template.format(name) for name in label.names], self.device)

    def update(self, batch: MetricBatch, real: bool) -> None:
        """Takes ``image`` (N, C, H, W) uint8 and ``label`` (N,), of which -1 is left out; the reference is
        not used. Raises DataError if there are no labels."""
        if real:
            return
        kept = labels_of(batch, "clip_score") >= 0
        cosines = (self.clip.images(batch["image"]) * self.prompts_of(batch)).sum(dim=1)
        self.total += 100 * cosines[kept].clamp(min=0).double().sum()
        self.count += kept.sum()

    def prompts_of(self, batch: MetricBatch) -> Tensor:
        """The embedded prompts of a batch, (N, D). Captions can be added here."""
        return self._prompts.to(batch["label"].device)[batch["label"]]

    def compute(self) -> dict[str, Tensor]:
        """``clip_score`` in [0, 100]. Raises DataError if no sample has a label."""
        if self.count == 0:
            raise DataError("clip_score needs samples with labels, and there are none.")
        return {"clip_score": self.total / self.count}

    def settings(self) -> dict[str, int | float | str]:
        return {"clip_fingerprint": self.clip.fingerprint, "template": self.template, "names_sha256": self._names}

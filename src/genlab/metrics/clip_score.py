"""CLIPScore of samples and their captions (Hessel et al. 2021, arXiv:2104.08718)."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Protocol

import torch
from torch import Tensor
from torchmetrics import Metric

from genlab.data.base import DataSpec
from genlab.data.image import ImageDataModule
from genlab.errors import DataError
from genlab.metrics.base import Direction, MetricBatch
from genlab.metrics.classes import labels_of
from genlab.metrics.clip import CLIP
from genlab.metrics.trained_clip import TrainedCLIP
from genlab.model.base import ComparesCaptions
from genlab.model.elsewhere import FROM_ELSEWHERE

_OPTION = "metrics.clip_score.model"


class EmbedsBoth(Protocol):
    """Images and texts as unit vectors (N, D) of one space."""

    @property
    def fingerprint(self) -> str: ...

    def check(self, spec: DataSpec, captions: bool) -> None: ...

    def images(self, images: Tensor) -> Tensor: ...

    def texts(self, texts: Sequence[str], device: torch.device) -> Tensor: ...


class CLIPScore(Metric):
    """Mean of 100 max(cos, 0) between the CLIP embeddings of a sample and of its caption (eq. 1, with 100 for 2.5).

    A caption is what the sample was asked for or, of samples of a class, the class's name in a template. Higher is
    better, up to about 30 with the usual models: never 100. Numbers of different CLIPs, templates or names are not
    comparable. A published CLIP was trained on larger photographs: it says little about small or abstract images, and
    classes whose names are numbers. One trained on the data at hand (``model=contrastive_text``) is on a scale of its
    own: compare it with real pictures, and with captions of others (``task.shuffled=true``).
    """

    reads: ClassVar[frozenset[str]] = frozenset({"image"})
    any_of: ClassVar[frozenset[str]] = frozenset({"caption", "label"})  # the first, where a sample has both
    directions: ClassVar[Mapping[str, Direction | None]] = {"clip_score": "higher"}
    is_differentiable = False
    full_state_update = False

    total: Tensor
    count: Tensor

    def __init__(
        self,
        model: Annotated[
            ComparesCaptions | str, FROM_ELSEWHERE
        ] = "openai/clip-vit-large-patch14",  # a folder or a name on the Hugging Face Hub, or a run of contrastive_text
        template: str = "a photo of a {}",  # {}: the name of the class; not used for captions
    ):
        """Raises ValueError for a template without a place, and as :class:`genlab.metrics.clip.CLIP` does."""
        super().__init__()
        if template.count("{}") != 1:
            raise ValueError(f"template must have one {{}} where the name goes, got {template!r}.")
        self.clip: EmbedsBoth = CLIP(model, _OPTION) if isinstance(model, str) else TrainedCLIP(model, _OPTION)
        self.template = template
        self._reads_captions = False  # as of the latest samples
        self._class_names: Sequence[str] = ()
        self._of_classes: Tensor | None = None  # (classes, D), once they are needed
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    @property
    def optional(self) -> frozenset[str]:
        """Which of ``any_of`` its number depends on."""
        return frozenset({"caption"} if self._reads_captions else {"label"})

    def check_samples(self, spec: DataSpec, columns: frozenset[str]) -> None:
        """See ChecksSamples. Raises ConfigError: the model cannot judge these images, or these captions."""
        self.clip.check(spec, captions="caption" in columns)

    def prepare(self, data: ImageDataModule) -> None:
        """Raises DataError if the data have neither captions nor names of classes."""
        condition = data.spec.condition
        label = condition.get("label")
        self._class_names = () if label is None else tuple(label.names)
        self._of_classes = None
        if not self._class_names and "caption" not in condition:
            raise DataError(
                "clip_score needs captions or names of classes and the data have none. Leave it out of metrics=[...]."
            )

    def update(self, batch: MetricBatch, real: bool) -> None:
        """Takes ``image`` (N, C, H, W) uint8 and ``caption``, N strings, of which "" is left out, or if there are none
        ``label`` (N,), of which -1 is left out; the reference is not used. Raises DataError if there is neither."""
        if real:
            return
        self._reads_captions = "caption" in batch
        images = self.clip.images(batch["image"])
        texts, kept = self._captions(batch) if self._reads_captions else self._names(batch)
        cosines = (images * texts).sum(dim=1)
        self.total += 100 * cosines[kept].clamp(min=0).double().sum()
        self.count += kept.sum()

    def _captions(self, batch: MetricBatch) -> tuple[Tensor, Tensor]:
        """The embedded captions of a batch, (N, D), each computed once, and which there are, (N,) bool."""
        captions, device = list(batch["caption"]), batch["image"].device
        different = list(dict.fromkeys(captions))
        vectors = self.clip.texts(different, device)
        rows = torch.tensor([different.index(caption) for caption in captions], device=device)
        return vectors[rows], torch.tensor([bool(caption.strip()) for caption in captions], device=device)

    def _names(self, batch: MetricBatch) -> tuple[Tensor, Tensor]:
        """The same of the names of classes."""
        label = labels_of(batch, "clip_score")
        if self._of_classes is None:
            if not self._class_names:
                raise DataError(
                    "clip_score needs names of classes and the data have none. Leave it out of metrics=[...]."
                )
            texts = [self.template.format(name) for name in self._class_names]
            self._of_classes = self.clip.texts(texts, label.device)
        return self._of_classes.to(label.device)[label], label >= 0

    def compute(self) -> dict[str, Tensor]:
        """``clip_score`` in [0, 100]. Raises DataError if no sample has a caption or a label."""
        if self.count == 0:
            raise DataError("clip_score needs samples with captions or labels, and there are none.")
        return {"clip_score": self.total / self.count}

    def settings(self) -> dict[str, int | float | str]:
        if self._reads_captions:
            return {"clip_fingerprint": self.clip.fingerprint, "texts": "captions"}
        names = hashlib.sha256(json.dumps(self._class_names).encode()).hexdigest()[:16] if self._class_names else ""
        return {"clip_fingerprint": self.clip.fingerprint, "template": self.template, "names_sha256": names}

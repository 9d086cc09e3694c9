"""Retrieval of captions by samples: is the caption that a sample was drawn for the nearest of all?"""

import hashlib
from collections.abc import Mapping
from typing import Annotated, ClassVar

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from genlab.data.base import DataSpec
from genlab.errors import DataError
from genlab.metrics.base import Direction, MetricBatch
from genlab.metrics.clip import CLIP
from genlab.metrics.clip_score import EmbedsBoth
from genlab.metrics.ordered import in_order
from genlab.metrics.retrieval import AT, recalls
from genlab.metrics.trained_clip import TrainedCLIP
from genlab.model.base import ComparesCaptions
from genlab.model.elsewhere import FROM_ELSEWHERE

_OPTION = "metrics.caption_retrieval.model"


class CaptionRetrieval(Metric):
    """Recall at k: the share of samples whose own caption is among the k nearest, by the cosine of a CLIP, of the
    different captions of all samples. At k = 1 it is the R-precision of text-to-image models (Xu et al. 2018,
    arXiv:1711.10485, section 4.1), who rank among 100 captions. Beside it that of a random order.

    More samples have more captions, which are harder to tell apart: compare numbers of equally many.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"image", "caption"})
    directions: ClassVar[Mapping[str, Direction | None]] = {
        **{f"caption_r{k}": "higher" for k in AT},
        **{f"caption_chance_r{k}": None for k in AT},
    }
    is_differentiable = False
    full_state_update = False

    images: list[Tensor]
    texts: list[Tensor]
    captions: list[Tensor]
    index: list[Tensor]

    def __init__(
        self,
        model: Annotated[ComparesCaptions | str, FROM_ELSEWHERE] = "openai/clip-vit-large-patch14",  # as of clip_score
    ):
        """Raises as :class:`genlab.metrics.clip.CLIP` does."""
        super().__init__()
        self.clip: EmbedsBoth = CLIP(model, _OPTION) if isinstance(model, str) else TrainedCLIP(model, _OPTION)
        for name in ("images", "texts", "captions", "index"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def check_samples(self, spec: DataSpec, columns: frozenset[str]) -> None:
        """See ChecksSamples. Raises ConfigError: the model cannot judge these images, or these captions."""
        self.clip.check(spec, captions=True)

    def update(self, batch: MetricBatch, real: bool) -> None:
        """Takes ``image`` (N, C, H, W) uint8, ``caption``, N strings, of which "" is left out, and ``index`` (N,); the
        reference is not used."""
        if real:
            return
        captions, device = list(batch["caption"]), batch["image"].device
        kept = torch.tensor([bool(caption.strip()) for caption in captions], device=device)
        self.images.append(self.clip.images(batch["image"])[kept])
        self.texts.append(self.clip.texts(captions, device)[kept])
        self.captions.append(torch.tensor([_number(caption) for caption in captions], device=device)[kept])
        self.index.append(batch["index"].to(device)[kept])

    def compute(self) -> dict[str, Tensor]:
        """Shares in [0, 1]. Raises DataError if no sample has a caption."""
        images, texts, captions = (in_order(rows, self.index) for rows in (self.images, self.texts, self.captions))
        if not len(images):
            raise DataError("caption_retrieval needs samples with captions, and there are none.")
        _, own = np.unique(captions.cpu().numpy(), return_inverse=True)
        found = recalls(images, texts, torch.from_numpy(own.reshape(-1)).to(images.device))
        return {name: found[name.replace("caption_", "image_to_text_")].mean() for name in self.directions}

    def settings(self) -> dict[str, int | float | str]:
        return {"clip_fingerprint": self.clip.fingerprint}


def _number(caption: str) -> int:
    """63 bits of a hash: the same for equal captions, on all ranks."""
    return int.from_bytes(hashlib.blake2b(caption.encode(), digest_size=8).digest(), "big") >> 1

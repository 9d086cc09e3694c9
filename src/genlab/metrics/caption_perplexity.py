"""Perplexity of the captions of held-out pictures."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from genlab.data.base import DataModule, Split
from genlab.data.image import content_hash, to_float
from genlab.errors import ConfigError
from genlab.machine.rank import rank, world
from genlab.metrics.base import Direction
from genlab.metrics.data_of import images_of
from genlab.model.base import HasCaptionLikelihood, Model

_CAPTION = "caption"


class CaptionPerplexity(Metric):
    """``caption_perplexity``, exp(nats / tokens) of the captions of a whole split given their pictures, and
    ``caption_nats``, the mean nats of a caption. Tokens are words and the ends of captions; of pictures with several
    captions the first counts, and empty ones do not. Perplexity depends on the vocabulary, nats hardly."""

    directions: ClassVar[Mapping[str, Direction | None]] = {"caption_perplexity": "lower", "caption_nats": "lower"}
    full_state_update = False

    nats: Tensor
    tokens: Tensor
    captions: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._measured = ""
        for name in ("nats", "tokens", "captions"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, log_probs: Tensor, captions: Tensor) -> None:
        """Take in nats (N, L) of the tokens of captions (N, L), padded with 0, none of them empty."""
        device = self.nats.device
        self.nats -= log_probs.to(device).double().sum()
        self.tokens += float((captions != 0).sum() + (captions[:, -1] == 0).sum())
        self.captions += len(captions)

    def compute(self) -> dict[str, Tensor]:
        return {"caption_perplexity": (self.nats / self.tokens).exp(), "caption_nats": self.nats / self.captions}

    def settings(self) -> dict[str, int | float | str]:
        """With a hash of the pictures and captions of the latest ``measure``."""
        return {"sha256": self._measured}

    @torch.no_grad()
    def measure(self, model: Model, data: DataModule, split: Split, batch_size: int, seed: int = 0) -> None:
        """Take in this rank's share of a split. The model is in eval mode. Raises ConfigError as :meth:`check` does."""
        self.check(model, data)
        assert isinstance(model, HasCaptionLikelihood)
        table = images_of(data, "caption_perplexity").table(split)
        assert table.captions is not None
        written = np.flatnonzero(table.captions[:, 0])
        self._measured = content_hash(table.images, table.captions)
        mine = written[rank() :: world()]
        for start in range(0, len(mine), batch_size):
            some = mine[start : start + batch_size]
            captions = torch.from_numpy(table.captions[some]).to(model.device)
            images = to_float(torch.from_numpy(table.images[some]).to(model.device))
            self.update(model.caption_log_probs(captions, {"image": images}), captions)

    def check(self, model: Model, data: DataModule) -> None:
        """Raises ConfigError: the data have no captions, or the model does not write any."""
        if not isinstance(model, HasCaptionLikelihood):
            raise ConfigError(
                f"metrics=caption_perplexity: a {type(model).__name__} does not write captions. Leave it out of "
                "metrics=[...]."
            )
        if images_of(data, "caption_perplexity").spec.condition.get(_CAPTION) is None:
            raise ConfigError("metrics=caption_perplexity: the data have no captions. Leave it out of metrics=[...].")

    def subject(self, model: Model, split: Split) -> str:
        return f"exact_{split}"

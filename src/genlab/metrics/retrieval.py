"""Retrieval of captions for pictures and of pictures for captions: recall at k, on held-out examples."""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from genlab.data.base import DataModule, KnowsHeldOut, Split
from genlab.data.image import ImageTable, content_hash, to_float
from genlab.errors import ConfigError
from genlab.machine.rank import rank, world
from genlab.metrics.base import Direction
from genlab.metrics.data_of import images_of
from genlab.metrics.extractor.precision import full_precision
from genlab.metrics.ordered import in_order
from genlab.metrics.recall import recall_at
from genlab.model.base import ComparesCaptions, Model

AT = (1, 5, 10)
_WAYS = ("image_to_text", "text_to_image")
_ROWS = 512  # of a matrix of cosines at a time


class Retrieval(Metric):
    """Recall at k: the share of held-out examples whose own caption, or picture, is among the k nearest by cosine.

    * ``image_to_text``: for each picture, among the different captions.
    * ``text_to_image``: for each caption, among all pictures; each that has an equal caption is right.
    * ``.._chance``: the same of a random order. What is equally near comes in random order: the expected value counts.
    * ``.._r1_seen``, ``.._r1_held_out``: recall at 1 of examples without and with a combination that no training
      example has, among the same candidates, of data that know it.

    Always on the held-out split. Examples without a caption are left out.
    """

    directions: ClassVar[Mapping[str, Direction | None]] = {
        **{f"{way}_r{k}": "higher" for way in _WAYS for k in AT},
        **{f"{way}_chance_r{k}": None for way in _WAYS for k in AT},
        **{f"{way}_r1_{part}": "higher" for way in _WAYS for part in ("seen", "held_out")},
    }
    full_state_update = False

    images: list[Tensor]
    texts: list[Tensor]
    index: list[Tensor]

    def __init__(self, pool: int | None = None):
        """``pool``: rank among this many examples at a time, in their order, as in a batch; None: the whole split.
        Raises ValueError: fewer than two."""
        super().__init__()
        if pool is not None and pool < 2:
            raise ValueError(f"pool={pool} must be 2 or more, or null for the whole split.")
        self.pool = pool
        self._measured = ""
        self._captions = np.zeros((0, 1), dtype=np.int64)  # (N, T) of what was measured
        self._held_out: np.ndarray | None = None  # (N,) bool
        for name in ("images", "texts", "index"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, images: Tensor, texts: Tensor, index: Tensor) -> None:
        """Take in unit vectors (n, D) of pictures and of their captions, and the places (n,) of the examples."""
        self.images.append(images)
        self.texts.append(texts)
        self.index.append(index)

    def compute(self) -> dict[str, Tensor]:
        """Shares in [0, 1]."""
        images, texts = in_order(self.images, self.index), in_order(self.texts, self.index)
        _, caption = np.unique(self._captions, axis=0, return_inverse=True)
        parts = list(self._parts(images, texts, torch.from_numpy(caption.reshape(-1))))
        found = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        numbers = {name: shares.mean() for name, shares in found.items()}
        if self._held_out is not None and 0 < self._held_out.sum() < len(self._held_out):
            held_out = torch.from_numpy(self._held_out).to(images.device)
            for way in _WAYS:
                numbers[f"{way}_r1_seen"] = found[f"{way}_r1"][~held_out].mean()
                numbers[f"{way}_r1_held_out"] = found[f"{way}_r1"][held_out].mean()
        return numbers

    def _parts(self, images: Tensor, texts: Tensor, caption: Tensor) -> Iterator[dict[str, Tensor]]:
        """Of each pool, the recall of each of its examples, by name. ``caption``: (N,), equal for equal captions."""
        size = self.pool or len(images)
        for start in range(0, len(images), size):
            part = slice(start, start + size)
            yield recalls(images[part], texts[part], caption[part].to(images.device))

    def settings(self) -> dict[str, int | float | str]:
        """With a hash of the images and captions of the latest ``measure``."""
        return {"split": "val", "sha256": self._measured, **({} if self.pool is None else {"pool": self.pool})}

    @torch.no_grad()
    def measure(self, model: Model, data: DataModule, split: Split, batch_size: int, seed: int = 0) -> None:
        """Take in this rank's share of the held-out split. The model is in eval mode. Raises ConfigError as
        :meth:`check` does."""
        self.check(model, data)
        assert isinstance(model, ComparesCaptions)
        table = _table(data)
        assert table.captions is not None
        known = np.flatnonzero((table.captions != 0).any(axis=1))
        self._captions = table.captions[known]
        self._measured = content_hash(table.images[known], self._captions)
        self._held_out = data.has_held_out("val")[known] if isinstance(data, KnowsHeldOut) else None
        device = self._device
        mine = np.arange(len(known))[rank() :: world()]
        for start in range(0, len(mine), batch_size):
            places = mine[start : start + batch_size]
            images = torch.from_numpy(table.images[known[places]]).to(model.device)
            with full_precision(model.device):
                vectors = model.embed_images(to_float(images))
                texts = model.embed_captions(torch.from_numpy(self._captions[places]).to(model.device))
            self.update(vectors.to(device), texts.to(device), torch.from_numpy(places).to(device))

    def check(self, model: Model, data: DataModule) -> None:
        """Raises ConfigError: the model does not compare images with captions, or not these images and captions."""
        if not isinstance(model, ComparesCaptions):
            raise ConfigError(
                f"metrics=retrieval: a {type(model).__name__} does not compare images with captions, as "
                "model=contrastive_text does. Leave it out of metrics=[...]."
            )
        table = _table(data)
        if table.captions is None or not (table.captions != 0).any():
            raise ConfigError("metrics=retrieval: no held-out image has a caption. Leave it out of metrics=[...].")

    def subject(self, model: Model, split: Split) -> str:
        return "val" if self.pool is None else f"val_of_{self.pool}"


def _table(data: DataModule) -> ImageTable:
    return images_of(data, "retrieval").table("val")


def recalls(images: Tensor, texts: Tensor, caption: Tensor) -> dict[str, Tensor]:
    """Of N pairs of unit vectors (N, D): by name, (N,) each. ``caption``: (N,), equal for equal captions."""
    kinds, own = torch.unique(caption, return_inverse=True)  # own: (N,), the place among the K different captions
    places = torch.arange(len(own), device=own.device)
    first = torch.full_like(kinds, len(own)).scatter_reduce(0, own, places, "amin")  # (K,): an example of each caption
    pictures, captions = images.double(), texts[first].double()  # (N, D), (K, D)
    found: dict[str, list[Tensor]] = {}
    for rows in places.split(_ROWS):
        ranked = {
            "image_to_text": (
                pictures[rows] @ captions.T,
                own[rows, None] == torch.arange(len(kinds), device=own.device),
            ),
            "text_to_image": (texts[rows].double() @ pictures.T, own[rows, None] == own),
        }
        for (way, (cosines, right)), k in product(ranked.items(), AT):
            found.setdefault(f"{way}_r{k}", []).append(recall_at(k, cosines, right))
            found.setdefault(f"{way}_chance_r{k}", []).append(recall_at(k, torch.zeros_like(cosines), right))
    return {name: torch.cat(parts) for name, parts in found.items()}

"""LPIPS diversity: mean perceptual distance between samples of a class, relative to real images."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from genlab.data.image import to_float
from genlab.errors import DataError
from genlab.metrics.base import Direction, MetricBatch
from genlab.metrics.classes import members, random_pairs
from genlab.metrics.distance.base import ImageDistance
from genlab.metrics.ordered import in_order

_CHUNK = 32  # pairs per pass, for any batch size, since float32 sums depend on it


class LPIPSDiversity(Metric):
    """Mean LPIPS between random pairs of samples of a class, as BicycleGAN measures diversity (Zhu et al. 2017,
    arXiv:1711.11586, section 5.1), also as a ratio to that of pairs of real images.

    Pairs are of one class, each class in turn, where both sides have labels; else of all examples. A ratio near 1 is
    what new images of the same kind have; well below 1 samples of a class resemble each other, 0 is one image; above 1
    they differ more than the data do, as noise does.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"image"})
    optional: ClassVar[frozenset[str]] = frozenset({"label"})
    directions: ClassVar[Mapping[str, Direction | None]] = {"lpips_diversity": None, "lpips_diversity_ratio": "one"}
    is_differentiable = False
    full_state_update = False

    real_image: list[Tensor]
    real_label: list[Tensor]
    real_index: list[Tensor]
    fake_image: list[Tensor]
    fake_label: list[Tensor]
    fake_index: list[Tensor]

    def __init__(
        self,
        distance: ImageDistance,
        num_pairs: int = 1000,  # of each side
        seed: int = 0,  # of the choice of pairs
    ):
        """Raises ValueError if there are no pairs."""
        super().__init__()
        if num_pairs < 1:
            raise ValueError(f"num_pairs must be a whole number >= 1, got {num_pairs}.")
        self.distance, self.num_pairs, self.seed = distance, num_pairs, seed
        self._kind = "of one class"
        for state in ("image", "label", "index"):
            self.add_state(f"real_{state}", [], dist_reduce_fx="cat")
            self.add_state(f"fake_{state}", [], dist_reduce_fx="cat")

    def update(self, batch: MetricBatch, real: bool) -> None:
        """Takes ``image`` (N, C, H, W) uint8, ``index`` (N,) and, where there is one, ``label`` (N,)."""
        side = "real" if real else "fake"
        label = batch["label"] if "label" in batch else torch.full_like(batch["index"], -1)
        for state, rows in (("image", batch["image"]), ("label", label), ("index", batch["index"])):
            getattr(self, f"{side}_{state}").append(rows)

    def compute(self) -> dict[str, Tensor]:
        """``lpips_diversity``, 0 or more, and ``lpips_diversity_ratio``.

        Raises DataError if there are fewer than 2 examples, or of a class, on a side; or all real images are the same.
        """
        real_label, fake_label = in_order(self.real_label, self.real_index), in_order(self.fake_label, self.fake_index)
        if (real_label >= 0).any() and (fake_label >= 0).any():
            self._kind, groups = "of one class", members(real_label, fake_label, "lpips_diversity")
        else:
            self._kind, groups = "of all", [(np.arange(len(real_label)), np.arange(len(fake_label)))]
        if min(len(places) for places in groups[0]) < 2:
            raise DataError(
                f"lpips_diversity needs at least 2 examples on each side, got {len(real_label)} real, "
                f"{len(fake_label)} generated."
            )
        real = self._mean_distance(in_order(self.real_image, self.real_index), [places for places, _ in groups])
        fake = self._mean_distance(in_order(self.fake_image, self.fake_index), [places for _, places in groups])
        if real == 0:
            raise DataError("lpips_diversity: all pairs of real images look the same, so the ratio is not defined.")
        return {"lpips_diversity": fake, "lpips_diversity_ratio": fake / real}

    def settings(self) -> dict[str, int | float | str]:
        """As used by the latest ``compute``."""
        return {"num_pairs": self.num_pairs, "pairs": self._kind, "seed": self.seed, **self.distance.settings()}

    def _mean_distance(self, images: Tensor, groups: list[np.ndarray]) -> Tensor:
        """Of pairs of images (N, C, H, W) that are both in one of ``groups``, places (n,) each: a float64 scalar."""
        pairs = torch.from_numpy(random_pairs(groups, self.num_pairs, self.seed)).to(images.device)  # (P, 2)
        distances = [
            self.distance.between(to_float(images[chunk[:, 0]]), to_float(images[chunk[:, 1]])).double()
            for chunk in pairs.split(_CHUNK)
        ]
        return torch.cat(distances).mean()

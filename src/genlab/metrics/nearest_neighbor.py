"""Does the model copy its training images? Distances from samples to the nearest of them."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from genlab.data.image import ImageDataModule
from genlab.metrics.base import Direction, MetricBatch

_CHUNK = 4096  # images of either kind that are compared at a time


class NearestNeighbor(Metric):
    """Median distance of a sample to the nearest training image, also as a ratio to that of held-out images.

    A distance is the root mean square difference of pixels, as a share of the pixel range: 0 is a copy. A ratio near 1
    is what new images of the same kind have; near 0 the model copies; well above 1 its samples are far from the data.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"image"})
    directions: ClassVar[Mapping[str, Direction | None]] = {"nn_distance": None, "nn_distance_ratio": "one"}
    is_differentiable = False
    full_state_update = False

    images: list[Tensor]

    def __init__(self, num_heldout: int = 1000):  # held-out images that give the yardstick, the first ones
        super().__init__()
        self.num_heldout = num_heldout
        self._training_images = torch.empty(0)
        self._heldout_distance = torch.nan
        self.add_state("images", [], dist_reduce_fx="cat")

    def prepare(self, data: ImageDataModule) -> None:
        """Keeps the training images and measures the held-out ones against them."""
        self._training_images = torch.from_numpy(data.table("train").images).flatten(1)
        heldout = torch.from_numpy(data.table("val").images[: self.num_heldout]).flatten(1).to(self.device)
        self._heldout_distance = _median(nearest_distance(heldout, self._training_images))

    def update(self, batch: MetricBatch, real: bool) -> None:
        """Takes ``image`` (N, C, H, W) uint8; the reference is of no interest here."""
        if not real:
            self.images.append(batch["image"].flatten(1))

    def compute(self) -> dict[str, Tensor]:
        """``nn_distance`` in [0, 1] and ``nn_distance_ratio``."""
        distance = _median(nearest_distance(dim_zero_cat(self.images), self._training_images))
        return {
            "nn_distance": torch.tensor(distance),
            "nn_distance_ratio": torch.tensor(distance) / self._heldout_distance,
        }

    def settings(self) -> dict[str, int | float | str]:
        return {"num_heldout": self.num_heldout}


def nearest_distance(queries: Tensor, images: Tensor) -> Tensor:
    """Root mean square pixel difference, in [0, 1], of each query to the nearest image. uint8 (N, D), (M, D) -> (N,).

    The nearest is found by float32 inner products; its distance is then taken exactly, so that a copy is at 0.
    """
    return torch.cat([_nearest_distance(chunk.float(), images) for chunk in queries.split(_CHUNK)])


def _nearest_distance(x: Tensor, images: Tensor) -> Tensor:
    best = torch.full((len(x),), torch.inf, device=x.device)
    nearest = torch.zeros(len(x), dtype=torch.long, device=x.device)
    for start in range(0, len(images), _CHUNK):
        y = images[start : start + _CHUNK].to(x.device).float()
        squared, where = (y.square().sum(dim=1) - 2 * x @ y.T).min(dim=1)  # |x - y|^2 - |x|^2, (N,)
        nearest = torch.where(squared < best, where + start, nearest)
        best = torch.minimum(best, squared)
    return (x - images[nearest.cpu()].to(x.device).float()).square().mean(dim=1).sqrt() / 255


def _median(distances: Tensor) -> float:
    """The mean of the middle two where there is no middle one."""
    return float(distances.double().quantile(0.5))

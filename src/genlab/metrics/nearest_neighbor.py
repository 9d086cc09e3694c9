"""Nearest training images of samples, to detect memorization."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from genlab.data.image import ImageDataModule, content_hash
from genlab.metrics.base import Direction, MetricBatch
from genlab.metrics.pairs import pairs_picture

_CHUNK = 4096  # images compared at a time, on each side
_MEMORIZED = 1 / 3  # of the distance to the second nearest training image: nearer than that is a copy


class NearestNeighbor(Metric):
    """Distances of samples to training images: root mean square differences of pixels, as shares of the pixel range.

    * ``nn_distance``, the median to the nearest training image, 0 is a copy; ``nn_distance_ratio``, relative to that of
      held-out images. A ratio near 1 is what new images of the same kind have; near 0 the model copies; well above 1
      its samples are far from the data.
    * ``memorized`` in [0, 1], 0 is best: the share of samples that are three times as near to a training image as to
      any other one (Yoon et al. 2023, "Diffusion probabilistic models generalize when they fail to memorize"; Gu et
      al. 2023, arXiv:2310.02664, sec. 2). Only copies have this, not blurred or noisy pictures.
    * ``authpct`` in [0, 100]: the percentage of authentic samples, farther from the nearest training image than that is
      from its own nearest other one (Alaa et al. 2022, arXiv:2102.08921, sec. 4). Real new images have about 60 on
      digits, copies 0; blur and noise raise it too, so it does not measure memorization alone.

    On pixels, for any extractor, since copies agree in pixels, and features of all training images would cost
    more than the rest of an evaluation. ``pictures`` shows the samples that are nearest to a training image.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"image"})
    directions: ClassVar[Mapping[str, Direction | None]] = {
        "nn_distance": None,
        "nn_distance_ratio": "one",
        "memorized": "lower",
        "authpct": None,
    }
    is_differentiable = False
    full_state_update = False

    images: list[Tensor]
    index: list[Tensor]

    def __init__(
        self,
        num_heldout: int = 1000,  # first held-out images, as the baseline
        closest: int = 24,  # pairs on the picture
    ):
        super().__init__()
        self.num_heldout, self.closest = num_heldout, closest
        self._hashes: dict[str, str] = {}
        self._training_images = torch.empty(0)  # (M, C, H, W)
        self._heldout_distance = torch.nan
        self._pairs: tuple[Tensor, Tensor, Tensor] | None = None  # samples, training images, distances
        self.add_state("images", [], dist_reduce_fx="cat")
        self.add_state("index", [], dist_reduce_fx="cat")

    def prepare(self, data: ImageDataModule) -> None:
        """Keeps the training images and measures the held-out ones against them."""
        training, held_out = data.table("train").images, data.table("val").images[: self.num_heldout]
        self._hashes = {"training_sha256": content_hash(training), "heldout_sha256": content_hash(held_out)}
        self._training_images = torch.from_numpy(training)
        heldout = torch.from_numpy(held_out).flatten(1).to(self.device)
        self._heldout_distance = _median(nearest_distance(heldout, self._training_images.flatten(1)))

    def update(self, batch: MetricBatch, real: bool) -> None:
        """Takes ``image`` (N, C, H, W) uint8 and ``index`` (N,); the reference is not used."""
        if not real:
            self.images.append(batch["image"])
            self.index.append(batch["index"])

    def compute(self) -> dict[str, Tensor]:
        """``nn_distance`` in [0, 1], ``nn_distance_ratio``, ``memorized`` in [0, 1], ``authpct`` in [0, 100]."""
        samples, training = dim_zero_cat(self.images), self._training_images.flatten(1)
        distances, nearest = neighbors(samples.flatten(1), training)
        found, places = nearest[:, 0].unique(return_inverse=True)
        of_training = neighbors(training[found].to(samples.device), training, itself=found)[0][:, 0]
        chosen = _smallest(distances[:, 0], dim_zero_cat(self.index), self.closest)
        pairs = (samples[chosen], self._training_images[nearest[chosen, 0].cpu()], distances[chosen, 0])
        self._pairs = (pairs[0].cpu(), pairs[1], pairs[2].cpu())
        distance = _median(distances[:, 0])
        return {
            "nn_distance": torch.tensor(distance),
            "nn_distance_ratio": torch.tensor(distance) / self._heldout_distance,
            "memorized": (distances[:, 0] <= _MEMORIZED * distances[:, 1]).double().mean(),
            "authpct": 100 * (distances[:, 0] > of_training[places]).double().mean(),
        }

    def pictures(self) -> dict[str, Tensor]:
        """``closest``: the samples that are nearest to a training image, beside it, and the distance."""
        assert self._pairs is not None, "compute comes first"
        return {"closest": pairs_picture(*self._pairs)}

    def settings(self) -> dict[str, int | float | str]:
        """With hashes of the images that samples were last measured against."""
        return {"num_heldout": self.num_heldout, **self._hashes}


def nearest_distance(queries: Tensor, images: Tensor) -> Tensor:
    """Root mean square pixel difference, in [0, 1], of each query to the nearest image: (N, D), (M, D) -> (N,)."""
    return neighbors(queries, images)[0][:, 0]


def neighbors(queries: Tensor, images: Tensor, itself: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The two nearest images of each query: root mean square pixel differences in [0, 1] and places, (N, 2) each.

    uint8 (N, D), (M, D). ``itself``: the place (N,) of each query among the images, which is left out. The nearest are
    found by float32 inner products; their distances are then taken exactly, so that a copy is at 0. Where there is no
    second image, or no first, the distance is infinite.
    """
    parts = zip(queries.split(_CHUNK), [None] * len(queries) if itself is None else itself.split(_CHUNK), strict=False)
    found = [_neighbors(chunk.float(), images, own) for chunk, own in parts]
    return torch.cat([distances for distances, _ in found]), torch.cat([places for _, places in found])


def _neighbors(x: Tensor, images: Tensor, itself: Tensor | None) -> tuple[Tensor, Tensor]:
    best = torch.full((len(x), 2), torch.inf, device=x.device)
    places = torch.zeros(len(x), 2, dtype=torch.long, device=x.device)
    for start in range(0, len(images), _CHUNK):
        y = images[start : start + _CHUNK].to(x.device).float()
        squared = y.square().sum(dim=1) - 2 * x @ y.T  # |x - y|^2 - |x|^2, (N, M)
        if itself is not None:
            here = torch.nonzero((itself >= start) & (itself < start + len(y)))[:, 0]
            squared[here, itself[here] - start] = torch.inf
        values, where = squared.topk(min(2, len(y)), dim=1, largest=False)
        best, order = torch.cat([best, values], dim=1).topk(2, dim=1, largest=False)
        places = torch.cat([places, where + start], dim=1).gather(1, order)
    exact = [(x - images[places[:, k].cpu()].to(x.device).float()).square().mean(dim=1).sqrt() / 255 for k in range(2)]
    distances = torch.where(best.isinf(), torch.inf, torch.stack(exact, dim=1))
    order = distances.argsort(dim=1, stable=True)  # float32 may have swapped them
    return distances.gather(1, order), places.gather(1, order)


def _smallest(distances: Tensor, index: Tensor, count: int) -> Tensor:
    """Where the ``count`` smallest distances are, in order; of equal ones the sample with the lower number first."""
    by_index = torch.argsort(index)
    return by_index[torch.argsort(distances[by_index], stable=True)][:count]


def _median(distances: Tensor) -> float:
    """The mean of the middle two where there is no middle one."""
    return float(distances.double().quantile(0.5))

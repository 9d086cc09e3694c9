"""Nearest neighbors as a probe of representations."""

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.data.base import DataModule
from genlab.errors import ConfigError
from genlab.metrics.base import Direction
from genlab.metrics.probe import Labelled, Probe, labelled
from genlab.model.base import Model

_ROWS = 512  # of a matrix of cosines at a time


class KNNProbe(Probe):
    """Accuracy of a vote of the ``k`` training images that are nearest by cosine, each with the weight exp(cosine /
    ``temperature``) (Wu et al. 2018, arXiv:1805.01978, section 3.4; as in DINO, Caron et al. 2021, arXiv:2104.14294).

    ``knn_probe``; ``knn_probe_pixels``, the same of pixels; ``knn_probe_chance``, of always naming the most frequent
    class. Nothing is learned, so features count as they are, their mean and scale with them.
    """

    name: ClassVar[str] = "knn_probe"
    directions: ClassVar[Mapping[str, Direction | None]] = {
        "knn_probe": "higher",
        "knn_probe_pixels": None,
        "knn_probe_chance": None,
    }

    def __init__(
        self,
        k: int = 20,  # neighbors that vote
        temperature: float = 0.07,
        num_train: int | None = 10000,  # training images, spread evenly; None: all
        layer: float | None = None,  # depth of the block that is read, in [0, 1]; None: the family's own place
        noise_level: float | None = None,  # sigma, of a diffusion model; None: the family's own
    ):
        """Raises ValueError: a value outside its range."""
        super().__init__(num_train, layer, noise_level)
        if k < 1 or temperature <= 0:
            raise ValueError(f"k={k} must be 1 or more, temperature={temperature} above 0.")
        self.k, self.temperature = k, temperature

    def scores(self, train: Labelled, held_out: Labelled) -> dict[str, Tensor]:
        classes = int(max(train.labels.max(), held_out.labels.max())) + 1
        known = F.normalize(train.features.double(), dim=1)
        right = []
        for x, labels in zip(held_out.features.split(_ROWS), held_out.labels.split(_ROWS), strict=True):
            cosines, nearest = (F.normalize(x.double(), dim=1) @ known.T).topk(self.k, dim=1)
            weights = ((cosines - 1) / self.temperature).exp()  # relative to the largest there can be
            votes = weights.new_zeros(len(x), classes).scatter_add(1, train.labels[nearest], weights)
            right.append(votes.argmax(dim=1) == labels)
        return {"knn_probe": torch.cat(right).double().mean()}

    def settings(self) -> dict[str, int | float | str]:
        return {"k": self.k, "temperature": self.temperature, **super().settings()}

    def check(self, model: Model, data: DataModule) -> None:
        """As of any probe. Raises ConfigError, too, if there are fewer than k neighbors."""
        super().check(model, data)
        found = len(labelled(data, "train", self.num_train, self.name).labels)
        if self.k > found:
            raise ConfigError(
                f"metrics.knn_probe.k={self.k} is larger than the {found} labelled training images. "
                f"Use metrics.knn_probe.k={found}."
            )

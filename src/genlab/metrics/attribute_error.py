"""How far the numbers that a picture shows are from those that it was asked for, by a fixed rule."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from genlab.data.base import DataSpec
from genlab.data.image import ImageDataModule
from genlab.data.scene_reader import Object, read
from genlab.data.scenes import ATTRIBUTES, SIZES
from genlab.errors import ConfigError, DataError
from genlab.metrics.base import Direction, MetricBatch

_COLUMN = "attributes"


class AttributeDifference(Metric):
    """Mean absolute differences of the attributes that ``data=shapes`` has: of the ``size`` of the largest object, 0 or
    1, and of its center's ``x`` and ``y``, in units of the picture's side. Of pictures in which an object is found;
    ``attribute_missing`` is the share of the others.

    Which object is the largest, and where it is, says the reader of :mod:`genlab.data.scene_reader`.
    ``attribute_reader_error`` is its own mean difference, of real pictures and their attributes.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"image", _COLUMN})
    directions: ClassVar[Mapping[str, Direction | None]] = {
        **{f"attribute_error_{name}": "lower" for name in ATTRIBUTES},
        "attribute_missing": "lower",
        "attribute_reader_error": None,
    }
    is_differentiable = False
    full_state_update = False

    differences: Tensor  # (K,): sums over samples
    found: Tensor
    count: Tensor
    real_differences: Tensor
    real: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._names: Sequence[str] = ATTRIBUTES
        for state in ("differences", "real_differences"):
            self.add_state(state, torch.zeros(len(ATTRIBUTES), dtype=torch.float64), dist_reduce_fx="sum")
        for state in ("found", "count", "real"):
            self.add_state(state, torch.tensor(0), dist_reduce_fx="sum")

    def check_samples(self, spec: DataSpec, columns: frozenset[str]) -> None:
        """See ChecksSamples. Raises ConfigError: the attributes are not those of shapes."""
        told = spec.condition.get(_COLUMN)
        if told is not None and not {*told.names} <= {*ATTRIBUTES}:
            raise ConfigError(
                "metrics=attribute_error reads size, x and y from pictures of data=shapes, and the data have "
                f"{', '.join(told.names)}. Leave it out of metrics=[...]."
            )

    def prepare(self, data: ImageDataModule) -> None:
        """Raises DataError if the data have no attributes."""
        told = data.spec.condition.get(_COLUMN)
        if told is None:
            raise DataError("attribute_error needs attributes, and the data have none. Use data.attributes=[size,x,y].")
        self._names = told.names

    def update(self, batch: MetricBatch, real: bool) -> None:
        """Takes ``image`` (N, 3, S, S) uint8 and ``attributes`` (N, K), of which empty rows are left out."""
        asked = batch[_COLUMN].cpu().double()
        kept = (asked >= 0).all(dim=1)
        largest = [_largest(objects) for objects in read(batch["image"].cpu().numpy())]
        differences, found = torch.zeros(len(ATTRIBUTES), dtype=torch.float64), 0
        for row, each in zip(asked[kept], [o for o, k in zip(largest, kept.tolist(), strict=True) if k], strict=True):
            if each is not None:
                shown = _attributes(each)
                for name, wanted in zip(self._names, row.tolist(), strict=True):
                    differences[ATTRIBUTES.index(name)] += abs(shown[name] - wanted)
                found += 1
        device = self.differences.device
        if real:
            self.real_differences += differences.to(device)
            self.real += found
        else:
            self.differences += differences.to(device)
            self.found += found
            self.count += int(kept.sum())

    def compute(self) -> dict[str, Tensor]:
        """Raises DataError if no sample was asked for attributes, or none shows an object."""
        if self.count == 0:
            raise DataError("attribute_error needs samples with attributes, and there are none.")
        means = self.differences / self.found.clamp_min(1)
        of_each = {name: means[ATTRIBUTES.index(name)] for name in self._names if self.found > 0}
        return {
            **{f"attribute_error_{name}": mean for name, mean in of_each.items()},
            "attribute_missing": 1 - self.found / self.count,
            "attribute_reader_error": self.real_differences.sum() / self.real.clamp_min(1) / len(self._names),
        }

    def settings(self) -> dict[str, int | float | str]:
        return {"reader": "nearest template in each quarter"}


def _largest(objects: Sequence[Object]) -> Object | None:
    """The first one of the largest size, in reading order."""
    sizes = list(SIZES)
    return max(objects, key=lambda each: sizes.index(each.size), default=None)


def _attributes(each: Object) -> dict[str, float]:
    return {"size": list(SIZES).index(each.size) / (len(SIZES) - 1), "x": each.place[0], "y": each.place[1]}

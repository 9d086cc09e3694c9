"""The contract of metrics, torchmetrics.Metric subclasses of two kinds.

Some compare generated examples with real ones, and are fed batches of both; some ask the model how likely real ones
are. A batch is a mapping with fixed keys: ``image`` (N, C, H, W) uint8; ``index`` (N,) int64, the examples' places in
their set, the same on any number of devices; ``features`` (N, D) float32, from the extractor of the evaluation;
``label`` (N,) int64 where the data or the request had one. A metric reads the keys that it needs.
"""

from collections.abc import Mapping
from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor

from genlab.data.base import DataModule, Split
from genlab.data.image import ImageDataModule
from genlab.model.base import GenerativeModel

MetricBatch = Mapping[str, Tensor]


class SampleMetric(Protocol):
    """Compares generated examples with real ones."""

    reads_labels: ClassVar[bool]  # then the model must take labels
    reads_features: ClassVar[bool]  # then the extractor's name is part of the name of the number

    def update(self, batch: MetricBatch, real: bool) -> None:
        """Take in a batch of the reference (``real``) or of the model."""
        ...

    def compute(self) -> dict[str, Tensor]:
        """Scalars by name, e.g. {"precision": ..., "recall": ...}."""
        ...

    def reset(self) -> None:
        """Forget what was taken in."""
        ...

    def settings(self) -> dict[str, int | float | str]:
        """What the number depends on beside the examples, as it was used; part of the protocol on record."""
        ...


@runtime_checkable
class LikelihoodMetric(Protocol):
    """Measures how likely held-out data are to a model."""

    def measure(self, model: GenerativeModel, data: DataModule, split: Split, batch_size: int) -> None:
        """Take in this rank's share of a split. The model is in eval mode. Raises ConfigError as ``check`` does."""
        ...

    def check(self, model: GenerativeModel, data: DataModule) -> None:
        """Raises ConfigError if the model or the data are not such that this can be measured."""
        ...

    def compute(self) -> dict[str, Tensor]:
        """Scalars by name, over all ranks."""
        ...

    def reset(self) -> None: ...

    def settings(self) -> dict[str, int | float | str]: ...


@runtime_checkable
class NeedsData(Protocol):
    """A metric that looks at more than the reference, e.g. at the training images."""

    def prepare(self, data: ImageDataModule) -> None:
        """Called once for a data set, before the first update."""
        ...


class FeatureExtractor(Protocol):
    """Images to feature vectors. ``name`` goes into the metrics' names (``fid_<name>_<n>``)."""

    name: str

    def fingerprint(self) -> str:
        """A hash of everything that its features depend on: architecture, weights, resize and scaling."""
        ...

    def features(self, images: Tensor) -> Tensor:
        """uint8 (N, C, H, W), C of 1 or 3, any size -> float32 (N, D)."""
        ...

"""The contract of metrics, torchmetrics.Metric subclasses of two kinds.

Some compare generated examples with real ones, in batches of both; some measure the model itself. A batch is a
mapping with fixed keys: the examples, ``image`` (N, C, H, W) uint8, or ``text``, a list of N strings without
their prompts; ``index`` (N,) int64, the examples' places in their set, the same on any number of devices; ``label``
(N,) int64 and ``caption``, a list of N strings, where the data or the request had one; ``references`` of real ones, a
list of N sequences of strings, where a text may be one of several; and what the extractor of the
evaluation gives, float32: ``features`` (N, D), ``logits`` (N, K), ``spatial`` (N, S). Sample i of text and reference i
continue the same prompt, and have the same number of tokens. Tokens themselves are not given, so that metrics do not
depend on the tokenizer.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from torch import Tensor

from genlab.data.base import DataModule, DataSpec, Split
from genlab.model.base import Condition, Model

MetricBatch = Mapping[str, Any]
Direction = Literal["lower", "higher", "one"]  # which direction is better; "one": as near to 1 as possible
EXTRACTED = frozenset({"features", "logits", "spatial"})  # keys of a batch that come from the extractor


class SampleMetric(Protocol):
    """Compares generated examples with real ones."""

    reads: ClassVar[frozenset[str]]  # the keys of a batch that it needs
    # It may also have ``optional``: further keys that it uses if they are present; and ``any_of``: keys of which it
    # needs one.
    directions: ClassVar[Mapping[str, Direction | None]]  # of every number that it gives, by the name in ``compute``

    def update(self, batch: MetricBatch, real: bool) -> None:
        """Take in a batch of the reference (``real``) or of the model."""
        ...

    def compute(self) -> dict[str, Tensor]:
        """Scalars by name, e.g. {"precision": ..., "recall": ...}."""
        ...

    def reset(self) -> None:
        """Forget all batches."""
        ...

    def settings(self) -> dict[str, int | float | str]:
        """What the number depends on beside the examples; part of the recorded protocol."""
        ...


@runtime_checkable
class ModelMetric(Protocol):
    """Measures the model itself: its likelihood of held-out data, its latent space, or its answers to problems."""

    directions: ClassVar[Mapping[str, Direction | None]]

    def measure(self, model: Model, data: DataModule, split: Split, batch_size: int, seed: int) -> None:
        """Take in this rank's share of a split. The model is in eval mode. Raises ConfigError as ``check`` does."""
        ...

    def check(self, model: Model, data: DataModule) -> None:
        """Raises ConfigError if this cannot be measured on the model or the data."""
        ...

    def subject(self, model: Model, split: Split) -> str:
        """The suffix of its numbers' names, e.g. ``exact_val``: the kind of number and the data."""
        ...

    def compute(self) -> dict[str, Tensor]:
        """Scalars by name, over all ranks."""
        ...

    def reset(self) -> None: ...

    def settings(self) -> dict[str, int | float | str]:
        """As of a SampleMetric; the seed too, where there are random numbers."""
        ...


@runtime_checkable
class NeedsData(Protocol):
    """A metric that looks at more than the reference, e.g. at the training images."""

    def prepare(self, data: Any) -> None:
        """Called once for a data set, before the first update."""
        ...


@runtime_checkable
class AsksForConditions(Protocol):
    """A ModelMetric that draws samples from conditional models."""

    def ask(self, asked: Callable[[Sequence[int]], Condition | None]) -> None:
        """Called before ``measure``: gives the conditions of samples with these numbers; None: unconditional."""
        ...


@runtime_checkable
class NeedsEnough(Protocol):
    """A metric that cannot be computed from too few examples, or too few of a class."""

    def check_enough(self, real: Tensor, fake: Tensor) -> None:
        """``real`` (M,), ``fake`` (N,): the labels of all examples of a side, -1 = none. Raises DataError, with a
        remedy; called before a training and again before the number is computed."""
        ...


@runtime_checkable
class ChecksSamples(Protocol):
    """A metric of samples that does not fit all data."""

    def check_samples(self, spec: DataSpec, columns: frozenset[str]) -> None:
        """``columns``: of the samples. Raises ConfigError, with a remedy; called before a training and again before
        samples are measured."""
        ...


@runtime_checkable
class HasPictures(Protocol):
    """A metric that can illustrate its numbers."""

    def pictures(self) -> dict[str, Tensor]:
        """By name, (C, H, W) uint8 on the CPU, C of 1 or 3; of what was computed last."""
        ...


class FeatureExtractor(Protocol):
    """Examples to vectors. ``name`` goes into the metrics' names (``fid_<name>_<n>``)."""

    name: str
    modality: str  # "image", "text": the column of examples that it looks at
    gives: frozenset[str]  # of ``features``, ``logits`` (of classes), ``spatial`` (features with positions)
    preprocessing: str  # resize, scaling and network, in words: part of the fingerprint and of the protocol

    def fingerprint(self) -> str:
        """A hash of everything that its outputs depend on: architecture, weights, resize and scaling."""
        ...

    def extract(self, examples: Any, wanted: frozenset[str]) -> dict[str, Tensor]:
        """The ``wanted`` outputs, each float32 (N, ...), of images uint8 (N, C, H, W), C of 1 or 3, of any
        size, or of a list of N texts."""
        ...


@runtime_checkable
class HasInterim(Protocol):
    """An extractor that may let a quicker one stand in for it in evaluations during a training."""

    def interim(self) -> FeatureExtractor | None:
        """One of another name and fingerprint, so that its numbers are not taken for this one's. None: none is
        wanted."""
        ...


def short(count: int) -> str:
    """1000 -> "1k", 50000 -> "50k", 540 -> "540"."""
    return f"{count // 1000}k" if count % 1000 == 0 else str(count)

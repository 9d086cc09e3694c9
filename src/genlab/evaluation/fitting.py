"""Checks that metrics and extractors fit the task, the model and each other."""

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

from genlab.data.base import DataSpec
from genlab.errors import ConfigError
from genlab.metrics.base import EXTRACTED, ChecksSamples, FeatureExtractor, NeedsEnough
from genlab.metrics.classes import LABEL, labels_or_none
from genlab.model.base import GenerativeModel
from genlab.model.condition import KINDS
from genlab.task.base import Task

_BESIDE = EXTRACTED | {"index"} | KINDS.keys()  # columns of a batch that are not the examples themselves


@runtime_checkable
class WritesBeside(Protocol):
    """A task whose samples are about something: metrics that read one of the columns ``written`` may also read those
    ``beside``."""

    written: ClassVar[frozenset[str]]
    beside: ClassVar[frozenset[str]]


def check_task(metrics: Mapping[str, Any], extractor: FeatureExtractor | None, task: Task, spec: DataSpec) -> None:
    """Raises ConfigError if a metric of samples, by name, or its features are for another kind of examples."""
    kind = spec.modality
    written = task.written if isinstance(task, WritesBeside) else frozenset({task.key})
    for name, metric in metrics.items():
        known = _BESIDE | written
        if isinstance(task, WritesBeside) and metric.reads & written:
            known |= task.beside
        if other := sorted(metric.reads - known):
            raise ConfigError(f"metrics={name} is for {other[0]}s; the data are {kind}. Use {task.suited}.")
        if not metric.reads & EXTRACTED:
            continue
        if extractor is None and task.key == "image":
            raise ConfigError(f"metrics={name} needs features of images. Choose metrics/extractor=...")
        if task.key == "text" and (extractor is None or extractor.modality != task.key):
            raise ConfigError(
                f"metrics={name} is for images, or for texts with features of texts; the data are "
                f"text. Use {task.suited}, or choose metrics/extractor=ngrams."
            )
        if extractor is None:
            raise ConfigError(f"metrics={name} needs features of {task.key}s, and none are chosen. Use {task.suited}.")
        if extractor.modality != task.key:
            raise ConfigError(
                f"metrics={name}: the extractor {extractor.name} is for {extractor.modality}s; the data are {kind}."
            )


def check_told(metrics: Mapping[str, Any], task: Task, model: GenerativeModel) -> None:
    """Raises ConfigError if a metric reads a condition that the model does not take."""
    for name, metric in metrics.items():
        if lacking := sorted((metric.reads & KINDS.keys()) - task.gives(model)):
            what = f"{lacking[0].removesuffix('s')}s"
            raise ConfigError(f"metrics={name} needs a model that takes {what}. Leave it out of metrics=[...].")
        wanted = sorted(getattr(metric, "any_of", ()))
        if wanted and not task.gives(model) & {*wanted}:
            either = " or ".join(f"{key}s" for key in wanted)
            raise ConfigError(f"metrics={name} needs a model that takes {either}. Leave it out of metrics=[...].")


def check_samples(metrics: Mapping[str, Any], spec: DataSpec, columns: Collection[str]) -> None:
    """Raises ConfigError if a metric cannot judge samples of these data, with these columns."""
    for metric in metrics.values():
        if isinstance(metric, ChecksSamples):
            metric.check_samples(spec, frozenset(columns))


def check_gives(name: str, needed: frozenset[str], extractor: FeatureExtractor) -> None:
    """Raises ConfigError if the metric ``name`` reads an output that the extractor does not give."""
    if not needed <= extractor.gives:
        lacking = ", ".join(sorted(needed - extractor.gives))
        raise ConfigError(
            f"metrics={name} needs {lacking}, which metrics/extractor={extractor.name} does not give. "
            "Use metrics/extractor=inception."
        )


def check_enough(metrics: Mapping[str, Any], task: Task, model: GenerativeModel, count: int) -> None:
    """Raises DataError if a metric cannot be computed from ``count`` samples of ``model`` and the task's reference."""
    reference, asked = task.reference(), model.conditions.label_of(task.asked(model, range(count)))
    known: Any = reference.columns.get(LABEL)
    real, fake = labels_or_none(known, len(reference)), labels_or_none(asked, count)
    for metric in metrics.values():
        if isinstance(metric, NeedsEnough):
            metric.check_enough(real, fake)

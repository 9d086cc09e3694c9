"""The evaluation protocol: the one path from a model, or from images that exist, to numbers that can be compared."""

import copy
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from genlab.data.array_cache import default_folder
from genlab.data.base import DataModule, Split
from genlab.data.image import ImageDataModule
from genlab.data.text import TextDataModule
from genlab.errors import ConfigError
from genlab.files.paths import read_path
from genlab.machine.rank import rank, world
from genlab.metrics.base import EXTRACTED, AsksForConditions, FeatureExtractor, HasPictures, ModelMetric, NeedsData
from genlab.metrics.batches import batches_of, computed, update
from genlab.metrics.bootstrap import bootstrapped, standard_errors
from genlab.metrics.classes import check_enough
from genlab.metrics.modality import check_gives, check_modality
from genlab.metrics.pixels_allowed import check_pixels
from genlab.metrics.protocol import CLASS_MIX, Result, mean, short
from genlab.metrics.reference import outputs, reference_outputs
from genlab.metrics.subject import Examples, ImageSubject, Subject
from genlab.metrics.text_subject import TextSubject
from genlab.model.base import GenerativeModel, Model, in_eval_mode
from genlab.model.condition import KINDS


class Evaluation:
    """Draws ``num_samples`` from a model and measures them against a split of the data; and asks the model itself,
    where a metric does that.

    Sample i is a function of (seed, i); with R ranks, rank r makes and measures samples r, r + R, ... and nothing is
    padded. So the numbers do not depend on the batch size or on the number of devices.
    """

    def __init__(
        self,
        extractor: FeatureExtractor | None,  # None: no metric reads what one gives
        metrics: Mapping[str, Metric],  # by any name; each is a SampleMetric or a ModelMetric
        num_samples: int = 1000,
        reference: Split = "val",  # what samples are compared with, all of it; held-out by default
        seed: int = 0,  # of the samples
        batch_size: int = 64,  # samples drawn at a time; only speed and memory depend on it
        num_seeds: int = 1,  # the full evaluation draws so many sets, seed, seed + 1, ...: means and their spread
        bootstrap: int = 0,  # the full evaluation resamples its samples so many times: standard errors
        prompt_length: int = 0,  # of text: tokens of the reference that a sample goes on from; 0: from nothing
        balanced_classes: bool = False,  # each is asked for as often as the next; else as often as the reference has it
        cache_dir: str
        | None = None,  # of what the extractor gives of references; null: $GENLAB_CACHE or ~/.cache/genlab
    ):
        """Raises ConfigError if a value is out of its range, or a metric lacks what it reads."""
        if num_samples < 2 or batch_size < 1:
            raise ConfigError(f"num_samples={num_samples} must be >= 2, batch_size={batch_size} >= 1.")
        if num_seeds < 1 or bootstrap < 0 or bootstrap == 1:
            raise ConfigError(f"num_seeds={num_seeds} must be >= 1, bootstrap={bootstrap} 0 or >= 2.")
        if prompt_length < 0:
            raise ConfigError(f"evaluation.prompt_length={prompt_length} must be a whole number >= 0.")
        self.extractor, self.prompt_length, self.balanced_classes = extractor, prompt_length, balanced_classes
        # Metric and SampleMetric at once is a type that Python cannot say
        self.of_models: dict[str, Any] = {n: m for n, m in metrics.items() if isinstance(m, ModelMetric)}
        self.metrics: dict[str, Any] = {n: m for n, m in metrics.items() if n not in self.of_models}
        for name, metric in self.metrics.items():
            if extractor is not None:
                check_gives(name, metric.reads & EXTRACTED, extractor)
        self.num_samples, self.reference, self.seed, self.batch_size = num_samples, reference, seed, batch_size
        self.num_seeds, self.bootstrap = num_seeds, bootstrap
        self.cache = read_path(cache_dir) if cache_dir else default_folder()
        self._prepared: DataModule | None = None  # the data that the next two are of
        self._subject: Subject | None = None
        self._compared: Subject | None = None  # the sized subject that the reference is of
        self._reference: list[dict[str, Any]] = []  # batches, this rank's share

    def run(
        self,
        model: Model,
        data: DataModule,
        num_samples: int | None = None,  # a cheap evaluation, of one seed; null: the full one
        *,
        weights: str,  # which of the model's are in place, "ema" or "raw"; part of the protocol
    ) -> Result:
        """Measure samples, where a metric needs them, and ask the model, where a metric does.

        Raises:
            NumericsError, DataError: samples are not finite, or not of the data's shape.
            ConfigError: a metric does not go with the data or the model.
        """
        self.check(model, data)
        result = Result({}, {**self._subject_of(data).facts(), "metrics": {}})
        with torch.no_grad(), in_eval_mode(model):
            if self.metrics:
                assert isinstance(model, GenerativeModel)
                count, full = num_samples or self.num_samples, not num_samples
                seeds = range(self.seed, self.seed + (self.num_seeds if full else 1))
                result = mean([self._of_samples(model, data, count, seed, full) for seed in seeds])
            result = self._with_answers(result, model, data)
        return replace(result, protocol=result.protocol | {"weights": weights})

    def check(self, model: Model, data: DataModule) -> None:
        """Raises ConfigError if a metric does not go with the model or the data: before training, not after it."""
        check_pixels(self.metrics, self.of_models, self.extractor, data.spec)
        if self.metrics:
            data.check_split(self.reference, "evaluation.reference")
            check_modality(self.metrics, self.extractor, data.spec.modality)
            if not isinstance(model, GenerativeModel):
                raise ConfigError(
                    f"metrics={next(iter(self.metrics))} measures samples, and a {type(model).__name__} "
                    "draws none. Leave it out of metrics=[...]."
                )
            for name, metric in self.metrics.items():
                if lacking := sorted((metric.reads & KINDS.keys()) - model.conditions.kinds.keys()):
                    raise ConfigError(
                        f"metrics={name} needs a model that takes {lacking[0]}s. Leave it out of metrics=[...]."
                    )
            check_enough(self.metrics, self._subject_of(data).sized(self.num_samples, model), model, self.num_samples)
        for metric in self.of_models.values():
            metric.check(model, data)

    def score(
        self,
        examples: Examples,  # all of them on every rank
        data: DataModule,
        device: torch.device | str = "cpu",  # where features and metrics are computed
        full: bool = False,  # with bootstrap standard errors, if they are configured
    ) -> Result:
        """Measure what is there already, a baseline's images for example."""
        check_modality(self.metrics, self.extractor, data.spec.modality)
        check_pixels(self.metrics, {}, self.extractor, data.spec)
        mine = examples.mine(rank(), world())
        result = self._measure(mine, len(examples), data, torch.device(device), self.seed, full)
        for error in result.failures.values():
            raise error
        return result

    @staticmethod
    def device_of(model: Model) -> torch.device:
        """Where a model's samples are measured."""
        return model.device if model.device.type == "cuda" else torch.device("cpu")  # others lack float64

    def draw(self, model: GenerativeModel, data: DataModule, count: int, seed: int) -> Examples:
        """This rank's share of ``count`` samples."""
        subject = self._subject_of(data).sized(count, model)
        return subject.draw(model, range(rank(), count, world()), seed, self.batch_size)

    def _of_samples(self, model: GenerativeModel, data: DataModule, count: int, seed: int, full: bool) -> Result:
        start, evaluations = time.perf_counter(), model.evaluations
        drawn = self.draw(model, data, count, seed)
        seconds, each = time.perf_counter() - start, (model.evaluations - evaluations) / len(drawn) or None
        result = self._measure(drawn, count, data, self.device_of(model), seed, full)
        asked = self._subject_of(data).asked_facts(model)
        result = replace(result, protocol=result.protocol | asked) if asked else result
        return replace(result, samples_per_second=count / seconds, evaluations_per_sample=each)

    def _with_answers(self, found: Result, model: Model, data: DataModule) -> Result:
        """The numbers of metrics that ask the model, by names that say of what they are."""
        result = replace(found, protocol=found.protocol | {"metrics": dict(found.protocol["metrics"])})
        asked = self._subject_of(data)
        for name, metric in self.of_models.items():
            metric.to(self.device_of(model)).reset()
            if isinstance(metric, AsksForConditions):
                metric.ask(partial(asked.asked, model))  # type: ignore[arg-type]
            failed: dict[str, Exception] = {}
            try:
                metric.measure(model, data, self.reference, self.batch_size, self.seed)
            except Exception as error:
                failed[name] = error
            subject = metric.subject(model, self.reference)
            for key, value in computed({name: metric}, failed).get(name, {}).items():
                full_name = f"{key}_{subject}"
                result.values[full_name], result.directions[full_name] = value, metric.directions[key]
                result.origins[full_name], result.keys[full_name] = (name, frozenset()), key
            mix = {}
            if isinstance(metric, AsksForConditions):
                mix = {CLASS_MIX: asked.facts().get(CLASS_MIX)} | asked.asked_facts(model)  # type: ignore[arg-type]
            result.protocol["metrics"][name] = metric.settings() | {key: said for key, said in mix.items() if said}
            result.failures.update(failed)
            metric.reset()
        return result

    def _subject_of(self, data: DataModule) -> Subject:
        if self._prepared is not data:
            self._subject = _subject(data, self.reference, self.prompt_length, self.balanced_classes)
            self._prepared = data
            self._compared, self._reference = None, []
        assert self._subject is not None
        return self._subject

    def _sampling(self, count: int, subject: Subject) -> dict[str, Any]:
        """What numbers of samples must share beside the data."""
        return {
            "extractor": None if self.extractor is None else self.extractor.name,
            "extractor_fingerprint": None if self.extractor is None else self.extractor.fingerprint(),
            "preprocessing": None if self.extractor is None else self.extractor.preprocessing,
            "num_samples": count,
            "metrics": {
                name: metric.settings() | subject.condition_facts(_looked_at(metric) & KINDS.keys())
                for name, metric in self.metrics.items()
            },
        }

    def _wanted(self) -> frozenset[str]:
        """What the extractor is asked for."""
        return EXTRACTED.intersection(*[frozenset().union(*(m.reads for m in self.metrics.values()))])

    def _measure(
        self, mine: Examples, count: int, data: DataModule, device: torch.device, seed: int, full: bool
    ) -> Result:
        """Numbers of ``count`` samples, of which ``mine`` are this rank's."""
        subject = self._subject_of(data).sized(count, mine)
        subject.check(mine)
        if min(count, len(subject.reference())) < world():
            raise ConfigError(f"fewer examples than devices ({world()}): raise num_samples or use fewer devices.")
        failures: dict[str, Exception] = {}
        for metric in self.metrics.values():
            metric.to(device).reset()
        self._prepare(data, subject, device)
        for batch in self._reference:
            update(self.metrics, batch, device, True, failures)
        informed = copy.deepcopy(bootstrapped(self.metrics)) if full and self.bootstrap else {}
        drawn = list(self._batches(subject, mine, device))
        for batch in drawn:
            update(self.metrics, batch, device, False, failures)
        found = computed(self.metrics, failures)
        errors = {}
        informed = {name: metric for name, metric in informed.items() if name in found}
        if informed:
            batches = [{k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()} for batch in drawn]
            errors = standard_errors(informed, batches, self.bootstrap, seed)
        protocol = {**subject.facts(), "seed": seed, **self._sampling(count, subject)}
        result = replace(self._named(found, errors, protocol, count), failures=failures)
        for name, metric in self.metrics.items():
            result.pictures.update(metric.pictures() if isinstance(metric, HasPictures) and name in found else {})
            metric.reset()
        return result

    def _named(
        self,
        found: Mapping[str, Mapping[str, float]],  # by metric and name
        errors: Mapping[str, Mapping[str, float]],
        protocol: dict[str, Any],
        count: int,
    ) -> Result:
        """Every number by the name that says what of and how many."""
        result = Result({}, protocol)
        for name, numbers in found.items():
            metric = self.metrics[name]
            extracted = f"{self.extractor.name}_" if self.extractor is not None and metric.reads & EXTRACTED else ""
            for key, value in numbers.items():
                full_name = f"{key}_{extracted}{short(count)}"
                result.values[full_name], result.directions[full_name] = value, metric.directions[key]
                result.origins[full_name], result.keys[full_name] = (name, metric.reads), key
                if name in errors:
                    result.errors[full_name] = errors[name][key]
        return result

    def _prepare(self, data: DataModule, subject: Subject, device: torch.device) -> None:
        """Look at the reference, once for a data set, and of text for a number and length of samples."""
        if self._compared == subject:
            return
        reference, wanted = subject.reference(), self._wanted()
        given: dict[str, Tensor] = {}
        if self.extractor is not None and wanted:
            given = reference_outputs(
                reference.content, subject.reference_hash(), self.extractor, wanted, device, self.cache
            )
        share = slice(rank(), None, world())
        self._reference = list(
            batches_of(
                subject.key, reference.mine(rank(), world()), {name: rows[share] for name, rows in given.items()}
            )
        )
        self._compared = subject
        for metric in self.metrics.values():
            if isinstance(metric, NeedsData):
                assert isinstance(data, ImageDataModule)
                metric.prepare(data)

    def _batches(self, subject: Subject, examples: Examples, device: torch.device) -> Iterator[dict[str, Any]]:
        wanted = self._wanted()
        given = (
            {} if self.extractor is None or not wanted else outputs(examples.content, self.extractor, wanted, device)
        )
        yield from batches_of(subject.key, examples, given)


def _subject(data: DataModule, split: Split, prompt_length: int, balanced: bool) -> Subject:
    if isinstance(data, ImageDataModule):
        if prompt_length:
            raise ConfigError(f"evaluation.prompt_length={prompt_length} is for text; the data are image. Use 0.")
        return ImageSubject(data, split, balanced)
    if balanced:
        raise ConfigError("evaluation.balanced_classes=true is for images; the data are text. Leave it out.")
    assert isinstance(data, TextDataModule)
    return TextSubject(data, split, prompt_length)


def _looked_at(metric: Any) -> frozenset[str]:
    return metric.reads | getattr(metric, "optional", frozenset())

"""The evaluation: measures a model, or existing images, by a protocol that makes numbers comparable."""

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
from genlab.errors import ConfigError
from genlab.evaluation.batches import batches_of, computed, update
from genlab.evaluation.bootstrap import bootstrapped, standard_errors
from genlab.evaluation.fitting import check_enough, check_gives, check_samples, check_task, check_told
from genlab.evaluation.pixels_allowed import check_pixels
from genlab.evaluation.protocol import Result, mean
from genlab.evaluation.reference import outputs, reference_outputs
from genlab.files.paths import read_path
from genlab.machine.rank import rank, world
from genlab.metrics.base import (
    EXTRACTED,
    AsksForConditions,
    FeatureExtractor,
    HasInterim,
    HasPictures,
    ModelMetric,
    NeedsData,
    short,
)
from genlab.model.base import GenerativeModel, Model, in_eval_mode
from genlab.model.condition import KINDS
from genlab.model.float32 import exact_float32
from genlab.sampling.best_of import DescribesDraws
from genlab.sampling.examples import Examples
from genlab.task.base import CLASS_MIX, Task
from genlab.task.continue_text import ContinueText
from genlab.task.generate import Generate

_DRAWN_ON_GPU = 256  # samples at a time: fewer leave a GPU idle between its kernels


class Evaluation:
    """Draws ``num_samples`` from a model and measures them against a split of the data; and measures the model itself,
    where a metric does that.

    Sample i is a function of (seed, i); with R ranks, rank r makes and measures samples r, r + R, ... and nothing is
    padded. So the numbers do not depend on the batch size or on the number of devices.
    """

    def __init__(
        self,
        extractor: FeatureExtractor | None,  # None: no metric needs one
        metrics: Mapping[str, Metric],  # by any name; each is a SampleMetric or a ModelMetric
        num_samples: int = 1000,
        reference: Split = "val",  # the whole split that samples are compared with; held-out by default
        seed: int = 0,  # of the samples
        batch_size: int | None = None,  # samples drawn at a time; None: 64, on a GPU 256
        num_seeds: int = 1,  # sets of samples in the full evaluation, seed, seed + 1, ...: means and their spread
        bootstrap: int = 0,  # resamplings of the samples in the full evaluation: standard errors
        cache_dir: str | None = None,  # of features of references; null: $GENLAB_CACHE or ~/.cache/genlab
        task: Task | None = None,  # conditions and reference of samples; None: generate, or continue_text
    ):
        """Raises ConfigError if a value is out of its range, or a metric lacks what it reads."""
        self._drawn_on_gpu = batch_size or _DRAWN_ON_GPU
        batch_size = 64 if batch_size is None else batch_size
        if num_samples < 2 or batch_size < 1:
            raise ConfigError(f"num_samples={num_samples} must be >= 2, batch_size={batch_size} >= 1.")
        if num_seeds < 1 or bootstrap < 0 or bootstrap == 1:
            raise ConfigError(f"num_seeds={num_seeds} must be >= 1, bootstrap={bootstrap} 0 or >= 2.")
        self.extractor, self.task = extractor, task
        # Metric and SampleMetric at once is a type that Python cannot say
        self.of_models: dict[str, Any] = {n: m for n, m in metrics.items() if isinstance(m, ModelMetric)}
        self.metrics: dict[str, Any] = {n: m for n, m in metrics.items() if n not in self.of_models}
        for name, metric in self.metrics.items():
            if extractor is not None:
                check_gives(name, metric.reads & EXTRACTED, extractor)
        quicker = extractor.interim() if isinstance(extractor, HasInterim) else None
        self.num_samples, self.reference, self.seed, self.batch_size = num_samples, reference, seed, batch_size
        self.num_seeds, self.bootstrap = num_seeds, bootstrap
        self.cache = read_path(cache_dir) if cache_dir else default_folder()
        self._prepared: DataModule | None = None  # the data of the next two
        self._bound: Task | None = None  # the task on these data
        self._compared = ""  # the hash of the reference
        self._reference: list[dict[str, Any]] = []  # batches, this rank's share
        self._on_the_way = self  # what makes cheap evaluations
        if quicker is not None:
            self._on_the_way = copy.copy(self)
            self._on_the_way.extractor = quicker
            self._on_the_way._on_the_way = self._on_the_way

    def run(
        self,
        model: Model,
        data: DataModule,
        num_samples: int | None = None,  # for a cheap evaluation with one seed; null: the full one
        *,
        weights: str,  # the weights in use, "ema" or "raw"; part of the protocol
    ) -> Result:
        """Measure samples, and the model itself, as the metrics need.

        Raises:
            NumericsError, DataError: samples are not finite, or not of the data's shape.
            ConfigError: a metric does not fit the data or the model.
        """
        if num_samples and self._on_the_way is not self:
            return self._on_the_way.run(model, data, num_samples, weights=weights)
        self.check(model, data)
        result = Result({}, {**self.on(data).facts(), "metrics": {}})
        with torch.no_grad(), in_eval_mode(model), exact_float32(model.device):
            if self.metrics:
                assert isinstance(model, GenerativeModel)
                count, full = num_samples or self.num_samples, not num_samples
                seeds = range(self.seed, self.seed + (self.num_seeds if full else 1))
                result = mean([self._of_samples(model, data, count, seed, full) for seed in seeds])
            result = self._with_answers(result, model, data)
        return replace(result, protocol=result.protocol | {"weights": weights})

    def check(self, model: Model, data: DataModule) -> None:
        """Raises ConfigError if the task, or a metric, does not fit the model or the data; called before
        training."""
        task = self.on(data)
        check_pixels(self.metrics, self.of_models, self.extractor, data.spec)
        if self.metrics:
            data.check_split(self.reference, "evaluation.reference")
            check_task(self.metrics, self.extractor, task, data.spec)
            if not isinstance(model, GenerativeModel):
                raise ConfigError(
                    f"metrics={next(iter(self.metrics))} measures samples, and a {type(model).__name__} "
                    "draws none. Leave it out of metrics=[...]."
                )
            check_told(self.metrics, task, model)
            check_samples(self.metrics, data.spec, task.gives(model))
            check_enough(self.metrics, task.sized(self.num_samples, model), model, self.num_samples)
        for metric in self.of_models.values():
            metric.check(model, data)

    def score(
        self,
        examples: Examples,  # all of them on every rank
        data: DataModule,
        device: torch.device | str = "cpu",  # where features and metrics are computed
        full: bool = False,  # with bootstrap standard errors, if they are configured
    ) -> Result:
        """Measure given examples, e.g. a baseline's images."""
        check_task(self.metrics, self.extractor, self.on(data), data.spec)
        check_pixels(self.metrics, {}, self.extractor, data.spec)
        check_samples(self.metrics, data.spec, examples.columns)
        mine = examples.mine(rank(), world())
        result = self._measure(mine, len(examples), data, torch.device(device), self.seed, full)
        for error in result.failures.values():
            raise error
        return result

    @staticmethod
    def device_of(model: Model) -> torch.device:
        """The device on which a model's samples are measured."""
        return model.device if model.device.type == "cuda" else torch.device("cpu")  # others lack float64

    def draw(self, model: GenerativeModel, data: DataModule, count: int, seed: int) -> Examples:
        """This rank's share of ``count`` samples."""
        task = self.on(data).sized(count, model)
        batch_size = self._drawn_on_gpu if model.device.type == "cuda" else self.batch_size
        return task.draw(model, range(rank(), count, world()), seed, batch_size)

    def _of_samples(self, model: GenerativeModel, data: DataModule, count: int, seed: int, full: bool) -> Result:
        start, evaluations = time.perf_counter(), model.evaluations
        drawn = self.draw(model, data, count, seed)
        seconds, each = time.perf_counter() - start, (model.evaluations - evaluations) / len(drawn) or None
        result = self._measure(drawn, count, data, self.device_of(model), seed, full)
        asked = self.on(data).asked_facts(model)
        if isinstance(model.drawn_by, DescribesDraws):
            asked = asked | model.drawn_by.facts()
        result = replace(result, protocol=result.protocol | asked) if asked else result
        return replace(result, samples_per_second=count / seconds, evaluations_per_sample=each)

    def _with_answers(self, found: Result, model: Model, data: DataModule) -> Result:
        """Add the numbers of metrics that measure the model, by names that include their subject."""
        result = replace(found, protocol=found.protocol | {"metrics": dict(found.protocol["metrics"])})
        task = self.on(data)
        for name, metric in self.of_models.items():
            metric.to(self.device_of(model)).reset()
            if isinstance(metric, AsksForConditions):
                metric.ask(partial(task.asked, model))  # type: ignore[arg-type]
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
                mix = {CLASS_MIX: task.facts().get(CLASS_MIX)} | task.asked_facts(model)  # type: ignore[arg-type]
            result.protocol["metrics"][name] = metric.settings() | {key: said for key, said in mix.items() if said}
            result.failures.update(failed)
            metric.reset()
        return result

    def on(self, data: DataModule) -> Task:
        """The task on these data."""
        if self._prepared is not data or self._bound is None:
            task = self.task or (ContinueText() if data.spec.kind == "tokens" else Generate())
            self._bound, self._prepared = task.on(data, self.reference), data
            self._compared, self._reference = "", []
        return self._bound

    def _sampling(self, count: int, task: Task) -> dict[str, Any]:
        """The part of the protocol that concerns samples, beside the data."""
        return {
            "extractor": None if self.extractor is None else self.extractor.name,
            "extractor_fingerprint": None if self.extractor is None else self.extractor.fingerprint(),
            "preprocessing": None if self.extractor is None else self.extractor.preprocessing,
            "num_samples": count,
            "metrics": {
                name: metric.settings() | task.condition_facts(_looked_at(metric) & KINDS.keys())
                for name, metric in self.metrics.items()
            },
        }

    def _wanted(self) -> frozenset[str]:
        """The extractor outputs that are needed."""
        return EXTRACTED.intersection(*[frozenset().union(*(m.reads for m in self.metrics.values()))])

    def _measure(
        self, mine: Examples, count: int, data: DataModule, device: torch.device, seed: int, full: bool
    ) -> Result:
        """Numbers of ``count`` samples, of which ``mine`` are this rank's."""
        task = self.on(data).sized(count, mine)
        task.check_examples(mine)
        if min(count, len(task.reference())) < world():
            raise ConfigError(f"fewer examples than devices ({world()}): raise num_samples or use fewer devices.")
        failures: dict[str, Exception] = {}
        for metric in self.metrics.values():
            metric.to(device).reset()
        self._prepare(data, task, device)
        for batch in self._reference:
            update(self.metrics, batch, device, True, failures)
        informed = copy.deepcopy(bootstrapped(self.metrics)) if full and self.bootstrap else {}
        drawn = list(self._batches(task, mine, device))
        for batch in drawn:
            update(self.metrics, batch, device, False, failures)
        found = computed(self.metrics, failures)
        errors = {}
        informed = {name: metric for name, metric in informed.items() if name in found}
        if informed:
            batches = [{k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()} for batch in drawn]
            errors = standard_errors(informed, batches, self.bootstrap, seed)
        protocol = {**task.facts(), "seed": seed, **self._sampling(count, task)}
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
        """Every number by its full name, with extractor and sample count."""
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

    def _prepare(self, data: DataModule, task: Task, device: torch.device) -> None:
        """Feed the reference to the metrics, once per data set, and for text per number and length of samples."""
        if self._compared == task.reference_hash():
            return
        reference, wanted = task.reference(), self._wanted()
        given: dict[str, Tensor] = {}
        if self.extractor is not None and wanted:
            given = reference_outputs(
                reference[task.key], task.reference_hash(), self.extractor, wanted, device, self.cache
            )
        share = slice(rank(), None, world())
        self._reference = list(
            batches_of(reference.mine(rank(), world()), {name: rows[share] for name, rows in given.items()})
        )
        self._compared = task.reference_hash()
        for metric in self.metrics.values():
            if isinstance(metric, NeedsData):
                metric.prepare(data)

    def _batches(self, task: Task, examples: Examples, device: torch.device) -> Iterator[dict[str, Any]]:
        wanted = self._wanted()
        given = (
            {} if self.extractor is None or not wanted else outputs(examples[task.key], self.extractor, wanted, device)
        )
        yield from batches_of(examples, given)


def _looked_at(metric: Any) -> frozenset[str]:
    return metric.reads | getattr(metric, "optional", frozenset())

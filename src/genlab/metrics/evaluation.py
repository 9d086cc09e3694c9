"""The evaluation protocol: the one path from a model, or from a baseline's images, to numbers that can be compared."""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric

from genlab.data.base import DataModule, Split
from genlab.data.image import ImageDataModule, to_uint8
from genlab.data.text import TextDataModule
from genlab.errors import ConfigError, DataError
from genlab.metrics.base import FeatureExtractor, LikelihoodMetric, NeedsData
from genlab.model.base import GenerativeModel, in_eval_mode
from genlab.progress import progress
from genlab.seeding import RandomStream

CHUNK = 64  # images that features are taken of at a time, whatever the batch size: float32 sums depend on it


@dataclass(frozen=True)
class Result:
    """Numbers by name (``fid_digits64_1k``), and what they were measured with."""

    values: dict[str, float]
    protocol: dict[str, Any]
    protocol_id: str  # equal: same extractor, reference, counts, seed; numbers of the same name compare
    samples_per_second: float | None = None  # of a model, on all devices together


class Evaluation:
    """Draws ``num_samples`` from a model and measures them against a split of the data; and asks the model how likely
    that split is, where a metric is of that.

    Sample i is a function of (``seed``, i) and has label i mod classes where the data have labels; with R ranks, rank r
    makes and measures samples r, r + R, ... and nothing is padded. So the numbers do not depend on the batch size or on
    the number of devices. The features of the reference are kept in memory for the next run.
    """

    def __init__(
        self,
        extractor: FeatureExtractor | None,  # None: no metric reads features
        metrics: Mapping[str, Metric],  # by any name; each is a SampleMetric or a LikelihoodMetric
        num_samples: int = 1000,
        reference: Split = "val",  # what samples are compared with, all of it; held-out by default
        seed: int = 0,  # of the samples
        batch_size: int = 64,  # samples drawn at a time; only speed and memory depend on it
    ):
        if num_samples < 2 or batch_size < 1:
            raise ConfigError(f"num_samples={num_samples} must be >= 2, batch_size={batch_size} >= 1.")
        self.extractor = extractor
        # Metric and SampleMetric at once is a type that Python cannot say
        self.likelihoods: dict[str, Any] = {n: m for n, m in metrics.items() if isinstance(m, LikelihoodMetric)}
        self.metrics: dict[str, Any] = {n: m for n, m in metrics.items() if n not in self.likelihoods}
        for name, metric in self.metrics.items():
            if metric.reads_features and extractor is None:
                raise ConfigError(f"metrics={name} needs features of images. Choose metrics/extractor=...")
        self.num_samples, self.reference, self.seed, self.batch_size = num_samples, reference, seed, batch_size
        self._prepared: ImageDataModule | None = None  # the data that the next two are of
        self._reference_hash = ""
        self._reference_chunks: list[dict[str, Tensor]] = []

    def run(
        self,
        model: GenerativeModel,
        data: DataModule,
        num_samples: int | None = None,  # null: the evaluation's own
        *,
        weights: str,  # which of the model's are in place, "ema" or "raw"; for the record
    ) -> Result:
        """Measure, where a metric needs them, ``num_samples`` samples, and the likelihood of the reference.

        Raises:
            DataError: samples are not finite or not of the data's shape.
            ConfigError: a metric does not go with the data or the model.
        """
        values, protocol, speed = {}, {}, None
        if self.metrics:
            samples = self._of_samples(model, data, num_samples or self.num_samples)
            values, protocol, speed = samples.values, samples.protocol, samples.samples_per_second
        if self.likelihoods:
            values |= self._of_likelihood(model, data)
            protocol |= self._text_protocol(data)
        protocol["metrics"] = {name: m.settings() for name, m in (self.metrics | self.likelihoods).items()}
        return Result(values, protocol | {"weights": weights}, _protocol_id(protocol), speed)

    def _of_likelihood(self, model: GenerativeModel, data: DataModule) -> dict[str, float]:
        """By names that say of which kind it is, and of which split."""
        values: dict[str, float] = {}
        with torch.no_grad(), in_eval_mode(model):
            for metric in self.likelihoods.values():
                metric.to(self.device_of(model)).reset()
                metric.measure(model, data, self.reference, self.batch_size)
                kind = model.likelihood_kind  # type: ignore[attr-defined]
                values |= {f"{name}_{kind}_{self.reference}": float(v) for name, v in metric.compute().items()}
                metric.reset()
        return values

    def _text_protocol(self, data: DataModule) -> dict[str, Any]:
        """What two likelihoods of text must share to be compared."""
        assert isinstance(data, TextDataModule), "asked by the metrics"
        return {
            "reference": self.reference,
            "reference_sha256": data.text_hash(self.reference)[:16],
            "tokenizer": data.tokenizer.fingerprint(),
            "vocab_size": data.tokenizer.vocab_size,
            "context": data.context,
        }

    def _of_samples(self, model: GenerativeModel, data: DataModule, count: int) -> Result:
        """Sample, then measure."""
        self._check(data, count)
        assert isinstance(data, ImageDataModule)
        self.check_labels(model)
        start = time.perf_counter()
        images, labels = self.generate(model, data, count)
        samples_per_second = count / (time.perf_counter() - start)
        result = self._measure(images, labels, count, data, self.device_of(model))
        return replace(result, samples_per_second=samples_per_second)

    @staticmethod
    def device_of(model: GenerativeModel) -> torch.device:
        """Where a model's samples are measured."""
        return model.device if model.device.type == "cuda" else torch.device("cpu")  # others lack float64

    def check(self, model: GenerativeModel, data: DataModule) -> None:
        """Raises ConfigError if a metric does not go with the model or the data: before training, not after it."""
        if self.metrics:
            self._check_images(data)
            self.check_labels(model)
        for metric in self.likelihoods.values():
            metric.check(model, data)

    def check_labels(self, model: GenerativeModel) -> None:
        """Raises ConfigError if a metric needs labels and the model takes none."""
        for name, metric in self.metrics.items():
            if metric.reads_labels and model.num_classes is None:
                raise ConfigError(f"metrics={name} needs a model that takes labels. Leave it out of metrics=[...].")

    def score(
        self,
        images: Tensor,  # (N, C, H, W) uint8, all of them on every rank
        labels: Tensor | None,  # (N,)
        data: ImageDataModule,
        device: torch.device | str = "cpu",  # where features and metrics are computed
    ) -> Result:
        """Measure images that are there already, a baseline's for example."""
        self._check(data, len(images))
        mine = slice(_rank(), None, _world())
        my_labels = None if labels is None else labels[mine]
        return self._measure(images[mine], my_labels, len(images), data, torch.device(device))

    def generate(self, model: GenerativeModel, data: ImageDataModule, count: int) -> tuple[Tensor, Tensor | None]:
        """This rank's share of ``count`` samples, uint8 (n, C, H, W) on the CPU, and the labels asked for (n,)."""
        indices = list(range(_rank(), count, _world()))
        labels = torch.tensor(indices) % model.num_classes if model.num_classes is not None else None
        images = []
        title = f"drawing {count:,} samples"
        with torch.no_grad(), in_eval_mode(model), progress(title, len(indices), quiet=_rank() != 0) as advance:
            for start in range(0, len(indices), self.batch_size):
                batch = slice(start, start + self.batch_size)
                stream = RandomStream.for_samples(self.seed, indices[batch], model.device)
                condition = None if labels is None else {"label": labels[batch].to(model.device)}
                images.append(to_uint8(model.sample(len(stream), condition, stream)).cpu())
                advance(len(stream))
        return torch.cat(images), labels

    def _check(self, data: DataModule, count: int) -> None:
        self._check_images(data)
        assert isinstance(data, ImageDataModule)
        if min(count, len(data.table(self.reference))) < _world():
            raise ConfigError(f"fewer examples than devices ({_world()}): raise num_samples or use fewer devices.")

    def _check_images(self, data: DataModule) -> None:
        if not isinstance(data, ImageDataModule):
            names = ", ".join(self.metrics)
            raise ConfigError(
                f"metrics={names}: for images; the data are {data.spec.modality}. Use metrics=[perplexity]."
            )

    def _protocol(self, data: ImageDataModule, count: int) -> dict[str, Any]:
        """What two numbers must share to be compared. ``metrics`` holds each metric's settings as last used."""
        return {
            "extractor": None if self.extractor is None else self.extractor.name,
            "extractor_fingerprint": None if self.extractor is None else self.extractor.fingerprint(),
            "shape": list(data.spec.shape),
            "quantisation": "clamp [-1,1], round to uint8",
            "reference": self.reference,
            "reference_sha256": self._reference_hash,
            "num_reference": len(data.table(self.reference)),
            "num_samples": count,
            "seed": self.seed,
            "metrics": {name: metric.settings() for name, metric in self.metrics.items()},
        }

    def _measure(
        self, images: Tensor, labels: Tensor | None, count: int, data: ImageDataModule, device: torch.device
    ) -> Result:
        """Numbers for ``count`` samples, of which ``images`` are this rank's share."""
        if tuple(images.shape[1:]) != tuple(data.spec.shape):
            raise DataError(f"samples have shape {tuple(images.shape[1:])}, the data {tuple(data.spec.shape)}.")
        for metric in self.metrics.values():
            metric.to(device).reset()
        self._prepare(data, device)
        for chunk in self._reference_chunks:
            self._update(chunk, device, real=True)
        for chunk in self._chunks(images, labels, device):
            self._update(chunk, device, real=False)
        values: dict[str, float] = {}
        for metric in self.metrics.values():
            features = f"{self.extractor.name}_" if self.extractor is not None and metric.reads_features else ""
            subject = f"{features}{_short(count)}"
            values |= {f"{name}_{subject}": float(value) for name, value in metric.compute().items()}
            metric.reset()
        protocol = self._protocol(data, count)
        return Result(values, protocol, _protocol_id(protocol))

    def _prepare(self, data: ImageDataModule, device: torch.device) -> None:
        """Hash the reference and take its features, once for a data set."""
        if self._prepared is data:
            return
        table = data.table(self.reference)
        self._reference_hash = hashlib.sha256(np.ascontiguousarray(table.images).data).hexdigest()[:16]
        mine = slice(_rank(), None, _world())
        labels = None if table.labels is None else torch.from_numpy(table.labels[mine])
        self._reference_chunks = list(self._chunks(torch.from_numpy(table.images[mine]), labels, device))
        for metric in self.metrics.values():
            if isinstance(metric, NeedsData):
                metric.prepare(data)
        self._prepared = data

    def _chunks(self, images: Tensor, labels: Tensor | None, device: torch.device) -> Iterator[dict[str, Tensor]]:
        """Metric batches on the CPU, of this rank's share: its i-th example is number rank + i * world of the set."""
        index = torch.arange(len(images)) * _world() + _rank()
        for start in range(0, len(images), CHUNK):
            rows = slice(start, start + CHUNK)
            batch = {"image": images[rows], "index": index[rows]}
            if self.extractor is not None and any(metric.reads_features for metric in self.metrics.values()):
                batch["features"] = self.extractor.features(images[rows].to(device)).cpu()
            if labels is not None:
                batch["label"] = labels[rows]
            yield batch

    def _update(self, batch: dict[str, Tensor], device: torch.device, real: bool) -> None:
        moved = {key: tensor.to(device) for key, tensor in batch.items()}
        for metric in self.metrics.values():
            metric.update(moved, real=real)


def _protocol_id(protocol: Mapping[str, Any]) -> str:
    """8 hex digits. The choice of metrics is left out: it does not change any one number."""
    shared = {key: value for key, value in protocol.items() if key != "metrics"}
    return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:8]


def _short(count: int) -> str:
    """1000 -> "1k", 50000 -> "50k", 540 -> "540"."""
    return f"{count // 1000}k" if count % 1000 == 0 else str(count)


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1

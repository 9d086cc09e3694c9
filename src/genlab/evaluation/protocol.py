"""Results with the protocol that they were measured by, and ids that tell whether two numbers are comparable."""

import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from genlab.former_names import name_in_ids
from genlab.metrics.base import EXTRACTED, Direction
from genlab.task.base import CLASS_MIX

OF_THE_EXTRACTOR = ("extractor", "extractor_fingerprint", "preprocessing")
OF_SAMPLES = ("seed", "num_samples", "num_windows", "prompt_length", "sample_length", CLASS_MIX)


@dataclass(frozen=True)
class Result:
    """Numbers by name (``fid_digits64_1k``), and the protocol that they were measured by."""

    values: dict[str, float]
    protocol: dict[str, Any]
    directions: dict[str, Direction | None] = field(default_factory=dict)  # which direction is better, by name
    origins: dict[str, tuple[str, frozenset[str]]] = field(default_factory=dict)  # the metric, and what it reads
    keys: dict[str, str] = field(default_factory=dict)  # "fid" of "fid_digits64_1k": the same for any number of samples
    deviations: dict[str, float] = field(default_factory=dict)  # over sampling seeds: standard deviations
    errors: dict[str, float] = field(default_factory=dict)  # bootstrap standard errors of one set of samples
    samples_per_second: float | None = None  # of a model, on all devices together
    evaluations_per_sample: float | None = None  # of the sampling network; None: not counted
    failures: dict[str, Exception] = field(default_factory=dict, compare=False)  # by metric that has no number
    pictures: dict[str, Tensor] = field(default_factory=dict, compare=False)  # (C, H, W) uint8, by what they show

    @property
    def protocol_id(self) -> str:
        """The id of the whole protocol, without the choice of metrics, which does not change any number."""
        return _hash({key: value for key, value in self.protocol.items() if key != "metrics"}) if self.protocol else ""

    @property
    def ids(self) -> dict[str, str]:
        """The id of each number by its name; two numbers with equal ids are comparable."""
        return {name: number_id(self.protocol, *origin) for name, origin in self.origins.items()}

    def report(self) -> dict[str, Any]:
        """The content of ``summary.json`` and ``evaluation-*.json``."""
        return {
            "metrics": self.values,
            "deviations": self.deviations,
            "errors": self.errors,
            "directions": self.directions,
            "ids": self.ids,
            "protocol": self.protocol,
            "protocol_id": self.protocol_id,
            "samples_per_second": self.samples_per_second,
            "evaluations_per_sample": self.evaluations_per_sample,
        }


def number_id(protocol: Mapping[str, Any], metric: str, reads: frozenset[str]) -> str:
    """8 hex digits, a hash of what one metric's numbers depend on: its own settings, the extractor if it reads that,
    and the conditions of samples unless it measures the model itself, and then reads nothing."""
    shared = {key: value for key, value in protocol.items() if key != "metrics"}
    if not reads & EXTRACTED:
        shared = {key: value for key, value in shared.items() if key not in OF_THE_EXTRACTOR}
    if not reads:
        shared = {key: value for key, value in shared.items() if key not in OF_SAMPLES}
    return _hash(shared | {"metric": name_in_ids(metric), "settings": protocol["metrics"][metric]})


def mean(sets: Sequence[Result]) -> Result:
    """The means and standard deviations over several sets of samples of one model with different seeds."""
    first = sets[0]
    if len(sets) == 1:
        return first
    shared = [name for name in first.values if all(name in result.values for result in sets)]
    drawn = {name: [result.values[name] for result in sets] for name in shared}
    return replace(
        first,
        values={name: statistics.fmean(values) for name, values in drawn.items()},
        deviations={name: statistics.stdev(values) for name, values in drawn.items()},
        failures={name: error for result in sets for name, error in result.failures.items()},
        protocol=first.protocol | {"seed": [result.protocol["seed"] for result in sets]},
        samples_per_second=statistics.harmonic_mean([result.samples_per_second or 0.0 for result in sets]),
    )


def _hash(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]

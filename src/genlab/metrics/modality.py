"""Which metrics and extractors go with which data, and with each other."""

from collections.abc import Mapping
from typing import Any

from genlab.errors import ConfigError
from genlab.metrics.base import EXTRACTED, KEYS, FeatureExtractor


def check_modality(metrics: Mapping[str, Any], extractor: FeatureExtractor | None, kind: str) -> None:
    """Raises ConfigError if a metric of samples, by name, or its features are not for data of this ``kind``."""
    other, suited = {"image": ("text", "metrics=[fid]"), "text": ("image", "metrics=[perplexity]")}[kind]
    for name, metric in metrics.items():
        if metric.reads & KEYS[other]:
            raise ConfigError(f"metrics={name} is for {other}s; the data are {kind}. Use {suited}.")
        if not metric.reads & EXTRACTED:
            continue
        if extractor is None and kind == "image":
            raise ConfigError(f"metrics={name} needs features of images. Choose metrics/extractor=...")
        if kind == "text" and (extractor is None or extractor.modality != kind):
            raise ConfigError(
                f"metrics={name} is for images, or for texts with features of texts; the data are "
                f"text. Use {suited}, or choose metrics/extractor=ngrams."
            )
        if extractor is not None and extractor.modality != kind:
            raise ConfigError(
                f"metrics={name}: the extractor {extractor.name} is for {extractor.modality}s; the data are {kind}."
            )


def check_gives(name: str, needed: frozenset[str], extractor: FeatureExtractor) -> None:
    """Raises ConfigError if the metric ``name`` reads what the extractor does not give."""
    if not needed <= extractor.gives:
        lacking = ", ".join(sorted(needed - extractor.gives))
        raise ConfigError(
            f"metrics={name} needs {lacking}, which metrics/extractor={extractor.name} does not give. "
            "Use metrics/extractor=inception."
        )

"""Checks that metrics support the bits and channels of the images."""

from collections.abc import Mapping
from typing import Any

from genlab.data.base import DataSpec
from genlab.errors import ConfigError
from genlab.metrics.base import EXTRACTED, FeatureExtractor
from genlab.metrics.distance.lpips import LPIPS


def check_pixels(
    metrics: Mapping[str, Any], of_models: Mapping[str, Any], extractor: FeatureExtractor | None, spec: DataSpec
) -> None:
    """Raises ConfigError if a metric, by name, cannot be measured on images of this ``spec``."""
    if spec.modality != "image":
        return
    if spec.bits != 8 and (names := [*metrics, *of_models]):
        raise ConfigError(
            f"metrics={names[0]} needs 8 bits a channel, and the data have {spec.bits}. Train without "
            "metrics: metrics=[], or on 8 bits."
        )
    channels = spec.shape[0]
    if channels in (1, 3):
        return
    for name, metric in {**metrics, **of_models}.items():
        reads: frozenset[str] = getattr(metric, "reads", frozenset())
        by = f"features of {extractor.name}" if extractor is not None and reads & EXTRACTED else ""
        by = by or ("LPIPS" if any(isinstance(part, LPIPS) for part in vars(metric).values()) else "")
        if by:
            raise ConfigError(
                f"metrics={name}: {by} need gray or RGB images, and the data have {channels} channels. Use "
                "metrics=[nearest_neighbor,sharpness,noise_level], or metrics=[]."
            )

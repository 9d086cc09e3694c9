"""Checks that data are text or images, for metrics that measure the model."""

from typing import cast

from genlab.data.base import DataModule
from genlab.data.image import ImageDataModule
from genlab.data.text import TextDataModule
from genlab.errors import ConfigError


def text_of(data: DataModule, metric: str) -> TextDataModule:
    """Raises ConfigError if the data are not text. ``metric``: its name, for the message."""
    if data.spec.modality != "text":
        raise ConfigError(f"metrics={metric} is for text; the data are {data.spec.modality}.")
    return cast(TextDataModule, data)


def images_of(data: DataModule, metric: str) -> ImageDataModule:
    """Raises ConfigError if the data are not images."""
    if data.spec.modality != "image":
        raise ConfigError(f"metrics={metric} is for images; the data are {data.spec.modality}.")
    return cast(ImageDataModule, data)

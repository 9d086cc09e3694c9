"""Checks that a model heeds which predictions count, and which tokens of a row belong together."""

import inspect
from collections.abc import Mapping
from typing import Any

from genlab.config.build import resolve
from genlab.errors import ConfigError
from genlab.model.base import Model


def check_counts(config: Mapping[str, Any], family: Any) -> None:
    """Raises ConfigError: the data say which predictions count, and the loss of the family would ignore it."""
    if _says_what_counts(config) and not getattr(family, "counts_some", False):
        raise ConfigError(
            f"{family.__name__} cannot be trained on conversations, of which only answers count. Use model=transformer."
        )


def check_segments(config: Mapping[str, Any], model: Model) -> None:
    """Raises ConfigError: rows hold several conversations, and the network cannot tell them apart."""
    network = getattr(model, "network", None)
    if network is None or not _says_what_counts(config) or not config["data"].get("packing", False):
        return
    if "segment" not in inspect.signature(network.forward).parameters:
        raise ConfigError(
            f"the network {type(network).__name__} does not tell apart several conversations of a row. Use "
            "data.packing=false."
        )


def _says_what_counts(config: Mapping[str, Any]) -> bool:
    if "data" not in config:  # a model is made again without them
        return False
    return bool(getattr(resolve(config["data"]["_target_"], "data"), "counts_some", False))

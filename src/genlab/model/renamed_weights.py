"""Former names of weights: label embeddings before there were other conditions."""

import re
from collections.abc import Container, Mapping
from typing import Any, TypeVar

T = TypeVar("T")

_BEFORE = re.compile(r"(^|\.)label\.")


def renamed(weights: Mapping[str, T], own: Container[str]) -> dict[str, T]:
    """``weights`` by the names that a model has, ``own``. A name that the model has is left alone, whatever it is."""
    return {_name(name, own): value for name, value in weights.items()}


def _name(name: str, own: Container[str]) -> str:
    now = _BEFORE.sub(r"\1told.label.", name)
    return now if name not in own and now in own else name


def rename_loaded(checkpoint: dict[str, Any], own: Container[str]) -> None:
    """In a checkpoint that is about to be loaded: the weights, and their averages."""
    for part in ("state_dict", "ema"):
        if part in checkpoint:
            checkpoint[part] = renamed(checkpoint[part], own)

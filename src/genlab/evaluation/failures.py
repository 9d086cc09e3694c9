"""Metrics that fail: skipped in periodic evaluations, an error at the end of a run after everything is written."""

from collections.abc import Mapping
from pathlib import Path

import torch.distributed as dist

from genlab.errors import DataError, GenlabError


def in_words(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, GenlabError) else f"{type(error).__name__}: {text.rstrip('.')}."


def of_all_ranks(failures: Mapping[str, Exception]) -> dict[str, Exception]:
    """The failures of every rank, by metric, on every rank: a metric must not be computed by only some of them."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return dict(failures)
    told: list[dict[str, str]] = [{}] * dist.get_world_size()
    dist.all_gather_object(told, {name: in_words(error) for name, error in failures.items()})
    others = {name: DataError(text) for said in told for name, text in said.items()}
    return {**others, **failures}


def raise_first(failures: Mapping[str, Exception], written: Path) -> None:
    """Raises the first failure, in its own class or as a DataError, and says where the other numbers are."""
    for name, error in failures.items():
        kind = type(error) if isinstance(error, GenlabError) else DataError
        raise kind(f"metrics={name} could not be computed: {in_words(error)} All others are in {written}.") from error

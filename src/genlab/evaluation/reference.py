"""Extractor outputs for the reference, cached on disk in files that any machine can use.

``<cache>/reference-<key>.npy`` and its seal ``.json`` are named by a hash of the reference, of the extractor and of its
settings, so they can be copied into another machine's cache.
"""

import logging
from collections.abc import Sequence
from functools import cache as cache_calls
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genlab.data.array_cache import cached_array, digest
from genlab.errors import StorageError
from genlab.machine.rank import rank
from genlab.metrics.base import FeatureExtractor
from genlab.progress import progress

_log = logging.getLogger(__name__)

CHUNK = 64  # examples processed together, for any batch size, since float32 sums depend on it


def reference_outputs(
    examples: Tensor | Sequence[str],  # the reference: uint8 (N, C, H, W), or N texts
    examples_hash: str,
    extractor: FeatureExtractor,
    wanted: frozenset[str],
    device: torch.device,
    cache: Path,
) -> dict[str, Tensor]:
    """Each of ``wanted``, float32 (N, ...): mapped from the cache, or made in one pass over the examples.

    Processes that want the same wait for the one that makes it. A cache that cannot be written is a warning.
    """
    made: dict[str, np.ndarray] = {}

    def rows(output: str) -> Any:
        if output not in made:
            made.update({name: rows.numpy() for name, rows in outputs(examples, extractor, wanted, device).items()})
        yield made[output]

    found = {}
    for output in sorted(wanted):
        key = f"reference-{digest(1, examples_hash, extractor.fingerprint(), output)}"
        try:
            array = cached_array(cache, key, partial(rows, output))
        except StorageError as error:  # not worth ending a training: they can be computed again
            _warn_once(f"{error} Features of the reference are computed again by every process until then.")
            (array,) = rows(output)
        found[output] = torch.from_numpy(np.asarray(array))
    return found


@cache_calls
def _warn_once(message: str) -> None:
    _log.warning(message)


def outputs(
    examples: Tensor | Sequence[str], extractor: FeatureExtractor, wanted: frozenset[str], device: torch.device
) -> dict[str, Tensor]:
    """The extractor's outputs for examples, on the CPU, in the order of the examples."""
    chunks: list[dict[str, Tensor]] = []
    with progress(f"extracting features of {len(examples):,} examples", len(examples), quiet=rank() != 0) as advance:
        for start in range(0, len(examples), CHUNK):
            part: Any = examples[start : start + CHUNK]
            given = extractor.extract(part.to(device) if isinstance(part, Tensor) else part, wanted)
            chunks.append({name: rows.cpu() for name, rows in given.items()})
            advance(len(part))
    return {name: torch.cat([chunk[name] for chunk in chunks]) for name in wanted}

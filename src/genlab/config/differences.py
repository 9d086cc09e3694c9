"""The differences between two plain configs."""

from collections.abc import Mapping
from typing import Any


def differences(before: Any, now: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    """The values that differ between two plain configs, by their path: what they were, what they are."""
    if not (isinstance(before, Mapping) and isinstance(now, Mapping)):
        return {} if before == now else {path: (before, now)}
    found: dict[str, tuple[Any, Any]] = {}
    for key in dict.fromkeys([*before, *now]):
        found |= differences(before.get(key), now.get(key), f"{path}.{key}" if path else str(key))
    return found

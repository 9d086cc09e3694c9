"""Counts as people type them: ``64k``, ``2M``, ``1e6``."""

import re
from typing import Any

from omegaconf import DictConfig, OmegaConf

_UNITS = {"k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12}
_TYPED = re.compile(r"(\d[\d_]*(?:\.\d+)?)\s?([kKMGBT])")
_COUNTS = ("data.limit", "data.batch_size", "evaluation.num_samples", "callbacks.evaluation.num_samples")
_OF_EXAMPLES = "genlab.budget.Examples"


def as_number(value: Any) -> Any:
    """``64k`` -> 64000, ``1.5M`` -> 1500000, ``0.0005k`` -> 0.5. Other values are returned unchanged."""
    found = _TYPED.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return value
    digits, unit = found[1].replace("_", ""), _UNITS[found[2]]
    whole, _, fraction = digits.partition(".")
    numerator, denominator = int(whole + fraction) * unit, 10 ** len(fraction)  # exact: 4.35k is 4350
    return numerator // denominator if numerator % denominator == 0 else numerator / denominator


def as_count(value: Any) -> Any:
    """As :func:`as_number`, and a whole number is one however it was written: ``1e6`` -> 1000000."""
    number = as_number(value)
    return int(number) if isinstance(number, float) and number.is_integer() else number


def read_quantities(config: DictConfig) -> None:
    """Replace counts that were typed with a unit or an exponent by numbers; the rest is unchanged."""
    for path in (*_COUNTS, "budget.value"):
        above, _, name = path.rpartition(".")
        node = OmegaConf.select(config, above, throw_on_missing=False)
        if not isinstance(node, DictConfig) or name not in list(node):
            continue
        value = node._get_node(name)._value()  # type: ignore[union-attr]
        is_count = path != "budget.value" or node.get("_target_") == _OF_EXAMPLES
        number = as_count(value) if is_count else as_number(value)
        if number is not value:
            node[name] = number

"""Reads ``label=`` and ``prompt=`` as conditions of the model."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from genlab.errors import ConfigError
from genlab.model.base import GenerativeModel
from genlab.model.condition_kind import ConditionKind, Label
from genlab.sampling.form import Typed


def read_typed(model: GenerativeModel, typed: Typed, run: Path) -> dict[str, Tensor]:
    """The values of ``label=`` or ``prompt=``, one or several each, as rows of a condition by its key.

    Raises ConfigError for a condition that the model of ``run`` does not take.
    """
    found = {}
    for option, values in typed.items():
        if values is None:
            continue
        key, kind = next(((k, v) for k, v in model.conditions.kinds.items() if v.option == option), (None, None))
        if key is None or kind is None:
            known = " or ".join(f"{kind.option}=..." for kind in model.conditions.kinds.values())
            what = f"{option}s" if option == Label.option else option
            raise ConfigError(
                f"{option}={shown(values)}: the model of {run} takes no {what}."
                + (f" It takes {known}" if known else "")
            )
        found[key] = read_each(kind, values)
    return found


def read_each(kind: ConditionKind, values: Sequence[int | str]) -> Tensor:
    """Values of an option as rows. Raises ConfigError: one is not of this kind."""
    try:
        return torch.cat([kind.read(value) for value in values])
    except ValueError as error:
        raise ConfigError(f"{kind.option}={shown(values)}: {error}") from error


def shown(values: Sequence[int | str]) -> str:
    """Values as they are typed."""
    return str(values[0]) if len(values) == 1 else f"[{','.join(map(str, values))}]"

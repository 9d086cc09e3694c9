"""Reads ``label=`` and ``prompt=`` as conditions of the model."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from genlab.errors import ConfigError
from genlab.model.base import Condition, GenerativeModel
from genlab.model.condition_kind import Caption, ConditionKind, Label
from genlab.sampling.form import Typed


def read_typed(
    model: GenerativeModel, typed: Typed, run: Path, named: Mapping[str, str] | None = None
) -> dict[str, Tensor]:
    """The values of ``label=`` or ``prompt=``, one or several each, as rows of a condition by its key. ``named``:
    options that were typed by another name.

    Raises ConfigError for a condition that the model of ``run`` does not take.
    """
    found = {}
    names = {kind.option: kind.option for kind in model.conditions.kinds.values()} | dict(named or {})
    for option, values in typed.items():
        if values is None:
            continue
        name = names.get(option, option)
        key, kind = next(((k, v) for k, v in model.conditions.kinds.items() if v.option == option), (None, None))
        if key is None or kind is None:
            known = " or ".join(f"{names[kind.option]}=..." for kind in model.conditions.kinds.values())
            what = f"{option}s" if option == Label.option else option
            raise ConfigError(
                f"{name}={shown(values)}: the model of {run} takes no {what}." + (f" It takes {known}" if known else "")
            )
        found[key] = read_each(kind, values, name)
    return found


def read_negative(model: GenerativeModel, caption: str | None, label: int | str | None, run: Path) -> Condition:
    """The values of ``negative=`` and ``negative_label=`` as one row of a condition; empty if neither is typed.

    Raises ConfigError for a condition that the model of ``run`` does not take.
    """
    typed = {
        Caption.option: None if caption is None else [caption],
        Label.option: None if label is None else [label],
    }
    return read_typed(model, typed, run, {Caption.option: "negative", Label.option: "negative_label"})


def read_each(kind: ConditionKind, values: Sequence[int | str], name: str | None = None) -> Tensor:
    """Values of an option as rows; ``name``: as it was typed. Raises ConfigError: one is not of this kind."""
    try:
        return torch.cat([kind.read(value) for value in values])
    except ValueError as error:
        raise ConfigError(f"{name or kind.option}={shown(values)}: {error}") from error


def shown(values: Sequence[int | str]) -> str:
    """Values as they are typed."""
    return str(values[0]) if len(values) == 1 else f"[{','.join(map(str, values))}]"

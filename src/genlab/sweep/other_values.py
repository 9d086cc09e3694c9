"""Axes whose values have changed since the sweep began, e.g. a longer list.

Optuna keeps one distribution for a parameter of a study, so changed values get another name there:
``model``, then ``model #2``. Results of earlier trials are added under the new name, where their values can
still be drawn, so that the sampler loses nothing.
"""

from collections.abc import Mapping
from itertools import count
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    IntDistribution,
    check_distribution_compatibility,
)
from optuna.study import Study
from optuna.trial import TrialState, create_trial


def stored_names(study: Study, distributions: Mapping[str, BaseDistribution]) -> dict[str, str]:
    """The name that each axis has in the study; a new one if the study knows it with other values."""
    trials = study.get_trials(deepcopy=False)
    known = {name: d for trial in trials for name, d in trial.distributions.items()}
    names = {axis: _name(axis, d, known) for axis, d in distributions.items()}
    fresh = {axis: name for axis, name in names.items() if name not in known and axis in known}
    for trial in trials if fresh else []:
        if trial.state != TrialState.COMPLETE:
            continue
        values = {axis: _translated(_newest(trial.params, axis), distributions[axis]) for axis in fresh}
        told = {fresh[axis]: value for axis, value in values.items() if value is not None}
        if told:
            kinds = {fresh[axis]: distributions[axis] for axis in fresh if values[axis] is not None}
            study.add_trial(create_trial(params=told, distributions=kinds, value=trial.value))
    return names


def _name(axis: str, distribution: BaseDistribution, known: Mapping[str, BaseDistribution]) -> str:
    for number in count(1):
        name = _numbered(axis, number)
        if name not in known:
            return name
        try:
            check_distribution_compatibility(known[name], distribution)
        except ValueError:
            continue
        return name
    raise AssertionError("there is always another number")


def _numbered(axis: str, number: int) -> str:
    return axis if number == 1 else f"{axis} #{number}"


def _newest(params: Mapping[str, Any], axis: str) -> Any:
    """A trial's value of an axis, under its newest name; None: it has none."""
    found = [value for name, value in params.items() if name == axis or name.startswith(f"{axis} #")]
    return found[-1] if found else None


def holds(distribution: BaseDistribution, value: Any) -> bool:
    """Whether ``distribution`` can draw a value."""
    return _translated(value, distribution) is not None


def _translated(value: Any, distribution: BaseDistribution) -> Any:
    """A value converted to the type that ``distribution`` draws; None: it cannot."""
    if value is None:
        return None
    if isinstance(distribution, CategoricalDistribution):
        typed = value if isinstance(value, str) else repr(value)
        return typed if typed in distribution.choices else None
    try:
        number = int(value) if isinstance(distribution, IntDistribution) else float(value)
    except ValueError:
        return None
    inside = distribution.low <= number <= distribution.high  # type: ignore[attr-defined]
    step = distribution.step  # type: ignore[attr-defined]
    steps = 0.0 if step is None else (number - distribution.low) / step  # type: ignore[attr-defined]
    return number if inside and abs(steps - round(steps)) < 1e-6 else None

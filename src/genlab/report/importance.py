"""Importance of a sweep's settings for its metric."""

import math
import statistics
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from genlab.report.figure import spans
from genlab.report.trials import Sweep, Trial, given

FEWEST = 8  # fewest trials for an importance
MOST = 256  # trials that forests are grown on; of more, evenly spaced ones
FORESTS = 5  # that importances are averaged over
TREES = 32  # of a forest
ABSENT = "–"


@dataclass(frozen=True)
class Setting:
    """What the trials were given for one name."""

    name: str
    texts: list[str]  # of each trial
    numbers: list[float] | None  # the same, if all of them are

    @property
    def is_log(self) -> bool:
        return self.numbers is not None and spans(self.numbers, 30)

    @property
    def choices(self) -> list[str]:
        return list(dict.fromkeys(sorted(self.texts)))

    def places(self) -> list[float]:
        """Of each trial on an axis from 0 to 1."""
        if self.numbers is None:
            choices = self.choices
            return [choices.index(text) / max(1, len(choices) - 1) for text in self.texts]
        values = [math.log(n) for n in self.numbers] if self.is_log else self.numbers
        low, high = min(values), max(values)
        return [(value - low) / (high - low) if high > low else 0.5 for value in values]

    def ticks(self) -> list[tuple[float, str]]:
        if self.numbers is None or len(set(self.numbers)) <= 5:
            return sorted(set(zip(self.places(), self.texts, strict=True)))
        low, high = min(self.numbers), max(self.numbers)
        shares = (0, 0.25, 0.5, 0.75, 1)
        values = [low * (high / low) ** s if self.is_log else low + (high - low) * s for s in shares]
        return [(s, f"{value:.3g}") for s, value in zip(shares, values, strict=True)]


@dataclass(frozen=True)
class Share:
    """The share of the metric's variance that a setting explains: mean and standard deviation over forests."""

    name: str
    mean: float
    spread: float


def judged(sweep: Sweep) -> list[Trial]:
    """The trials with a value; none if they are too few or all alike."""
    trials = [t for t in sweep.trials if t.state == "finished" and t.value is not None and math.isfinite(t.value)]
    enough = len(trials) >= FEWEST and len({trial.value for trial in trials}) > 1 and settings_of(trials)
    return trials if enough else []


def some(trials: Sequence[Trial]) -> Sequence[Trial]:
    """At most MOST of them, evenly spaced."""
    return trials[:: -(-len(trials) // MOST)]


@cache
def what_mattered(sweep: Sweep) -> tuple[Share, ...]:
    """The shares, greatest first; empty if there are too few trials, or, with a warning, if a package is missing."""
    trials = judged(sweep)
    if not trials:
        return ()
    looked_at = some(trials)
    try:
        shares = importance(settings_of(looked_at), [trial.value for trial in looked_at if trial.value is not None])
    except ModuleNotFoundError:
        warnings.warn("no importance of settings: it needs a package. Install it: pip install optuna", stacklevel=2)
        return ()
    found = [Share(name, statistics.fmean(values), statistics.stdev(values)) for name, values in shares.items()]
    return tuple(sorted(found, key=lambda share: -share.mean))


def settings_of(trials: Sequence[Trial]) -> list[Setting]:
    """The settings that differ between trials."""
    own = [given(trial) for trial in trials]
    found = []
    for name in dict.fromkeys(name for settings in own for name in settings):
        texts = [settings.get(name, ABSENT) for settings in own]
        if len(set(texts)) > 1:
            found.append(Setting(name, texts, _numbers(texts)))
    return found


def _numbers(texts: Sequence[str]) -> list[float] | None:
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def importance(settings: Sequence[Setting], values: Sequence[float]) -> dict[str, list[float]]:
    """The share of the metric's variance that each setting explains alone or with others (functional ANOVA, Hutter et
    al. 2014, by Optuna), by several random forests."""
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions: dict[str, BaseDistribution] = {}
    for s in settings:
        distributions[s.name] = (
            CategoricalDistribution(s.choices)
            if s.numbers is None
            else FloatDistribution(min(s.numbers), max(s.numbers), log=s.is_log)
        )
    study = optuna.create_study()
    for i, value in enumerate(values):
        params: dict[str, Any] = {s.name: s.texts[i] if s.numbers is None else s.numbers[i] for s in settings}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=value))
    found: dict[str, list[float]] = {s.name: [] for s in settings}
    for seed in range(FORESTS):
        evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, seed=seed)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
        for name in found:
            found[name].append(float(shares.get(name, 0.0)))
    return found

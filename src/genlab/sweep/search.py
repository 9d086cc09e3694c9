"""Search with a sampler of Optuna."""

from collections.abc import Sequence
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler

from genlab.errors import ConfigError
from genlab.sweep.ledger import Ledger, Trial
from genlab.sweep.space import Axis, Space, folder_of

_MOST_REPEATS = 30  # repeated draws of existing trials before the next unused combination is taken, if they are finite


class Search:
    """``sweep=optuna``: ``n_trials`` trials in all."""

    judges = True

    def __init__(self, sampler: BaseSampler, n_trials: int = 20):
        if n_trials < 1:
            raise ConfigError(f"sweep.n_trials={n_trials} must be a whole number >= 1.")
        self.sampler, self.n_trials = sampler, n_trials
        self._begun = False

    def check(self, space: Space) -> None:
        if not space.axes:
            raise ConfigError(
                "there is nothing to draw. Name values: model=gan,vae or "
                "'model.optimizer.lr=tag(log, interval(1e-5, 1e-3))'."
            )

    def planned(self, space: Space, ledger: Ledger) -> list[Trial]:
        return ledger.trials()

    def next(self, space: Space, ledger: Ledger) -> Trial | None:
        """A trial with new values; None: there are enough, or no others."""
        begun = ledger.trials()
        if not self._begun and begun:
            self.sampler.reseed_rng()  # else the same values would be drawn again
        self._begun = True
        ledger.study.sampler = self.sampler
        most = min(self.n_trials, space.size() or self.n_trials)
        if len(begun) >= most:
            return None
        distributions = {axis.name: distribution(axis) for axis in space.axes}
        names = ledger.names_of(distributions)
        stored = {names[axis]: kind for axis, kind in distributions.items()}
        for _ in range(_MOST_REPEATS):
            trial = ledger.draw(
                stored, lambda drawn: space.overrides(typed({axis: drawn[name] for axis, name in names.items()})), most
            )
            if trial is not None or len(ledger.trials()) >= most:
                return trial
        return self._left_over(space, ledger, distributions, names) if space.size() else None

    def _left_over(
        self, space: Space, ledger: Ledger, distributions: dict[str, BaseDistribution], names: dict[str, str]
    ) -> Trial | None:
        """The first combination that was never drawn."""
        begun = ledger.trials()
        folders = {trial.folder for trial in begun}
        for values in space.combinations():
            overrides = space.overrides(values)
            if folder_of(overrides) not in folders:
                params = {
                    names[n]: v if isinstance(distributions[n], CategoricalDistribution) else float(v)
                    for n, v in values.items()
                }
                kinds = {names[n]: kind for n, kind in distributions.items()}
                fresh = Trial(len(begun), folder_of(overrides), overrides, params=params, distributions=kinds)
                return ledger.claim(fresh)
        return None

    def wanted(self, space: Space, trials: Sequence[Trial]) -> list[Trial]:
        return [trial for trial in trials if space.gives(trial.overrides)]

    def told(self, trial: Trial) -> None:
        pass  # the sampler reads the ledger


def distribution(axis: Axis) -> BaseDistribution:
    if axis.high <= axis.low:
        return CategoricalDistribution(axis.values)
    is_whole = isinstance(axis.low, int) and isinstance(axis.high, int)
    step = None if axis.log else axis.step
    if is_whole:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log, step=1 if step is None else int(step))
    return FloatDistribution(axis.low, axis.high, log=axis.log, step=step)


def typed(drawn: dict[str, Any]) -> dict[str, str]:
    """Values as they would be typed."""
    return {name: value if isinstance(value, str) else repr(value) for name, value in drawn.items()}

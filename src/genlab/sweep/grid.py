"""Grid search: every combination of the given values."""

from collections.abc import Sequence

from genlab.sweep.ledger import Ledger, Trial
from genlab.sweep.space import Space, folder_of


class Grid:
    """``sweep=grid``: a Cartesian product."""

    judges = False

    def __init__(self) -> None:
        self._spaces: dict[Space, dict[str, list[str]]] = {}

    def _named(self, space: Space) -> dict[str, list[str]]:
        """The overrides of every combination, by folder: made once."""
        if space not in self._spaces:
            every = map(space.overrides, space.combinations())
            self._spaces[space] = {folder_of(overrides): overrides for overrides in every}
        return self._spaces[space]

    def planned(self, space: Space, ledger: Ledger) -> list[Trial]:
        begun = {trial.folder: trial for trial in ledger.trials()}
        fresh = [(folder, overrides) for folder, overrides in self._named(space).items() if folder not in begun]
        waiting = [Trial(len(begun) + i, folder, overrides) for i, (folder, overrides) in enumerate(fresh)]
        return [*begun.values(), *waiting]

    def next(self, space: Space, ledger: Ledger) -> Trial | None:
        for trial in self.planned(space, ledger):
            if trial.state == "waiting" and (claimed := ledger.claim(trial)):
                return claimed
        return None

    def wanted(self, space: Space, trials: Sequence[Trial]) -> list[Trial]:
        named = self._named(space)
        return [t for t in trials if t.folder in named and sorted(t.overrides) == sorted(named[t.folder])]

    def check(self, space: Space) -> None:
        space.combinations()

    def told(self, trial: Trial) -> None:
        pass  # results do not matter

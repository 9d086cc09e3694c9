"""Every combination of the values that were typed."""

from collections.abc import Sequence

from genlab.sweep.ledger import Ledger, Trial
from genlab.sweep.space import Space, folder_of


class Grid:
    """``sweep=grid``: a Cartesian product."""

    judges = False

    def planned(self, space: Space, ledger: Ledger) -> list[Trial]:
        begun = {trial.folder: trial for trial in ledger.trials()}
        wanted = {folder_of(overrides): overrides for overrides in map(space.overrides, space.combinations())}
        fresh = [(folder, overrides) for folder, overrides in wanted.items() if folder not in begun]
        waiting = [Trial(len(begun) + i, folder, overrides) for i, (folder, overrides) in enumerate(fresh)]
        return [*begun.values(), *waiting]

    def next(self, space: Space, ledger: Ledger) -> Trial | None:
        for trial in self.planned(space, ledger):
            if trial.state == "waiting" and (claimed := ledger.claim(trial)):
                return claimed
        return None

    def wanted(self, space: Space, trials: Sequence[Trial]) -> list[Trial]:
        named = {folder_of(overrides) for overrides in map(space.overrides, space.combinations())}
        return [trial for trial in trials if trial.folder in named]

    def check(self, space: Space) -> None:
        space.combinations()

    def told(self, trial: Trial) -> None:
        pass  # it changes nothing

"""Where a sweep's trials come from."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from genlab.sweep.ledger import Ledger, Trial
from genlab.sweep.space import Space


@runtime_checkable
class Proposals(Protocol):
    judges: bool  # what it proposes depends on what earlier trials were worth

    def check(self, space: Space) -> None:
        """Raises ConfigError if nothing can be proposed from ``space``."""

    def planned(self, space: Space, ledger: Ledger) -> list[Trial]:
        """All trials, begun or waiting, as far as they are known in advance."""

    def next(self, space: Space, ledger: Ledger) -> Trial | None:
        """A new trial, claimed; None: there are no more."""

    def wanted(self, space: Space, trials: Sequence[Trial]) -> list[Trial]:
        """Those of the ledger's that this command could have begun. Others are never run, whoever wrote them down."""

    def told(self, trial: Trial) -> None:
        """A trial has ended."""

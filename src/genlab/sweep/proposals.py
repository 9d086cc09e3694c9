"""The protocol of classes that propose a sweep's trials."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from genlab.sweep.ledger import Ledger, Trial
from genlab.sweep.space import Space


@runtime_checkable
class Proposals(Protocol):
    judges: bool  # its proposals depend on the values of earlier trials

    def check(self, space: Space) -> None:
        """Raises ConfigError if nothing can be proposed from ``space``."""

    def planned(self, space: Space, ledger: Ledger) -> list[Trial]:
        """All trials, started or waiting, as far as they are known in advance."""

    def next(self, space: Space, ledger: Ledger) -> Trial | None:
        """A new trial, claimed; None: there are no more."""

    def wanted(self, space: Space, trials: Sequence[Trial]) -> list[Trial]:
        """The ledger's trials that this command could have started. Others are never run."""

    def told(self, trial: Trial) -> None:
        """A trial has ended."""

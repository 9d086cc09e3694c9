"""What stand-ins for models are told."""

from genlab.model.condition import Conditions
from genlab.model.condition_kind import ConditionKind, Label


def labels(size: int | None) -> dict[str, ConditionKind]:
    """Of so many classes; None: nothing."""
    return {} if size is None else {"label": Label(size)}


def classes(size: int | None) -> Conditions:
    return Conditions(labels(size))

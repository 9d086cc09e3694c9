"""The conditions of a model: which it uses, how often training drops them, and the defaults for samples."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from genlab.errors import did_you_mean
from genlab.model.condition_kind import KINDS as KINDS
from genlab.model.condition_kind import Condition as Condition
from genlab.model.condition_kind import ConditionKind as ConditionKind
from genlab.model.condition_kind import Device, Drawn, Label
from genlab.seeding import RandomStream


def kinds_of(told: Mapping[str, Any], wanted: Sequence[str] | None) -> dict[str, ConditionKind]:
    """The condition kinds of a model, by key. ``told``: the data's conditions, from the config's ``spec.condition``;
    ``wanted``: the keys that a user chose, None: the label, if the data have one.

    Raises ValueError, in a sentence, for a key that the data lack.
    """
    known = {key: node for key, node in told.items() if key in KINDS and node and node.get("size") is not None}
    if wanted is None:
        wanted = [key for key in known if KINDS[key] is Label]
    for key in wanted:
        if key not in known:
            has = f"they have {' and '.join(known)}" if known else "they have no conditions"
            raise ValueError(
                f"model.conditions=[{','.join(wanted)}]: the data have no {key}, {has}."
                f"{did_you_mean(key, list(known))} Use model.conditions=[{','.join(known)}]."
            )
    return {key: KINDS[key](**known[key]) for key in wanted}


def told_to(factory: Callable[..., Any], kinds: Mapping[str, ConditionKind]) -> dict[str, Any]:
    """The argument ``told`` for what ``factory`` makes, if it takes one; networks may be unconditional."""
    return {"told": kinds} if "told" in inspect.signature(factory).parameters else {}


@dataclass(frozen=True)
class Conditions:
    """The conditions of a model by key, and the share of training examples whose conditions are dropped.

    A single ``dropout`` hides all keys of an example together, which is what guidance needs; a mapping hides each
    independently, and never those that it lacks.
    """

    kinds: Mapping[str, ConditionKind] = field(default_factory=dict)
    dropout: float | Mapping[str, float] = 0.0

    def __post_init__(self) -> None:
        """Raises ValueError: a share outside [0, 1], or of a condition that the model does not have."""
        shares = self.dropout if isinstance(self.dropout, Mapping) else {"": self.dropout}
        for key, share in shares.items():
            name = f"model.condition_dropout{'.' * bool(key)}{key}"
            if not 0 <= share <= 1:
                raise ValueError(f"{name}={share} is outside [0, 1]. It is a share of the examples.")
            if key and key not in self.kinds:
                raise ValueError(
                    f"{name}: the model is not conditioned on a {key}. Add it to model.conditions, or leave it out."
                )

    @classmethod
    def told(
        cls, told: Mapping[str, Any], wanted: Sequence[str] | None, dropout: float | Mapping[str, float] = 0.0
    ) -> "Conditions":
        """Make conditions from config values; see :func:`kinds_of`. Raises ValueError."""
        return cls(kinds_of(told, wanted), dropout)

    @property
    def num_classes(self) -> int | None:
        """The number of labels; None: the model has no labels."""
        label = self._label
        return None if label is None else label.size

    @property
    def empty_classes(self) -> Sequence[int]:
        return () if (label := self._label) is None else label.empty

    @property
    def _label(self) -> Label | None:
        return next((kind for kind in self.kinds.values() if isinstance(kind, Label)), None)

    def label_of(self, condition: Condition | None) -> Tensor | None:
        """The labels of a condition, (N,); None: the model has no labels."""
        names = [key for key, kind in self.kinds.items() if isinstance(kind, Label)]
        return condition.get(names[0]) if condition is not None and names else None

    def classes(self, condition: Condition | None, rows: int) -> list[dict[str, int]]:
        """The class of each of ``rows`` rows by key, where it has one."""
        found: list[dict[str, int]] = [{} for _ in range(rows)]
        for key, kind in self.kinds.items():
            if isinstance(kind, Label) and condition is not None and key in condition:
                for row, number in zip(found, condition[key].tolist(), strict=True):
                    row.update({key: number} if number >= 0 else {})
        return found

    def of_labels(self, label: Tensor) -> Condition:
        """Labels (N,) as a condition, for a model with labels only."""
        assert self.is_label_alone
        return dict.fromkeys(self.kinds, label)

    @property
    def is_label_alone(self) -> bool:
        """Whether the label is the only condition."""
        return len(self.kinds) == 1 and self._label is not None

    def of(self, batch: Mapping[str, Tensor]) -> Condition | None:
        """The model's conditions in a batch, those that are drawn from its images among them."""
        return {
            key: kind.of(batch) if isinstance(kind, Drawn) else batch[key] for key, kind in self.kinds.items()
        } or None

    def dropped(self, condition: Condition | None) -> Condition | None:
        """A training condition with a random share of its rows dropped, so that a model also learns to be
        unconditional."""
        if condition is None:
            return None
        joint = None if isinstance(self.dropout, Mapping) else self.dropout
        gone: Tensor | None = None
        left = dict(condition)
        for key, value in condition.items():
            share = joint if joint is not None else self.dropout.get(key, 0.0)  # type: ignore[union-attr]
            if gone is None or joint is None:
                gone = torch.rand(len(value), device=value.device) < share
            mask = gone.view(-1, *[1] * (value.ndim - 1))
            left[key] = torch.where(mask, self.kinds[key].nothing(len(value), value.device), value)
        return left

    def nothing(self, rows: int, device: Device = "cpu") -> Condition | None:
        """The empty condition; None for a model without conditions."""
        return {key: kind.nothing(rows, device) for key, kind in self.kinds.items()} or None

    def filled(self, condition: Condition | None, rows: int, device: Device) -> Condition | None:
        """``condition`` with empty values for the keys that it lacks."""
        return {
            key: kind.nothing(rows, device) if condition is None or key not in condition else condition[key].to(device)
            for key, kind in self.kinds.items()
        } or None

    def drawn(self, condition: Condition | None, stream: RandomStream) -> Condition | None:
        """``condition`` with random values for empty ones; for several keys, those of one held-out example."""
        if not self.kinds:
            return None
        told = self.filled(condition, len(stream), stream.device)
        assert told is not None
        if len(self.kinds) == 1:
            values = {key: kind.any(stream) for key, kind in self.kinds.items()}
        else:
            rows = stream.randint(self._num_examples).tolist()
            values = {key: kind.example(rows).to(stream.device) for key, kind in self.kinds.items()}
        return {
            key: torch.where(kind.is_nothing(told[key]).view(-1, *[1] * (told[key].ndim - 1)), values[key], told[key])
            for key, kind in self.kinds.items()
        }

    @property
    def _num_examples(self) -> int:
        return max([1, *(len(getattr(kind, "examples", ())) for kind in self.kinds.values())])

    def in_turn(self, indices: Sequence[int]) -> Condition | None:
        """The default conditions of samples ``indices``, on the CPU: one class, or one caption, after the
        other; for several keys, those of one held-out example after the other."""
        alone = len(self.kinds) == 1
        return {
            key: kind.in_turn(indices) if alone else kind.example(indices) for key, kind in self.kinds.items()
        } or None

    def words(self, condition: Condition | None) -> list[str]:
        """Each row in words; empty if there are only labels."""
        if condition is None or self.is_label_alone:
            return []
        columns = [kind.words(condition[key]) for key, kind in self.kinds.items() if not isinstance(kind, Label)]
        return [", ".join(filter(None, row)) for row in zip(*columns, strict=True)]

    def check(self, condition: Condition | None) -> None:
        """Raises ValueError, with a remedy, if the model does not take this condition."""
        if condition is None:
            return
        for key, value in condition.items():
            if key not in self.kinds:
                has = f"It has {' and '.join(self.kinds)}." if self.kinds else "Sample without."
                raise ValueError(f"this model has no {key.removesuffix('s')}s: it was trained without. {has}")
            self.kinds[key].check(value)

    def check_guided(self, strength: float) -> None:
        """Raises ValueError if guidance needs unconditional predictions, which the model was not trained
        for."""
        together = self.dropout
        if isinstance(together, Mapping):
            together = min((together.get(key, 0.0) for key in self.kinds), default=0.0)
        if strength != 1 and self.kinds and together == 0:
            raise ValueError(
                f"model.guidance.strength={strength} needs a model trained with model.condition_dropout above 0."
            )

    def check_each_alone(self) -> None:
        """Raises ValueError if guidance by each condition needs predictions for it alone, and for none, which the model
        was not trained for."""
        if len(self.kinds) < 2:
            self.check_guided(2.0)
        elif not isinstance(self.dropout, Mapping) or not all(self.dropout.get(key, 0.0) for key in self.kinds):
            each = ",".join(f"{key}:0.1" for key in self.kinds)
            raise ValueError(
                "model/guidance=each needs a model trained on each condition without the others. Train one with "
                f"'model.condition_dropout={{{each}}}', or use model/guidance=classifier_free."
            )


def repeated(condition: Condition | None, times: int, each: bool = False) -> Condition | None:
    """Every row ``times`` times: the whole again and again, or ``each`` row beside its copies."""
    if condition is None:
        return None
    if each:
        return {key: value.repeat_interleave(times, dim=0) for key, value in condition.items()}
    return {key: value.repeat(times, *[1] * (value.ndim - 1)) for key, value in condition.items()}


def cloned(condition: Condition | None) -> Condition | None:
    """A copy that autograd may save, where the original was made in inference mode."""
    return None if condition is None else {key: value.clone() for key, value in condition.items()}


def moved(condition: Condition | None, device: Device) -> Condition | None:
    return None if condition is None else {key: value.to(device) for key, value in condition.items()}

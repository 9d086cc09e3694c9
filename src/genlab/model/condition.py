"""What a sample can be asked for: a label, a caption; which of these a model is told, and how often training hides it.

A condition is a mapping of tensors, one a key, each with N rows. What its values mean, the kind of its key says.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from genlab.errors import did_you_mean
from genlab.seeding import RandomStream

# What a sample can be asked for: label (N,); caption (N, T) words; prompt (N, P) tokens of text, -1 before short ones.
Condition = Mapping[str, Tensor]
Device = torch.device | str

_SHOWN = 10  # names in a message; "..." stands for more


class ConditionKind(Protocol):
    """One key of a condition."""

    option: ClassVar[str]  # what a user types to ask for a value: label=..., prompt=...
    size: int  # classes; words
    num_tokens: int  # different tokens that :meth:`tokens` gives
    length: int  # P, tokens of a value

    def nothing(self, rows: int, device: Device = "cpu") -> Tensor:
        """What stands for "not told", ``rows`` times."""
        ...

    def is_nothing(self, value: Tensor) -> Tensor:
        """Rows that are not told, (N,) bool."""
        ...

    def any(self, stream: RandomStream) -> Tensor:
        """A drawn value for each row of the stream, for a family that cannot do without."""
        ...

    def in_turn(self, indices: Sequence[int]) -> Tensor:
        """Values one after the other: what sample i of a grid is asked for, on the CPU."""
        ...

    def example(self, indices: Sequence[int]) -> Tensor:
        """That of held-out example i, modulo those that the data name; nothing where they name none. On the CPU."""
        ...

    def check(self, value: Tensor) -> None:
        """Raises ValueError, with a remedy, if a value is not one of the model's."""
        ...

    def read(self, typed: str | int) -> Tensor:
        """What a user typed, as one row. Raises ValueError, with a remedy."""
        ...

    def words(self, value: Tensor) -> list[str]:
        """Each row as a user would type it; "" for nothing."""
        ...

    def tokens(self, value: Tensor) -> Tensor:
        """For models of tokens: (N, P) int64 from 0 to ``num_tokens`` - 1."""
        ...


@dataclass(frozen=True)
class Label:
    """One of ``size`` classes, (N,) int64; -1 is nothing. Nobody is asked for the classes ``empty``, of which training
    has no example."""

    size: int
    names: Sequence[str] = ()
    empty: Sequence[int] = ()
    examples: Sequence[int] = ()

    option: ClassVar[str] = "label"
    length: ClassVar[int] = 1

    @property
    def num_tokens(self) -> int:
        return self.size + 1

    @property
    def classes(self) -> list[int]:
        """Those that samples can be asked for, in order."""
        return [label for label in range(self.size) if label not in self.empty]

    def nothing(self, rows: int, device: Device = "cpu") -> Tensor:
        return torch.full((rows,), -1, device=device)

    def is_nothing(self, value: Tensor) -> Tensor:
        return value < 0

    def any(self, stream: RandomStream) -> Tensor:
        classes = torch.tensor(self.classes, device=stream.device)
        return classes[stream.randint(len(classes))]

    def in_turn(self, indices: Sequence[int]) -> Tensor:
        classes = torch.tensor(self.classes)
        return classes[torch.tensor(indices) % len(classes)]

    def example(self, indices: Sequence[int]) -> Tensor:
        if not self.examples:
            return self.nothing(len(indices))
        return torch.tensor(self.examples)[torch.tensor(indices) % len(self.examples)]

    def check(self, value: Tensor) -> None:
        if ((value < -1) | (value >= self.size)).any():
            raise ValueError(
                f"the labels {sorted(set(value.tolist()))} are not all among the model's. "
                f"Use 0 to {self.size - 1}, or -1 for no label."
            )

    def read(self, typed: str | int) -> Tensor:
        number = typed
        if isinstance(typed, str):
            if typed not in self.names:
                known = ", ".join(list(self.names)[:_SHOWN]) + ", ..." * (len(self.names) > _SHOWN)
                guess = did_you_mean(typed, list(self.names))
                raise ValueError(f"there is no class '{typed}'.{guess} The classes are {known}.")
            number = list(self.names).index(typed)
        if not 0 <= int(number) < self.size:
            raise ValueError(f"it must be a class from 0 to {self.size - 1}.")
        if number in self.empty:
            trained = ", ".join(map(str, self.classes[:_SHOWN])) + ", ..." * (len(self.classes) > _SHOWN)
            raise ValueError(f"no image that the model was trained on has this label. Use one of {trained}.")
        return torch.tensor([int(number)])

    def words(self, value: Tensor) -> list[str]:
        return ["" if i < 0 else str(self.names[i]) if i < len(self.names) else str(i) for i in value.tolist()]

    def tokens(self, value: Tensor) -> Tensor:
        """ "No label" is token 0, class i is i + 1."""
        return value[:, None] + 1


@dataclass(frozen=True)
class Caption:
    """Up to ``length`` words of a vocabulary of ``size``, as (N, length) int64; word 0 fills up, and a caption of
    nothing else is nothing. ``examples`` are held-out captions in words, which samples are asked for where nobody types
    one."""

    size: int
    length: int
    names: Sequence[str] = ()
    examples: Sequence[str] = ()

    option: ClassVar[str] = "prompt"

    @property
    def num_tokens(self) -> int:
        return self.size

    def nothing(self, rows: int, device: Device = "cpu") -> Tensor:
        return torch.zeros(rows, self.length, dtype=torch.long, device=device)

    def is_nothing(self, value: Tensor) -> Tensor:
        return (value == 0).all(dim=1)

    def any(self, stream: RandomStream) -> Tensor:
        if not self.examples:
            return self.nothing(len(stream), stream.device)
        known = self.example(range(len(self.examples))).to(stream.device)
        return known[stream.randint(len(known))]

    def in_turn(self, indices: Sequence[int]) -> Tensor:
        return self.example(indices)

    def example(self, indices: Sequence[int]) -> Tensor:
        if not self.examples:
            return self.nothing(len(indices))
        known = torch.cat([self.read(caption) for caption in self.examples])
        return known[torch.tensor(indices) % len(known)]

    def check(self, value: Tensor) -> None:
        if value.ndim != 2 or value.shape[1] != self.length:
            raise ValueError(f"captions of shape {tuple(value.shape)}: use (N, {self.length}) numbers of words.")
        if ((value < 0) | (value >= self.size)).any():
            raise ValueError(f"a caption has a word that is not one of the model's. Use numbers 0 to {self.size - 1}.")

    def read(self, typed: str | int) -> Tensor:
        known = list(self.names)[1:]  # number 0 is no word
        words = str(typed).lower().split()
        for word in words:
            if word not in known:
                raise ValueError(f"unknown word '{word}'.{did_you_mean(word, known)} Known: {', '.join(known)}.")
        if len(words) > self.length:
            raise ValueError(f"it has {len(words)} words, and captions of these data have at most {self.length}.")
        value = self.nothing(1)
        value[0, : len(words)] = torch.tensor([known.index(word) + 1 for word in words], dtype=torch.long)
        return value

    def words(self, value: Tensor) -> list[str]:
        return [" ".join(str(self.names[word]) for word in row if word) for row in value.tolist()]

    def tokens(self, value: Tensor) -> Tensor:
        return value


KINDS: dict[str, type[Label] | type[Caption]] = {"label": Label, "caption": Caption}  # by key


def kinds_of(told: Mapping[str, Any], wanted: Sequence[str] | None) -> dict[str, ConditionKind]:
    """What a model is told, by key. ``told``: what the data have, as the config's ``spec.condition`` says; ``wanted``:
    the keys that a user chose, None: the label, where the data have one.

    Raises ValueError, in a sentence, for a key that the data lack.
    """
    known = {key: node for key, node in told.items() if key in KINDS and node and node.get("size") is not None}
    if wanted is None:
        wanted = [key for key in known if KINDS[key] is Label]
    for key in wanted:
        if key not in known:
            has = f"they have {' and '.join(known)}" if known else "they have nothing that a sample can be asked for"
            raise ValueError(
                f"model.conditions={list(wanted)}: the data have no {key}, {has}. "
                f"Use model.conditions=[{','.join(known)}]."
            )
    return {key: KINDS[key](**known[key]) for key in wanted}


def told_to(factory: Callable[..., Any], kinds: Mapping[str, ConditionKind]) -> dict[str, Any]:
    """The argument ``told`` for what ``factory`` makes, if it takes one: a network may do without."""
    return {"told": kinds} if "told" in inspect.signature(factory).parameters else {}


@dataclass(frozen=True)
class Conditions:
    """What a model is told, by key, and the share of training examples that are not told it.

    A single ``dropout`` hides all keys of an example together, which is what guidance needs; a mapping hides each by a
    draw of its own, keys that it lacks never.
    """

    kinds: Mapping[str, ConditionKind] = field(default_factory=dict)
    dropout: float | Mapping[str, float] = 0.0

    def __post_init__(self) -> None:
        """Raises ValueError: a share outside [0, 1], or of something that the model is not told."""
        shares = self.dropout if isinstance(self.dropout, Mapping) else {"": self.dropout}
        for key, share in shares.items():
            name = f"model.condition_dropout{'.' * bool(key)}{key}"
            if not 0 <= share <= 1:
                raise ValueError(f"{name}={share} is outside [0, 1]. It is a share of the examples.")
            if key and key not in self.kinds:
                raise ValueError(f"{name}: the model is not told a {key}. Add it to model.conditions, or leave it out.")

    @classmethod
    def told(
        cls, told: Mapping[str, Any], wanted: Sequence[str] | None, dropout: float | Mapping[str, float] = 0.0
    ) -> "Conditions":
        """From the values of a config; see :func:`kinds_of`. Raises ValueError."""
        return cls(kinds_of(told, wanted), dropout)

    @property
    def num_classes(self) -> int | None:
        """Labels that samples can be asked for; None: the model is told none."""
        label = self._label
        return None if label is None else label.size

    @property
    def empty_classes(self) -> Sequence[int]:
        return () if (label := self._label) is None else label.empty

    @property
    def _label(self) -> Label | None:
        return next((kind for kind in self.kinds.values() if isinstance(kind, Label)), None)

    def label_of(self, condition: Condition | None) -> Tensor | None:
        """The labels of a condition, (N,); None: the model is told none."""
        names = [key for key, kind in self.kinds.items() if isinstance(kind, Label)]
        return condition.get(names[0]) if condition is not None and names else None

    def of_labels(self, label: Tensor) -> Condition:
        """Labels (N,) as a condition, of a model that is told nothing else."""
        assert self.is_label_alone
        return dict.fromkeys(self.kinds, label)

    @property
    def is_label_alone(self) -> bool:
        """Whether classes are all that samples can be asked for: these are then asked for as often as is fair."""
        return len(self.kinds) == 1 and self._label is not None

    def of(self, batch: Mapping[str, Tensor]) -> Condition | None:
        """The part of a batch that the networks are told."""
        return {key: batch[key] for key in self.kinds} or None

    def dropped(self, condition: Condition | None) -> Condition | None:
        """A training condition with a random share of its rows hidden, so that a model learns to do without."""
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
        """What stands for being told nothing at all; None where there is nothing to be told."""
        return {key: kind.nothing(rows, device) for key, kind in self.kinds.items()} or None

    def filled(self, condition: Condition | None, rows: int, device: Device) -> Condition | None:
        """``condition`` with nothing for the keys that it lacks."""
        return {
            key: kind.nothing(rows, device) if condition is None or key not in condition else condition[key].to(device)
            for key, kind in self.kinds.items()
        } or None

    def drawn(self, condition: Condition | None, stream: RandomStream) -> Condition | None:
        """``condition`` with a drawn value for whoever is not told; of several keys those of one held-out example."""
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
        """What samples ``indices`` are asked for where nobody says, on the CPU: one class, or one caption, after the
        other; of several keys those of one held-out example after the other."""
        alone = len(self.kinds) == 1
        return {
            key: kind.in_turn(indices) if alone else kind.example(indices) for key, kind in self.kinds.items()
        } or None

    def words(self, condition: Condition | None) -> list[str]:
        """What each row is asked for, in words; none where labels alone say it."""
        if condition is None or self.is_label_alone:
            return []
        columns = [kind.words(condition[key]) for key, kind in self.kinds.items() if not isinstance(kind, Label)]
        return [", ".join(filter(None, row)) for row in zip(*columns, strict=True)]

    def check(self, condition: Condition | None) -> None:
        """Raises ValueError, with a remedy, if the model cannot be asked for that."""
        if condition is None:
            return
        for key, value in condition.items():
            if key not in self.kinds:
                has = f"It is told {' and '.join(self.kinds)}." if self.kinds else "Sample without."
                raise ValueError(f"this model has no {key}s: it was trained without. {has}")
            self.kinds[key].check(value)

    def check_guided(self, strength: float) -> None:
        """Raises ValueError if guidance is to compare with what a model without a condition would do, which this one
        never learnt."""
        together = self.dropout
        if isinstance(together, Mapping):
            together = min((together.get(key, 0.0) for key in self.kinds), default=0.0)
        if strength != 1 and self.kinds and together == 0:
            raise ValueError(
                f"model.guidance.strength={strength} needs a model trained with model.condition_dropout above 0."
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

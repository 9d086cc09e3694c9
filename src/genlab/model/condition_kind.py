"""The kinds of conditions: labels, captions and numbers.

A condition is a mapping of tensors by key, each with N rows. The kind of a key defines what its values mean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from genlab.errors import did_you_mean
from genlab.seeding import RandomStream

# A condition: label (N,); caption (N, T) words; attributes (N, K) numbers;
# prompt (N, P) tokens of text, -1 before short ones.
Condition = Mapping[str, Tensor]
Device = torch.device | str

_SHOWN = 10  # names in a message; "..." stands for more


class CaptionCoder(Protocol):
    """Captions in words to numbers from 1 on, and back."""

    def read(self, text: str, cut: bool = False) -> list[int]:
        """Raises ValueError, with a remedy: it has an unknown word, or is too long. ``cut``: its known beginning."""

    def write(self, numbers: Sequence[int]) -> str:
        """The words of numbers, without 0."""


class ConditionKind(Protocol):
    """One key of a condition."""

    option: ClassVar[str]  # the user's option for a value: label=..., prompt=...

    @property
    def size(self) -> int:
        """Classes; words."""
        ...

    @property
    def num_tokens(self) -> int:
        """The number of different tokens that :meth:`tokens` gives."""
        ...

    @property
    def length(self) -> int:
        """P, the number of tokens of a value."""
        ...

    def nothing(self, rows: int, device: Device = "cpu") -> Tensor:
        """The empty value, ``rows`` times."""
        ...

    def is_nothing(self, value: Tensor) -> Tensor:
        """Rows that are empty, (N,) bool."""
        ...

    def any(self, stream: RandomStream) -> Tensor:
        """A random value for each row of the stream, for a family that needs one."""
        ...

    def in_turn(self, indices: Sequence[int]) -> Tensor:
        """Values one after the other, for sample i of a grid, on the CPU."""
        ...

    def example(self, indices: Sequence[int]) -> Tensor:
        """The value of held-out example i, modulo those that the data provide; empty if there are none. On the CPU."""
        ...

    def check(self, value: Tensor) -> None:
        """Raises ValueError, with a remedy, if a value is not one of the model's."""
        ...

    def read(self, typed: str | int) -> Tensor:
        """A user's input as one row. Raises ValueError, with a remedy."""
        ...

    def words(self, value: Tensor) -> list[str]:
        """Each row as a user would type it; "" for nothing."""
        ...

    def tokens(self, value: Tensor) -> Tensor:
        """For models of tokens: (N, P) int64 from 0 to ``num_tokens`` - 1."""
        ...


@runtime_checkable
class Drawn(Protocol):
    """A kind of condition whose values are not in batches, but made of what is."""

    def of(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The values of a batch, a row each."""
        ...


@dataclass(frozen=True)
class Label:
    """One of ``size`` classes, (N,) int64; -1 is empty. The classes ``empty``, without training examples, are
    never sampled."""

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
        """The classes that samples can have, in order."""
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
    """Up to ``length`` words of a vocabulary of ``size``, as (N, length) int64; word 0 is padding, and a caption of
    nothing else is empty. ``examples`` are held-out captions in words, the defaults for
    samples. Words are ``names`` between spaces or, of ``tokenized`` captions, what the tokenizer of the run makes of
    them, which :meth:`use` provides."""

    size: int
    length: int
    names: Sequence[str] = ()
    examples: Sequence[str] = ()
    tokenized: bool = False
    coder: CaptionCoder | None = field(default=None, compare=False, repr=False)

    option: ClassVar[str] = "prompt"

    def use(self, coder: CaptionCoder) -> None:
        """Read and write captions with ``coder``, here and wherever this object is held."""
        object.__setattr__(self, "coder", coder)

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
        known = torch.cat([self._row(self._numbers(caption, cut=True)) for caption in self.examples])
        return known[torch.tensor(indices) % len(known)]

    def check(self, value: Tensor) -> None:
        if value.ndim != 2 or value.shape[1] != self.length:
            raise ValueError(f"captions of shape {tuple(value.shape)}: use (N, {self.length}) numbers of words.")
        if ((value < 0) | (value >= self.size)).any():
            raise ValueError(f"a caption has a word that is not one of the model's. Use numbers 0 to {self.size - 1}.")

    def read(self, typed: str | int) -> Tensor:
        return self._row(self._numbers(str(typed)))

    def _numbers(self, text: str, cut: bool = False) -> list[int]:
        if self.tokenized:
            assert self.coder is not None, "given with the model's weights"
            return self.coder.read(text, cut)
        known = list(self.names)[1:]  # number 0 is not a word
        words = text.lower().split()
        for word in words:
            if word not in known:
                raise ValueError(f"unknown word '{word}'.{did_you_mean(word, known)} Known: {', '.join(known)}.")
        if len(words) > self.length:
            raise ValueError(f"it has {len(words)} words, and captions of these data have at most {self.length}.")
        return [known.index(word) + 1 for word in words]

    def _row(self, numbers: Sequence[int]) -> Tensor:
        value = self.nothing(1)
        value[0, : len(numbers)] = torch.tensor(numbers, dtype=torch.long)
        return value

    def words(self, value: Tensor) -> list[str]:
        rows = [[word for word in row if word] for row in value.tolist()]
        if self.tokenized:
            assert self.coder is not None, "given with the model's weights"
            return [self.coder.write(row) for row in rows]
        return [" ".join(str(self.names[word]) for word in row) for row in rows]

    def tokens(self, value: Tensor) -> Tensor:
        return value


@dataclass(frozen=True)
class Numbers:
    """``size`` numbers from 0 to 1, called ``names``, as (N, size) float32; a row of -1 is empty. ``examples`` are
    those of held-out pictures, written as a user types them: "size=1,x=0.25"."""

    size: int
    names: Sequence[str]
    examples: Sequence[str] = ()

    option: ClassVar[str] = "attributes"
    BINS: ClassVar[int] = 32  # for models of tokens

    @property
    def length(self) -> int:
        return self.size

    @property
    def num_tokens(self) -> int:
        return self.size * (self.BINS + 1)

    def nothing(self, rows: int, device: Device = "cpu") -> Tensor:
        return torch.full((rows, self.size), -1.0, device=device)

    def is_nothing(self, value: Tensor) -> Tensor:
        return (value < 0).all(dim=1)

    def any(self, stream: RandomStream) -> Tensor:
        """Those of a held-out picture; without any, uniform ones."""
        if not self.examples:
            return stream.rand(self.size)
        known = self.example(range(len(self.examples))).to(stream.device)
        return known[stream.randint(len(known))]

    def in_turn(self, indices: Sequence[int]) -> Tensor:
        return self.example(indices)

    def example(self, indices: Sequence[int]) -> Tensor:
        if not self.examples:
            return self.nothing(len(indices))
        known = torch.cat([self.read(text) for text in self.examples])
        return known[torch.tensor(indices) % len(known)]

    def check(self, value: Tensor) -> None:
        if value.ndim != 2 or value.shape[1] != self.size:
            raise ValueError(f"attributes of shape {tuple(value.shape)}: use (N, {self.size}) numbers.")
        known = value[~self.is_nothing(value)]
        if not ((known >= 0) & (known <= 1)).all():
            raise ValueError("attributes must be numbers from 0 to 1, or all -1 for none.")

    def read(self, typed: str | int) -> Tensor:
        found: dict[str, float] = {}
        for part in str(typed).split(","):
            name, _, text = (word.strip() for word in part.partition("="))
            if name not in self.names:
                raise ValueError(f"there is no attribute '{name}'.{did_you_mean(name, list(self.names))} {self._all}")
            try:
                found[name] = float(text)
            except ValueError as error:
                raise ValueError(f"{name} must be a number from 0 to 1, got '{text}'. {self._all}") from error
            if not 0 <= found[name] <= 1:
                raise ValueError(f"{name}={text} is outside [0, 1]. {self._all}")
        if missing := [name for name in self.names if name not in found]:
            raise ValueError(f"{missing[0]} is missing: all are needed. {self._all}")
        return torch.tensor([[found[name] for name in self.names]])

    @property
    def _all(self) -> str:
        return f"Use attributes={','.join(f'{name}=0.5' for name in self.names)}"

    def words(self, value: Tensor) -> list[str]:
        empty = self.is_nothing(value).tolist()
        return [
            "" if none else ",".join(f"{name}={number:.4g}" for name, number in zip(self.names, row, strict=True))
            for none, row in zip(empty, value.tolist(), strict=True)
        ]

    def tokens(self, value: Tensor) -> Tensor:
        """Of number k token 0 of its own says that there is none, i + 1 that it lies in the i-th of BINS equal parts of
        [0, 1]."""
        bins = (value * self.BINS).floor().clamp(max=self.BINS - 1).long() + 1
        first = torch.arange(self.size, device=value.device) * (self.BINS + 1)
        return torch.where(value < 0, 0, bins) + first


KINDS: dict[str, type[Label] | type[Caption] | type[Numbers]] = {  # by key
    "label": Label,
    "caption": Caption,
    "attributes": Numbers,
}

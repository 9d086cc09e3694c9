"""The protocol of tasks: conditions, samples, references and output."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from genlab.data.base import DataModule, DataSpec, Split
from genlab.data.tokenizer.base import CaptionTokenizer
from genlab.model.base import Condition, GenerativeModel
from genlab.sampling.examples import Examples
from genlab.sampling.form import Form

CLASS_MIX = "class_mix"  # in a protocol: the class mix of samples


class Task(Protocol):
    """What a model is used and evaluated for. Any number of samples is compared with a reference.

    A config makes one from its options; ``on`` gives it data, and ``sized`` a number of samples. Methods after
    ``sized`` need both.
    """

    key: ClassVar[str]  # the column of the examples themselves: "image", "text"
    suited: ClassVar[str]  # metrics that always fit, as typed, for messages
    of_samples: ClassVar[str]  # the same for metrics of samples

    def form(self, spec: Mapping[str, Any], tokenizer: CaptionTokenizer | None) -> Form:
        """The form of its samples. ``spec``: of the data, as in a run's config."""
        ...

    def check(self, spec: DataSpec) -> None:
        """Raises ConfigError if it does not support these data."""
        ...

    def on(self, data: DataModule, split: Split) -> "Task":
        """The task on these data, a split of which is the reference. Raises ConfigError as ``check`` does."""
        ...

    def gives(self, model: GenerativeModel) -> frozenset[str]:
        """The columns that examples have."""
        ...

    def facts(self) -> dict[str, Any]:
        """What comparable numbers about these data must share: part of the protocol."""
        ...

    def sized(self, count: int, of: GenerativeModel | Examples) -> "Task":
        """The task for ``count`` samples of a model, or given examples: the reference may depend on
        their number and length. Raises ConfigError if the model and the data do not fit."""
        ...

    def reference(self) -> Examples:
        """All real examples that samples are compared with."""
        ...

    def reference_hash(self) -> str:
        """A hash of the column ``key`` of the reference."""
        ...

    def condition_facts(self, keys: Iterable[str]) -> dict[str, str]:
        """What numbers of metrics that use these condition keys must share beside ``facts``."""
        ...

    def asked_facts(self, model: GenerativeModel) -> dict[str, Any]:
        """What numbers of samples of a model must share beside that: how its conditions are chosen; replaces facts of
        the same names. Empty for unconditional samples or labels only."""
        ...

    def asked(self, model: GenerativeModel, indices: Sequence[int]) -> Condition | None:
        """The conditions of a model's samples in an evaluation, on the CPU, each a function of its number; None:
        unconditional. Raises ConfigError if the model does not take them, or the reference lacks a condition of
        the model."""
        ...

    def draw(self, model: GenerativeModel, indices: Sequence[int], seed: int, batch_size: int) -> Examples:
        """The samples of these numbers, each a function of (seed, number). On the CPU. Raises NumericsError if one is
        not finite."""
        ...

    def check_examples(self, examples: Examples) -> None:
        """Raises DataError if examples do not match the data."""
        ...

    def baselines(self, count: int, seed: int) -> dict[str, Examples]:
        """Baselines by name: examples made without a model. ``floor``, if present, is of
        real ones."""
        ...

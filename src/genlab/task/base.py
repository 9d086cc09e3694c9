"""The contract of tasks: what is asked, drawn, compared and written."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from genlab.data.base import DataModule, DataSpec, Split
from genlab.data.tokenizer.base import Tokenizer
from genlab.model.base import Condition, GenerativeModel
from genlab.sampling.examples import Examples
from genlab.sampling.form import Form

CLASS_MIX = "class_mix"  # in a protocol: which classes samples are asked for, and how often


class Task(Protocol):
    """What a model is used for, and so what it is judged by. Samples of any number are compared with a reference.

    A config makes one from its options; ``on`` gives it data, and ``sized`` a number of samples. What stands below
    ``sized`` is of a task that has both.
    """

    key: ClassVar[str]  # the column of examples that is judged: "image", "text"
    suited: ClassVar[str]  # metrics that always fit, as one types them, for messages
    of_samples: ClassVar[str]  # the same of metrics that look at samples

    def form(self, spec: Mapping[str, Any], tokenizer: Tokenizer | None) -> Form:
        """What its samples are to a user. ``spec``: of the data, as a run's config has it."""
        ...

    def check(self, spec: DataSpec) -> None:
        """Raises ConfigError if it is not for such data."""
        ...

    def on(self, data: DataModule, split: Split) -> "Task":
        """The task on these data, a split of which is the reference. Raises ConfigError as ``check`` does."""
        ...

    def gives(self, model: GenerativeModel) -> frozenset[str]:
        """The columns that examples have."""
        ...

    def facts(self) -> dict[str, Any]:
        """What two numbers about these data must share to be compared: part of the protocol."""
        ...

    def sized(self, count: int, of: GenerativeModel | Examples) -> "Task":
        """What so many samples of a model, or examples that are there, are compared with: the reference may depend on
        their number and length. Raises ConfigError if the model and the data do not allow that."""
        ...

    def reference(self) -> Examples:
        """All real examples that samples are compared with."""
        ...

    def reference_hash(self) -> str:
        """Of the column ``key`` of the reference."""
        ...

    def condition_facts(self, keys: Iterable[str]) -> dict[str, str]:
        """What numbers of metrics that look at these keys of conditions must share beside ``facts``."""
        ...

    def asked_facts(self, model: GenerativeModel) -> dict[str, Any]:
        """What numbers of samples of a model must share beside that: how it was asked; in place of those of the same
        names. Nothing, where samples are asked for nothing or for labels alone."""
        ...

    def asked(self, model: GenerativeModel, indices: Sequence[int]) -> Condition | None:
        """What the samples of a model are asked for, on the CPU, each a function of its number; None: nothing. The only
        owner of that in an evaluation. Raises ConfigError if the model does not know it, or the reference lacks what
        the model is told."""
        ...

    def draw(self, model: GenerativeModel, indices: Sequence[int], seed: int, batch_size: int) -> Examples:
        """The samples of these numbers, each a function of (seed, number). On the CPU. Raises NumericsError if one is
        not finite."""
        ...

    def check_examples(self, examples: Examples) -> None:
        """Raises DataError if examples are not such as the data are."""
        ...

    def baselines(self, count: int, seed: int) -> dict[str, Examples]:
        """By name, what a score should be read beside: examples that took no model to make. ``floor``, where it is
        there, is of real ones."""
        ...

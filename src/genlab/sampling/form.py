"""What the samples of a modality are to a user: how they are asked for, shown and written."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Protocol

from torch import Tensor

from genlab.model.base import Condition, GenerativeModel
from genlab.sampling.examples import Column, Examples

Typed = Mapping[str, Sequence[int | str] | None]  # values of label= and prompt=; None: not typed


class Form(Protocol):
    """Pictures, texts, or what else a task makes. Made from what a run's folder holds: no data are needed."""

    key: ClassVar[str]  # the column of examples that it is about
    count: ClassVar[int]  # samples that are drawn where nobody says how many
    suffix: ClassVar[str]  # of the file that they go to by default

    def content(self, samples: Tensor) -> Column:
        """What a model gives, as metrics read it and files hold it. On the CPU. Raises NumericsError if a value is not
        finite."""
        ...

    def read(self, model: GenerativeModel, typed: Typed, run: Path) -> Condition:
        """What a user typed, as rows of a condition. Raises ConfigError for what the model of ``run`` cannot be asked
        for."""
        ...

    def asked(self, model: GenerativeModel, indices: range, typed: Condition) -> Condition | None:
        """What samples are asked for: the rows of ``typed`` in turn; where nothing is typed, what the model was told in
        training, in turn."""
        ...

    def words(self, model: GenerativeModel, indices: range, typed: Condition) -> dict[str, Sequence[str]]:
        """The same in words, as columns of examples; none where there is nothing to say."""
        ...

    def shown(self, examples: Examples, last: bool) -> str:
        """What a terminal shows of a batch of samples while they are drawn, the ``last`` one or not; "" for nothing."""
        ...

    def destination(self, out: str) -> Path:
        """Where samples go that a user sends to ``out``. Raises ConfigError if they cannot go there, StorageError if it
        cannot be written."""
        ...

    def columns(self, model: GenerativeModel, n: int, typed: Condition) -> int:
        """Of a grid of ``n`` samples."""
        ...

    def write(self, examples: Examples, path: Path, columns: int) -> list[Path]:
        """Write samples, and beside them what they were asked for, where the file cannot say it. ``columns``: of a
        grid. Returns the files, the first of which is ``path``. Raises StorageError."""
        ...

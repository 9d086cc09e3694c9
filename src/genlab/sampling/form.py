"""The protocol for samples of a modality: how conditions are read, and samples shown and written."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Protocol

from torch import Tensor

from genlab.model.base import Condition, GenerativeModel
from genlab.sampling.examples import Column, Examples

Typed = Mapping[str, Sequence[int | str] | None]  # values of label=, prompt= and image=; None: not typed


class Form(Protocol):
    """Pictures, texts, or other outputs of a task. Made from a run's folder, without its data."""

    key: ClassVar[str]  # the column of examples
    suffix: ClassVar[str]  # of the default file

    @property
    def count(self) -> int:
        """The default number of samples, known once the user's options are read."""
        ...

    def content(self, samples: Tensor) -> Column:
        """Convert a model's output to the form that metrics and files use. On the CPU. Raises NumericsError if a value
        is not finite."""
        ...

    def read(self, model: GenerativeModel, typed: Typed, run: Path) -> Condition:
        """The user's options as rows of a condition. Raises ConfigError for one that the model of ``run`` does not
        take."""
        ...

    def asked(self, model: GenerativeModel, indices: range, typed: Condition) -> Condition | None:
        """The conditions of samples: the rows of ``typed`` in turn; if nothing is typed, conditions from training, in
        turn."""
        ...

    def words(self, model: GenerativeModel, indices: range, typed: Condition) -> dict[str, Sequence[str]]:
        """The same in words, as columns of examples; empty if unconditional."""
        ...

    def shown(self, examples: Examples, last: bool) -> str:
        """What a terminal shows of a batch of samples while they are drawn, the ``last`` one or not; "" for nothing."""
        ...

    def destination(self, out: str) -> Path:
        """The path for ``out=``. Raises ConfigError if it does not suit these samples, StorageError if it
        cannot be written."""
        ...

    def columns(self, model: GenerativeModel, n: int, typed: Condition) -> int:
        """The number of columns of a grid of ``n`` samples."""
        ...

    def write(self, examples: Examples, path: Path, columns: int) -> list[Path]:
        """Write samples, and beside them their conditions, if the file cannot hold them. ``columns``: of a
        grid. Returns the files, the first of which is ``path``. Raises StorageError."""
        ...

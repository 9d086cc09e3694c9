"""Text samples: started with a prompt, shown while they are generated, written to a file."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from genlab.data.tokenizer.base import Tokenizer, UnknownCharacterError, unknown_of
from genlab.errors import ConfigError
from genlab.files.atomic import prepare_file, write_atomically
from genlab.files.paths import read_path
from genlab.model.base import Condition, GenerativeModel
from genlab.model.condition_kind import Label, Numbers
from genlab.model.condition_picture import Picture
from genlab.sampling.asked import shown
from genlab.sampling.examples import Examples
from genlab.sampling.form import Typed

BETWEEN = "\n" + 80 * "-" + "\n"  # separates texts
_log = logging.getLogger(__name__)


class Texts:
    """Texts of a tokenizer. ``text`` of examples is what follows ``prompt``, where they have one."""

    key: ClassVar[str] = "text"
    count: ClassVar[int] = 1
    suffix: ClassVar[str] = ".txt"

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.end: int | None = None  # the token that ends a text; None: it has as many as the model writes
        self.before: int | None = None  # the token that samples follow; None: they begin a text
        self._prompt = ""  # as typed, with unknown characters

    def content(self, samples: Tensor) -> list[str]:
        """Tokens (N, T), without their prompts, decoded."""
        return [self.tokenizer.decode(row, self.before) for row in samples.cpu().tolist()]

    def read(self, model: GenerativeModel, typed: Typed, run: Path) -> Condition:
        """``prompt``, (1, P) tokens. Raises ConfigError for a character that the run has no token for."""
        if (labels := typed.get(Label.option)) is not None:
            raise ConfigError(f"label={shown(labels)}: the model of {run} takes no labels.")
        if (numbers := typed.get(Numbers.option)) is not None:
            raise ConfigError(f"attributes={shown(numbers)}: the model of {run} continues text. Leave attributes= out.")
        if (pictures := typed.get(Picture.option)) is not None:
            raise ConfigError(f"image={shown(pictures)}: the model of {run} continues text. Leave image= out.")
        self._prompt = "".join(map(str, typed.get("prompt") or ()))
        if not self._prompt:
            return {}
        tokens = torch.from_numpy(self._encoded(self._prompt))
        self.before = int(tokens[-1]) if len(tokens) else None
        unknown = unknown_of(self.tokenizer)
        if unknown is not None and (count := int((tokens == unknown).sum())):
            _log.warning(
                f"{count} of the {len(tokens)} characters of the prompt are not in the training text: the model "
                "sees the unknown token in their place."
            )
        return {"prompt": tokens[None]}

    def _encoded(self, prompt: str) -> np.ndarray:
        try:
            return self.tokenizer.prompt(prompt)
        except UnknownCharacterError as error:
            raise ConfigError(f"prompt: {error} Leave it out of the prompt.") from error

    def asked(self, model: GenerativeModel, indices: range, typed: Condition) -> Condition | None:
        return {key: rows.expand(len(indices), -1) for key, rows in typed.items()} or None

    def words(self, model: GenerativeModel, indices: range, typed: Condition) -> dict[str, Sequence[str]]:
        return {"prompt": [self._prompt] * len(indices)} if typed else {}

    def shown(self, examples: Examples, last: bool) -> str:
        """All texts, with separators."""
        return BETWEEN.join(_whole(examples)) + ("\n" if last else BETWEEN.rstrip())

    def columns(self, model: GenerativeModel, n: int, typed: Condition) -> int:
        return 1

    def destination(self, out: str) -> Path:
        return text_destination(out)

    def write(self, examples: Examples, path: Path, columns: int) -> list[Path]:
        """One file."""
        write_texts(_whole(examples), path)
        return [path]


def text_destination(out: str) -> Path:
    """Raises ConfigError if ``out`` is not a .txt file, StorageError if it cannot be written."""
    path = read_path(out)
    if path.suffix.lower() != ".txt":
        raise ConfigError(f"out={out}: texts go into a .txt file. Use out={path.with_suffix('.txt')}")
    prepare_file(path)
    return path


def _whole(examples: Examples) -> list[str]:
    texts: Sequence[str] = examples["text"]
    prompts = examples.columns.get("prompt", [""] * len(texts))
    return [f"{prompt}{text}" for prompt, text in zip(prompts, texts, strict=True)]


def write_texts(texts: Sequence[str], path: Path) -> None:
    """One file, UTF-8. Raises StorageError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write((BETWEEN.join(texts) + "\n").encode()))

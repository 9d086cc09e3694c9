"""A probe of text models: what part of a program a token is of, by its hidden state."""

import hashlib
import io
import keyword
import token as kinds
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from genlab.data.base import DataModule, Split
from genlab.data.python_source import PythonSource
from genlab.data.text import TextDataModule
from genlab.errors import ConfigError
from genlab.machine.rank import rank, world
from genlab.metrics.base import Direction
from genlab.metrics.extractor.precision import full_precision
from genlab.metrics.logistic import fit_best
from genlab.metrics.ordered import in_order
from genlab.metrics.probe import DEPTH, chance, held_out_split
from genlab.model.base import Model, in_eval_mode
from genlab.model.representation import RepresentsTokens
from genlab.seeding import uniform_by_index

CLASSES = ("keyword", "name", "operator", "number", "string", "comment")
_SIDES = ("train", "held_out")
_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)


@dataclass(frozen=True)
class ClassedWindows:
    """Windows of tokens (N, T), and the class of each (N, T), -1 where it has none."""

    tokens: np.ndarray
    classes: np.ndarray

    def sha256(self) -> str:
        """16 hex digits."""
        return hashlib.sha256(self.tokens.tobytes() + self.classes.tobytes()).hexdigest()[:16]


class TextProbe(Metric):
    """Held-out accuracy of a linear probe of hidden states that says whether a token is of a keyword, a name, an
    operator, a number, a string or a comment, as Python's own ``tokenize`` has it.

    A token has the class of its first character that is no white space. Windows are of ``num_windows`` places, spread
    over the files of a split. The probe is that of ``linear_probe``.

    ``text_probe``; ``text_probe_token``, of naming the class that a token had most often in the training windows, which
    needs no model and is hard to beat; ``text_probe_chance``, of always naming the most frequent class;
    ``text_probe_strength``, the penalty chosen.
    """

    directions: ClassVar[Mapping[str, Direction | None]] = {
        "text_probe": "higher",
        "text_probe_token": None,
        "text_probe_chance": None,
        "text_probe_strength": None,
    }
    full_state_update = False

    train_states: list[Tensor]
    train_index: list[Tensor]
    held_out_states: list[Tensor]
    held_out_index: list[Tensor]

    def __init__(
        self,
        num_windows: int = 80,  # of each split, as long as the model sees at once
        layer: float | None = None,  # depth of the block that is read, in [0, 1]; None: the family's own place
    ):
        """Raises ValueError: a value outside its range."""
        super().__init__()
        if num_windows < 2:
            raise ValueError(f"num_windows={num_windows} must be 2 or more.")
        if layer is not None and not 0 <= layer <= 1:
            raise ValueError(DEPTH.format(layer))
        self.num_windows, self.layer = num_windows, layer
        self._facts: dict[str, int | float | str] = {}
        self._windows: dict[str, ClassedWindows] = {}
        for side in _SIDES:
            for kind in ("states", "index"):
                self.add_state(f"{side}_{kind}", [], dist_reduce_fx="cat")

    def update(self, states: Tensor, index: Tensor, side: str) -> None:
        """Take in hidden states (n, D) and places (n,), among all tokens of the windows of a side, ``train`` or
        ``held_out``."""
        getattr(self, f"{side}_states").append(states)
        getattr(self, f"{side}_index").append(index)

    def compute(self) -> dict[str, Tensor]:
        states, classes, tokens = [], [], []
        for side in _SIDES:
            states.append(in_order(getattr(self, f"{side}_states"), getattr(self, f"{side}_index")))
            flat = self._windows[side].classes.reshape(-1)
            classes.append(torch.from_numpy(flat[flat >= 0]).to(self.device))
            tokens.append(torch.from_numpy(self._windows[side].tokens.reshape(-1)[flat >= 0]).to(self.device))
        probe, strength = fit_best(states[0], classes[0], len(CLASSES), _STRENGTHS)
        return {
            "text_probe": probe.accuracy(states[1], classes[1]),
            "text_probe_token": by_token(tokens[0], classes[0], tokens[1], classes[1]),
            "text_probe_chance": chance(classes[0], classes[1]),
            "text_probe_strength": torch.tensor(strength, dtype=torch.float64),
        }

    def settings(self) -> dict[str, int | float | str]:
        """With hashes of the windows of the latest ``measure``."""
        place = "of the family" if self.layer is None else self.layer
        return {"num_windows": self.num_windows, "layer": place, **self._facts}

    def measure(self, model: Model, data: DataModule, split: Split, batch_size: int, seed: int = 0) -> None:
        """Take in this rank's share of the windows. The model may be in any mode. Raises ConfigError as
        :meth:`check`."""
        self.check(model, data)
        assert isinstance(model, RepresentsTokens)
        assert isinstance(data, PythonSource)
        own = model.token_reading.layer
        layer = (1.0 if own is None else own) if self.layer is None else self.layer
        tested = held_out_split(split)
        splits: tuple[Split, Split] = ("train", tested)
        self._windows = {
            side: windows_of(data, part, self.num_windows) for side, part in zip(_SIDES, splits, strict=True)
        }
        hashes = {f"{side}_sha256": windows.sha256() for side, windows in self._windows.items()}
        self._facts = {"split": tested, **hashes}
        with in_eval_mode(model), full_precision(model.device):
            for side, windows in self._windows.items():
                places = np.arange(windows.tokens.size).reshape(windows.tokens.shape)
                mine = np.arange(len(windows.tokens))[rank() :: world()]
                for start in range(0, len(mine), batch_size):
                    rows = mine[start : start + batch_size]
                    known = windows.classes[rows] >= 0
                    tokens = torch.from_numpy(windows.tokens[rows]).to(model.device)
                    found = model.represent_tokens(tokens, layer)[torch.from_numpy(known).to(model.device)]
                    index = torch.from_numpy(places[rows][known])
                    self.update(found.float().to(self.device), index.to(self.device), side)

    def check(self, model: Model, data: DataModule) -> None:
        """Raises ConfigError: the data are no programs, or the model has no hidden states of their tokens."""
        if not isinstance(data, PythonSource):
            raise ConfigError(
                "metrics=text_probe reads programs, as of data=python_source. Leave it out of metrics=[...]."
            )
        if not isinstance(model, RepresentsTokens):
            raise ConfigError(
                f"metrics=text_probe: a {type(model).__name__} has no hidden states of tokens. "
                "Leave it out of metrics=[...]."
            )

    def subject(self, model: Model, split: Split) -> str:
        return held_out_split(split)


def by_token(train: Tensor, train_classes: Tensor, held_out: Tensor, classes: Tensor) -> Tensor:
    """The accuracy, on tokens (N,) and their classes (N,), of naming the class that the token has most often among
    ``train`` (M,); the most frequent class for one that is not there."""
    size = int(max(train.max(), held_out.max())) + 1
    counts = torch.zeros(size, len(CLASSES), dtype=torch.long, device=train.device)
    counts.index_put_((train.long(), train_classes), torch.ones_like(train_classes), accumulate=True)
    usual = train_classes.bincount().argmax()
    named = torch.where(counts.sum(dim=1) > 0, counts.argmax(dim=1), usual)
    return (named[held_out.long()] == classes).double().mean()


def windows_of(data: TextDataModule, split: Split, count: int) -> ClassedWindows:
    """``count`` windows of a split, the first of one file each, then a second, and so on; of files evenly spread, where
    there are more. Where in a file is a function of the numbers of the file and the window."""
    documents = [text for text in data.documents(split) if text.strip()]
    chosen = np.linspace(0, len(documents) - 1, min(count, len(documents))).round().astype(np.int64)
    tokens: list[np.ndarray] = []
    classes: list[np.ndarray] = []
    known: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    fruitless = 0
    while len(tokens) < count and fruitless < len(chosen):
        number = len(tokens) + fruitless
        document = int(chosen[number % len(chosen)])
        if document not in known:
            known[document] = classed_tokens(data, documents[document])
        own, named = known[document]
        room = len(own) - data.context
        if room < 0:
            fruitless += 1
            continue
        start = int(uniform_by_index(document, np.array([number // len(chosen)]))[0] * (room + 1))
        tokens.append(own[start : start + data.context])
        classes.append(named[start : start + data.context])
    if not tokens:
        raise ConfigError(
            f"metrics=text_probe: no file of the {split} split is as long as data.context={data.context} tokens. "
            "Use a smaller data.context."
        )
    return ClassedWindows(np.stack(tokens), np.stack(classes))


def classed_tokens(data: TextDataModule, document: str) -> tuple[np.ndarray, np.ndarray]:
    """The tokens of a program (L,) and the class of each (L,), -1 of white space alone."""
    tokens = np.asarray(data.tokenizer.encode(document), dtype=np.int64)
    content = document.encode()
    named = np.repeat(character_classes(document), [len(character.encode()) for character in document])
    classes = np.full(len(tokens), -1, dtype=np.int64)
    end = 0
    for i, token in enumerate(tokens.tolist()):
        start, end = end, end + len(data.tokenizer.bytes_of(token))
        first = next((j for j in range(start, min(end, len(content))) if not content[j : j + 1].isspace()), None)
        if first is not None:
            classes[i] = named[first]
    return tokens, classes


def character_classes(program: str) -> np.ndarray:
    """The number in :data:`CLASSES` of each character (L,); -1 of white space between tokens, and of all that follows a
    place where the text is no Python."""
    lines = [f"{line}\n" for line in program.split("\n")]
    starts = np.cumsum([0, *map(len, lines)]).tolist()
    classes = np.full(len(program), -1, dtype=np.int64)
    for kind, (row, column), (last_row, last_column) in _lexemes(lines):
        first, end = starts[row - 1] + column, starts[last_row - 1] + last_column
        classes[first:end] = kind
    return classes


def _lexemes(lines: Sequence[str]) -> Iterator[tuple[int, tuple[int, int], tuple[int, int]]]:
    try:
        for found in tokenize.generate_tokens(io.StringIO("".join(lines)).readline):
            if (kind := _class_of(found)) is not None:
                yield kind, found.start, found.end
    except (tokenize.TokenError, SyntaxError):  # what was found so far counts
        return


def _class_of(found: tokenize.TokenInfo) -> int | None:
    if found.type == kinds.NAME:
        return CLASSES.index("keyword" if keyword.iskeyword(found.string) else "name")
    name = kinds.tok_name[found.type]
    if name.startswith(("FSTRING", "TSTRING")) or name == "STRING":
        return CLASSES.index("string")
    return {"OP": 2, "NUMBER": 3, "COMMENT": 5}.get(name)

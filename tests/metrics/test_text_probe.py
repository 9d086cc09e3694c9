"""What part of a program a token is of: by Python's own tokenizer, and whether hidden states say it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from genlab.data.base import Split
from genlab.data.python_source import PythonSource
from genlab.data.text_file import TextFile
from genlab.data.tokenizer.bytes import Bytes
from genlab.errors import ConfigError
from genlab.evaluation.evaluation import Evaluation
from genlab.metrics.text_probe import CLASSES, TextProbe, by_token, character_classes, classed_tokens, windows_of
from genlab.model.base import Model
from genlab.model.representation import Reading
from genlab.model.schedule import Constant

PROGRAM = "def f(x):  # one\n    '''Two\n    lines'''\n    return x + 3.5\n"
LETTERS = {"k": "keyword", "n": "name", "o": "operator", "1": "number", "s": "string", "c": "comment", ".": None}
SAID = "kkk.nono" + "o.." + "ccccc." + "...." + "s" * (len("'''Two\n    lines'''")) + "." + "....kkkkkk.n.o.111."


def letters(classes: np.ndarray) -> str:
    by_number = {None if name is None else CLASSES.index(name): letter for letter, name in LETTERS.items()}
    return "".join(by_number[None if c < 0 else c] for c in classes.tolist())


def test_characters_are_classed_as_python_reads_them() -> None:
    assert letters(character_classes(PROGRAM)) == SAID


def test_form_feeds_and_other_ends_of_lines_move_nothing() -> None:
    assert letters(character_classes("a = 1\n\x0c\nb = 2\n")) == "n.o.1...n.o.1."
    assert letters(character_classes("s = 'a\x0cb\x1cc'\nt\n")) == "n.o.sssssss.n."


def test_what_is_no_python_has_no_class_from_there_on() -> None:
    classes = letters(character_classes("a = 1\nb = (\n"))
    assert classes.startswith("n.o.1.")
    assert len(classes) == 12


class Library(PythonSource):
    """Programs by split."""

    def __init__(self, folder: Path, context: int = 24):
        super().__init__(Bytes(), context, cache_dir=str(folder))

    def documents(self, split: Split) -> Iterable[str]:
        names = ("alpha", "beta", "gamma") if split == "train" else ("delta", "epsilon")
        return [
            f"# The name {n} \u00e4.\n" + f"def {n}(if_=1):\n    return '{n}' + {i}\n" * 9 for i, n in enumerate(names)
        ]


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path)


def test_tokens_have_the_class_of_their_first_character(library: Library) -> None:
    (document, *_) = library.documents("train")
    tokens, classes = classed_tokens(library, document)
    content = document.encode()
    assert tokens.tolist() == list(content)
    expected = character_classes(document)
    places = np.concatenate([np.full(len(c.encode()), i) for i, c in enumerate(document)])
    is_space = np.array([chr(byte).isspace() for byte in content])
    assert np.array_equal(classes, np.where(is_space, -1, expected[places]))


def test_windows_are_spread_over_files_and_never_the_same(library: Library) -> None:
    found = windows_of(library, "train", 7)
    assert found.tokens.shape == found.classes.shape == (7, 24)
    texts = [bytes(row.tolist()).decode("utf-8", "replace") for row in found.tokens]
    assert len(set(texts)) > 4
    whole = [document.encode() for document in library.documents("train")]
    assert [bytes(row.tolist()) in whole[i % 3] for i, row in enumerate(found.tokens)] == [True] * 7
    assert found.sha256() == windows_of(library, "train", 7).sha256() != windows_of(library, "val", 7).sha256()
    with pytest.raises(
        ConfigError, match=r"no file of the train split is as long as data\.context=9000 tokens\. Use a"
    ):
        windows_of(Library(Path(library.cache), 9000), "train", 2)


class States(Model):
    """Hidden states that are the class of the token, ``known``, or what the token is, with noise."""

    kinds = frozenset({"tokens"})
    token_reading = Reading("states", layer=0.5)

    def __init__(self, data: Library, known: bool):
        super().__init__(0, Constant())
        self.dropout = torch.nn.Dropout(0.5)
        self.answers = {}
        for split in ("train", "val"):
            windows = windows_of(data, split, 30)  # type: ignore[arg-type]
            self.answers |= {row.tobytes(): c for row, c in zip(windows.tokens, windows.classes, strict=True)}
        self.known, self.depths = known, set[float]()

    def configure_model(self) -> None: ...

    def training_step(self, batch: Any, batch_idx: int) -> None: ...

    def losses(self, batch: Any) -> dict[str, Tensor]:
        return {}

    def represent_tokens(self, tokens: Tensor, layer: float) -> Tensor:
        self.depths.add(layer)
        classes = torch.stack([torch.from_numpy(self.answers[row.tobytes()]) for row in tokens.numpy()])
        own = torch.nn.functional.one_hot(classes + 1, len(CLASSES) + 1).float()
        return self.dropout(own if self.known else torch.zeros_like(own) + tokens[..., None] % 2)


def measured(metric: Any, model: Model, data: Any, **options: Any) -> dict[str, float]:
    result = Evaluation(None, {"probe": metric}, 8, **options).run(model, data, weights="raw")
    for error in result.failures.values():
        raise error
    return result.values


def test_a_model_that_knows_is_right_and_others_are_not(library: Library) -> None:
    model = States(library, known=True)
    found = measured(TextProbe(30), model, library)
    assert found["text_probe_val"] == 1
    assert model.depths == {0.5}
    assert measured(TextProbe(30, layer=1.0), model, library, batch_size=1) == found
    assert model.depths == {0.5, 1.0}
    other = measured(TextProbe(30), States(library, known=False).train(), library)
    assert other["text_probe_val"] < 0.7
    assert {n: other[n] for n in ("text_probe_token_val", "text_probe_chance_val")} == {
        n: found[n] for n in ("text_probe_token_val", "text_probe_chance_val")
    }


def test_the_baselines_by_hand() -> None:
    train, classes = torch.tensor([5, 5, 5, 7, 7, 9]), torch.tensor([1, 1, 2, 0, 0, 1])
    held_out, truth = torch.tensor([5, 5, 7, 8]), torch.tensor([1, 2, 0, 1])
    assert float(by_token(train, classes, held_out, truth)) == 3 / 4  # 8 is new, and gets 1


def test_only_programs_and_models_of_text(library: Library, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("to be or not to be " * 40)
    text = TextFile(Bytes(), str(tmp_path / "a.txt"), context=8, cache_dir=str(tmp_path))
    with pytest.raises(ConfigError, match=r"text_probe reads programs, as of data=python_source\. Leave it out of"):
        TextProbe().check(States(library, known=True), text)
    with pytest.raises(ConfigError, match=r"a Module has no hidden states of tokens\. Leave it out of metrics"):
        TextProbe().check(torch.nn.Module(), library)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_windows=1 must be 2 or more"):
        TextProbe(1)
    with pytest.raises(ValueError, match="layer=2 is a depth"):
        TextProbe(layer=2)

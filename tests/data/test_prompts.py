"""Prompts with the right answer: what checkers find equal, and scores of a run's answers."""

from pathlib import Path
from typing import Any

import pytest

from chats import lines
from genlab.data.prompts import CHECKERS, Prompts
from genlab.data.tokenizer.bytes import Bytes
from genlab.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("checker", "answer", "right", "equal"),
    [
        ("exact", " Paris\n", "paris", True),
        ("exact", "new   york", "New York", True),
        ("exact", "Paris.", "Paris", False),
        ("contains", "It is paris, of course.", "Paris", True),
        ("contains", "It is Parisian.", "Paris", False),
        ("contains", "a+b", "a+b", True),
        ("contains", "aab", "a+b", False),
        ("number", "5 apples and 7: 12", "12", True),
        ("number", "12 of 13", "12", False),
        ("number", "So it is 1,200.", "1200.0", True),
        ("number", "0.5", "1/2", True),
        ("number", "-3", "3", False),
        ("number", "2-3", "-3", True),
        ("number", "none", "3", False),
        ("number", "3", "none", False),
        ("number", "7/0", "7", False),
        ("number", "9" * 5000, "9", False),
    ],
)
def test_what_is_right(checker: str, answer: str, right: str, equal: bool) -> None:
    assert CHECKERS[checker](answer, right) is equal


def data(rows: Any, folder: Path, **options: Any) -> Prompts:
    path = str(lines(rows, folder / "prompts.jsonl"))
    return Prompts(Bytes(), path, val_path=path, cache_dir=str(folder), **options)


def test_answers_are_scored_by_the_row_they_answer(tmp_path: Path) -> None:
    rows = [{"prompt": f"{i} + 1", "answer": f"It is {i + 1}"} for i in range(5)]
    made = data(rows, tmp_path, checker="number")
    for i, one in enumerate(made.known("val")):
        assert made.score(one, f"{i + 1}", "val") == 1.0
        assert made.score(one, f"{i + 2}", "val") == 0.0


def test_scores_of_other_checkers_have_other_ids(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "answer": "b"}, {"prompt": "c", "answer": "d"}]
    assert len({data(rows, tmp_path, checker=one).text_hash("val") for one in CHECKERS}) == 3


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.checker must be exact, contains, number, got regex\."):
        data([{"prompt": "a", "answer": "b"}], tmp_path, checker="regex")
    with pytest.raises(DataError, match=r"line 1: there is no text in answer \(it has: prompt\)\."):
        data([{"prompt": "a"}], tmp_path).known("val")

"""Preferences as data: how rows are read, which predictions count, and what is left out."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chats import lines, said
from genlab.data.conversation import Message
from genlab.data.pair import PairColumns
from genlab.data.preferences import Preferences, _others
from genlab.data.tokenizer.bpe import BPE
from genlab.data.tokenizer.bytes import Bytes
from genlab.errors import ConfigError, DataError

OPEN, CLOSE = 257, 258  # of chatml, after the bytes and the end token


def read(**row: Any) -> tuple[list[Message], list[Message], list[Message]]:
    """Prompt, chosen and rejected."""
    pair = PairColumns().read(row, "here")
    return [*pair.prompt], [*pair.answers[0]], [*pair.answers[1]]


def data(rows: Any, folder: Path, **options: Any) -> Preferences:
    path = str(lines(rows, folder / "pairs.jsonl"))
    return Preferences(Bytes(), path, val_path=path, **{"cache_dir": str(folder), "context": 100, **options})


def pair(prompt: str, chosen: str, rejected: str, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


# --- rows -------------------------------------------------------------------------------------------------------------


def test_a_row_may_have_texts_messages_or_whole_conversations() -> None:
    """The columns of TRL's standard and conversational formats, with and without a prompt."""
    question, good, bad = said("q", "good"), said("q", "good")[1:], said("q", "bad")[1:]
    wanted = (question[:1], good, bad)
    assert read(prompt="q", chosen="good", rejected="bad") == wanted
    assert read(prompt=question[:1], chosen=good, rejected=bad) == wanted
    assert read(chosen=question, rejected=said("q", "bad")) == wanted
    assert read(prompt="q", chosen=question, rejected=said("q", "bad")) == wanted
    longer = said("a", "b", "q", "good"), said("a", "b", "q", "bad")
    assert read(chosen=longer[0], rejected=longer[1]) == (longer[0][:3], good, bad)
    assert read(chosen=question, rejected=question) == (question[:1], good, good)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "q", "chosen": "a"}, r"^here: there is no rejected answer \(it has: prompt, chosen\)"),
        ({"chosen": "a", "rejected": "b"}, r"^here: there is no prompt"),
        (pair("q", "a", "b", tie=1), r"^here: tie is 1, and not true or false"),
        (pair("q", "a", " "), r"^here: rejected: the answer \(message 2\) is empty"),
        (pair("q", "a", 3), r"^here: rejected is not a list of messages"),  # type: ignore[arg-type]
        (
            {"chosen": said("q", "a"), "rejected": said("r", "a")},
            r"do not answer the same prompt \(message 1 differs\)",
        ),
        ({"chosen": said("q"), "rejected": said("q", "a")}, r"^here: chosen: the conversation has no answer"),
    ],
)
def test_what_is_no_pair_is_refused(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        PairColumns().read(row, "here")


# --- what counts ------------------------------------------------------------------------------------------------------


def test_what_counts_is_the_answer_after_the_prompt_and_its_end(tmp_path: Path) -> None:
    """Not the answers within the prompt; the same for both."""
    rows = [{"prompt": said("a", "b", "c"), "chosen": "yes", "rejected": "no!"}, pair("q", "x", "y")]
    batch = data(rows, tmp_path).dataset("train")[[(0, 0)]]
    for side, answer in enumerate((b"yes", b"no!")):
        targets = batch["tokens"][0, side, 1:][batch["answer"][0, side]]
        assert targets.tolist() == [*answer, CLOSE]
    first = batch["tokens"][0, 0].tolist()
    assert bytes(t for t in first if 0 < t < 256) == b"user\na\nassistant\nb\nuser\nc\nassistant\nyes\n"
    assert batch["tie"].tolist() == [False]


def test_every_prompt_also_comes_with_answers_to_another(tmp_path: Path) -> None:
    """Those of the next pair whose prompt is another one, in any batch."""
    rows = [pair("p", "a", "b"), pair("p", "c", "d"), pair("r", "e", "f")]
    dataset = data(rows, tmp_path).dataset("train")
    batch = dataset[[(0, i) for i in range(3)]]
    found = [[bytes(batch["mismatched"][i, side, 1:][batch["mismatched_answer"][i, side]][:-1].tolist()).decode()
              for side in range(2)] for i in range(3)]  # fmt: skip
    assert found == [["e", "f"], ["e", "f"], ["a", "b"]]
    for i in range(3):
        begins = int(batch["answer"][i, 0].int().argmax()) + 1
        assert batch["mismatched"][i, 0, :begins].equal(batch["tokens"][i, 0, :begins])
        assert dataset[[(0, i)]]["mismatched"][0].equal(batch["mismatched"][i])


def test_the_next_other_prompt() -> None:
    rng = np.random.default_rng(0)
    for count in (1, 2, 5, 9):
        prompts: Any = [str(number) for number in rng.integers(0, 3, count)]
        for i, other in enumerate(_others(prompts)):
            circle = [(i + j) % count for j in range(count)]
            assert other == next((j for j in circle if prompts[j] != prompts[i]), i)


def test_a_tokenizer_learns_from_both_answers(tmp_path: Path) -> None:
    path = str(lines([pair(f"q{i}", "a", "zzzz") for i in range(9)], tmp_path / "p.jsonl"))
    tokenizer = BPE(263)
    made = Preferences(tokenizer, path, cache_dir=str(tmp_path), context=60)
    assert "zz" in [made.tokenizer.decode([token]) for token in range(made.tokenizer.vocab_size)]


def test_pairs_with_one_prompt_are_on_one_side(tmp_path: Path) -> None:
    rows = [pair(f"q{i // 4}", f"a{i}", f"b{i}") for i in range(80)]
    path = str(lines(rows, tmp_path / "pairs.jsonl"))
    made = Preferences(Bytes(), path, cache_dir=str(tmp_path), context=60, val_fraction=0.3)
    asked = [{one.question for one in made.known(split)} for split in ("train", "val")]
    assert len(made.known("train")) + len(made.known("val")) == 80
    assert not asked[0] & asked[1]


# --- what is left out -------------------------------------------------------------------------------------------------


def test_equal_answers_are_dropped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [pair("p", "a", "b"), pair("q", "a", "a"), pair("r", "c", "c", tie=True)]
    with caplog.at_level(logging.WARNING):
        made = data(rows, tmp_path, ties="half")
        assert len(made.dataset("train")) == 1
    assert "2 of the 3 pairs of" in caplog.text
    assert "pairs.jsonl, line 2: they are left out" in caplog.text
    with pytest.raises(DataError, match=r"^nothing is left of the 1 pairs .*1 have equal answers, and 0 are ties"):
        data(rows[1:2], tmp_path).dataset("train")


def test_ties_are_dropped_or_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [pair("p", "a", "b"), pair("q", "a", "b", tie=True)]
    with caplog.at_level(logging.WARNING):
        assert len(data(rows, tmp_path).dataset("train")) == 1
    assert "1 of the 2 pairs" in caplog.text
    assert "data.ties=half" in caplog.text
    batch = data(rows, tmp_path, ties="half").dataset("train")[[(0, 0), (0, 1)]]
    assert batch["tie"].tolist() == [False, True]
    with pytest.raises(ConfigError, match=r"^data\.ties must be drop or half, got all\.$"):
        data(rows, tmp_path, ties="all")


def test_answers_are_cut_at_the_context(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Pairs that do not differ before it are left out; if most are, no run begins."""
    rows = [pair("p", "a" * 90, "a" * 89 + "b"), pair("q", "a", "b"), pair("r", "cd", "ce")]
    with caplog.at_level(logging.WARNING):
        made = data(rows, tmp_path, context=60)
        assert len(made.dataset("train")) == 2
        assert len(made.fitting("train")[0]) == 2
    assert "2 of the 6 answers" in caplog.text
    assert "1 pairs that do not differ before that are left out" in caplog.text
    with pytest.raises(DataError, match=r"do not differ within data.context=10 tokens\. Use data\.context=111\.$"):
        data(rows, tmp_path, context=10).dataset("train")


def test_the_fingerprint_knows_both_answers(tmp_path: Path) -> None:
    rows = [pair("p", "a", "b"), pair("q", "c", "d")]
    changed = [rows[0], pair("q", "c", "e")]
    assert data(rows, tmp_path).fingerprint != data(changed, tmp_path).fingerprint

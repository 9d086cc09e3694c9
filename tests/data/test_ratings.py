"""Ratings as data: how rows are read, what is held out together, and what is refused."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from chats import lines
from genlab.data.rated import RatingColumns
from genlab.data.ratings import Ratings
from genlab.data.tokenizer.bytes import Bytes
from genlab.data.vader import Vader
from genlab.errors import ConfigError, DataError


def columns(**options: Any) -> RatingColumns:
    return RatingColumns("prompt", "completion", **options)


def data(rows: Any, folder: Path, own_val: bool = True, **options: Any) -> Ratings:
    path = str(lines(rows, folder / "ratings.jsonl"))
    given: dict[str, Any] = {"cache_dir": str(folder), "context": 60, "template": "plain", **options}
    return Ratings(Bytes(), path, val_path=path if own_val else None, **given)


def row(text: str, rating: Any, **more: Any) -> dict[str, Any]:
    return {"completion": text, "rating": rating, **more}


def test_a_rating_is_a_number_or_what_several_people_said() -> None:
    one = columns().read(row("good", 4, prompt="q"), "here")
    assert (one.rating, one.ratings, one.answer) == (4.0, (), "good")
    assert one.prompt == ({"role": "user", "content": "q"},)
    several = columns().read(row("good", [5, 4, 3, 3]), "here")
    assert (several.rating, several.ratings) == (3.75, (5, 4, 3, 3))
    assert several.prompt[0]["content"] == ""


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (row("a", 6), r"^here: the rating 6 is not one from 1 to 5\. .*data\.lowest=1 data\.highest=6$"),
        (row("a", [3, 0]), r"^here: the rating 0 is not one from 1 to 5\. .*data\.lowest=0 data\.highest=5$"),
        (row("a", "good"), r"^here: rating is 'good', and neither a number nor a list of numbers"),
        (row("a", []), r"^here: rating is '\[\]', and neither"),
        (row("a", True), r"^here: rating is 'True', and neither"),
        (row("a", float("nan")), r"^here: rating is 'nan', and neither"),
        ({"completion": "a"}, r"^here: rating is 'None', .* \(it has: completion\)\. .*data\.rating=\.\.\.$"),
        (row(" ", 3), r"^here: the answer \(message 2\) is empty"),
        (row(3, 3), r"^here: there is no text in completion"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_rating_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        columns().read(wrong, "here")


def test_the_scale_and_the_column_that_are_advised_are_read() -> None:
    with pytest.raises(DataError) as refused:
        columns().read(row("a", [3, 0, 7]), "here")
    low, high = (float(word.partition("=")[2]) for word in str(refused.value).split()[-2:])
    assert columns(limits=(low, high)).read(row("a", [3, 0, 7]), "here").ratings == (3, 0, 7)
    assert columns(rating="stars").read({"completion": "a", "stars": 2}, "here").rating == 2


def test_a_batch_has_the_rating_on_a_scale_and_the_place_of_the_last_token(tmp_path: Path) -> None:
    made = data([row("ab", 1), row("abcdef", 5, prompt="why"), row("abc", 2)], tmp_path)
    batch = made.dataset("train")[[(0, 0), (0, 1), (0, 2)]]
    assert batch["rating"].tolist() == [-1.0, 1.0, -0.5]
    assert batch["tokens"].shape == (3, 32)  # the longest, in steps of 16
    for tokens, last, text in zip(batch["tokens"], batch["last"], ("ab", "abcdef", "abc"), strict=True):
        read = tokens[int(last) - len(text) : int(last) + 1].tolist()
        assert read == [*text.encode(), made.tokenizer.end]


def test_long_texts_are_cut_and_most_must_begin_in_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [row("x" * 80, 3), row("ab", 1), row("cd", 2)]
    made = data(rows, tmp_path)
    with caplog.at_level(logging.WARNING):
        batch = made.dataset("train")[[(0, 0)]]
    assert "1 of the 3 texts" in caplog.text
    assert batch["tokens"].shape[1] == 60
    assert int(batch["last"]) == 59
    asked = [row("ab", 1, prompt="?" * 90), row("cd", 2, prompt="!" * 90), row("ef", 2)]
    (tmp_path / "late").mkdir()
    with pytest.raises(
        DataError, match=r"2 of the 3 texts .* beyond data\.context=60 tokens\. Use data\.context=\d+\.$"
    ) as refused:
        data(asked, tmp_path / "late").dataset("train")
    enough = int(str(refused.value).rpartition("=")[2].rstrip("."))
    assert len(data(asked, tmp_path / "late", context=enough).dataset("train")) == 3


def test_a_group_is_held_out_together(tmp_path: Path) -> None:
    rows = [row(f"text {i}", 1 + i % 5, document=f"d{i // 5}") for i in range(100)]
    made = data(rows, tmp_path, own_val=False, val_fraction=0.3, group="document")
    groups = [{one.group for one in made.known(split)} for split in ("train", "val")]  # type: ignore[attr-defined]
    assert not groups[0] & groups[1]
    assert sum(len(made.known(split)) for split in ("train", "val")) == 100
    asked = data([row(f"text {i}", 2, prompt=f"p{i // 5}") for i in range(100)], tmp_path, False, val_fraction=0.3)
    prompts = [{one.prompt[0]["content"] for one in asked.known(split)} for split in ("train", "val")]
    assert not prompts[0] & prompts[1]
    alone = data([row(f"text {i}", 2) for i in range(100)], tmp_path, False, val_fraction=0.3)
    assert 10 < len(alone.known("val")) < 50


def test_the_rating_is_part_of_what_the_data_are(tmp_path: Path) -> None:
    hashes = {data([row("a", said), row("b", 1)], tmp_path).text_hash("train") for said in (2, 3, [3, 3], [2, 4])}
    assert len(hashes) == 4


def test_a_scale_has_two_ends(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.lowest=5 must be below data\.highest=5\."):
        data([row("a", 5)], tmp_path, lowest=5)


# --- the sentences of VADER -------------------------------------------------------------------------------------------


def vader(folder: Path, name: str = "movieReviewSnippets", keys: Any = range(40)) -> Path:
    """Files of the layout of the package's."""
    folder.mkdir(exist_ok=True)
    text = "".join(f"{key}\t0.5\tCaf\xe9 \x85 number {i}\tor so\n" for i, key in enumerate(keys))
    (folder / f"{name}_GroundTruth.txt").write_bytes(b"\xef\xbb\xbf" + text.encode("latin-1"))
    said = "".join(f"{key}\t0.5\t1.0\t[{i % 5 - 2}, 1, 3]\n" for i, key in enumerate(keys))
    (folder / f"{name}_anonDataRatings.txt").write_text(said)
    return folder


def of_vader(folder: Path, texts: Any = ("films",), **options: Any) -> Vader:
    return Vader(Bytes(), str(folder), texts, cache_dir=str(folder / "cache"), template="plain", **options)


def test_sentences_and_what_each_person_said(tmp_path: Path) -> None:
    made = of_vader(vader(tmp_path / "v"), val_fraction=0.2)
    known: list[Any] = sorted([*made.known("train"), *made.known("val")], key=lambda one: one.answer)
    assert len(known) == 40
    assert known[0].answer == "Caf\xe9 \x85 number 0\tor so"
    assert known[0].ratings == (-2, 1, 3)
    assert made.target(4.0) == 1
    assert made.target(0.0) == 0
    batch = made.dataset("train")[[(0, 0)]]
    assert batch["rating"].tolist() == pytest.approx([sum(made.known("train")[0].ratings) / 3 / 4])  # type: ignore[attr-defined]


def test_documents_are_held_out_whole(tmp_path: Path) -> None:
    keys = [f"{document}_{i}" for document in range(20) for i in range(5)]
    vader(tmp_path / "v", "amazonReviewSnippets", keys)
    made = of_vader(tmp_path / "v", ["products"], val_fraction=0.3)
    groups = [{one.group for one in made.known(split)} for split in ("train", "val")]  # type: ignore[attr-defined]
    assert not groups[0] & groups[1]
    assert groups[0] | groups[1] == {f"products {i}" for i in range(20)}


def test_files_that_are_not_there_or_are_others(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*movieReviewSnippets_GroundTruth.txt \(no such .*pip download"):
        of_vader(tmp_path).known("train")
    folder = vader(tmp_path / "v")
    ratings = folder / "movieReviewSnippets_anonDataRatings.txt"
    whole = ratings.read_text()
    ratings.write_text(whole.replace("[-2, 1, 3]", "[-2, 1", 1))
    with pytest.raises(DataError, match="movieReviewSnippets, line 1: the ratings are no list of numbers"):
        of_vader(folder).known("train")
    ratings.write_text(whole.partition("\n")[2])
    with pytest.raises(DataError, match=r"has 40 lines, and the file of ratings 39\. Unpack both again\.$"):
        of_vader(folder).known("train")
    ratings.write_text(whole.replace("\t", " ", 1))
    with pytest.raises(DataError, match=r"line 1: there are not 4 columns\."):
        of_vader(folder).known("train")
    with pytest.raises(ConfigError, match=r"data\.texts must be some of films, products, news, posts, got books\."):
        of_vader(folder, ["books"])


def test_a_text_with_equal_ratings_everywhere_is_fine(tmp_path: Path) -> None:
    batch = data([row("a", 3), row("b", 3)], tmp_path).dataset("val")[[(0, 0), (0, 1)]]
    assert torch.equal(batch["rating"], torch.zeros(2))

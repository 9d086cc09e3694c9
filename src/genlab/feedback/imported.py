"""Judgments that were made elsewhere: JSON lines with TRL's columns, as a folder of feedback."""

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from genlab.errors import DataError
from genlab.feedback.begin import begin, hash_of
from genlab.feedback.session import RATINGS, Item, Judgment, Output, create, order
from genlab.files.regular_file import LARGEST_TEXT


class Row(NamedTuple):
    prompt: str
    outputs: tuple[str, ...]  # chosen and rejected, or what is rated
    rating: int | None = None
    tie: bool = False


def import_judgments(path: Path, out: Path) -> None:
    """Make a folder of the rows of ``path``, all of them judged: pairs of ``prompt``, ``chosen``, ``rejected`` (and
    ``tie: true``), or ratings of ``prompt``, ``completion``, ``rating``. Messages become text.

    Raises DataError: it cannot be read, or a row is neither; ConfigError: ``out`` holds something else.
    """
    rows, content = [], _read(path)
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip():
            rows.append(_row(line, f"import={path}, line {number}"))
    kept = [row for row in rows if row.rating is not None or row.outputs[0] != row.outputs[1]]
    if not kept:
        told = "all pairs have equal answers" if rows else "is empty"
        raise DataError(f"import={path}: {told}: nothing is judged. Name another file.")
    rate = kept[0].rating is not None
    for number, row in enumerate(kept):
        if (row.rating is not None) != rate:
            raise DataError(f"import={path} has pairs and ratings (row {number + 1}). Write them to two files.")
    if len(kept) < len(rows):
        print(f"{len(rows) - len(kept)} of {len(rows)} pairs are left out: chosen and rejected are equal.")
    asked = {"import": str(path.resolve()), "content": hash_of([content])}
    begin(out, asked, lambda: _write(kept, rate, str(path), asked, out))


def _write(rows: list[Row], rate: bool, name: str, asked: Mapping[str, Any], out: Path) -> None:
    """Which answer is first in the file of items is random: it says nothing about which was chosen."""
    swapped = [not rate and random.Random(f"import {i}").random() < 0.5 for i in range(len(rows))]
    items = []
    for i, row in enumerate(rows):
        texts = row.outputs[::-1] if swapped[i] else row.outputs
        items.append(Item(row.prompt or None, tuple(Output(source, i, text) for source, text in enumerate(texts))))
    sources = [name] * len(items[0].outputs)
    judged = []
    for showing in order(items, 0, again=False):
        row = rows[showing.item]
        winner = None if rate or row.tie else int(swapped[showing.item])
        judged.append(Judgment(showing, winner, row.rating, None, ""))
    facts = {"kind": "text", "sources": sources, "rate": rate, "seed": 0, "imported": True, "asked": dict(asked)}
    create(out, facts, items, judged)


def _row(line: str, where: str) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise DataError(f"{where}: not a JSON object. Correct or remove it.")
    needed = ("completion",) if "rating" in row else ("chosen", "rejected")
    if lacking := [name for name in needed if name not in row]:
        raise DataError(
            f"{where}: there is no {lacking[0]}. A row has prompt, chosen and rejected, or prompt, completion and "
            "rating."
        )
    if "rating" in row:
        if type(row["rating"]) is not int or row["rating"] not in RATINGS:
            raise DataError(f"{where}: rating is {row['rating']!r}. Write a whole number from 1 to 5.")
        return Row(
            _text(row.get("prompt"), where, "prompt"), (_text(row["completion"], where, "completion"),), row["rating"]
        )
    if type(tie := row.get("tie", False)) is not bool:
        raise DataError(f"{where}: tie is {tie!r}. Write true or false.")
    prompt, chosen, rejected = row.get("prompt"), row["chosen"], row["rejected"]
    if prompt is None and isinstance(chosen, list) and isinstance(rejected, list):  # then both begin with it
        same = next((i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), 0)
        prompt, chosen, rejected = chosen[:same] or None, chosen[same:], rejected[same:]
    return Row(
        _text(prompt, where, "prompt"),
        (_text(chosen, where, "chosen"), _text(rejected, where, "rejected")),
        tie=tie,
    )


def _text(value: Any, where: str, column: str) -> str:
    """A text, or what messages say; the roles of several are written before them."""
    if isinstance(value, str) or (value is None and column == "prompt"):
        return value or ""
    if (
        isinstance(value, list)
        and value
        and all(
            isinstance(one, dict) and isinstance(one.get("role"), str) and isinstance(one.get("content"), str)
            for one in value
        )
    ):
        if len(value) == 1:
            return str(value[0]["content"])
        return "\n\n".join(f"{one['role']}: {one['content']}" for one in value)
    raise DataError(f"{where}: {column} is neither a text nor messages with role and content. Correct or remove it.")


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_TEXT + 1)
        if len(content) > LARGEST_TEXT:
            raise DataError(f"import={path} has more than {LARGEST_TEXT >> 20} MiB. Split it.")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"import={path} cannot be read ({(error.strerror or str(error)).lower()}).") from error
    except UnicodeDecodeError as error:
        raise DataError(f"import={path} is not UTF-8 text. Save it as UTF-8.") from error

"""Judgments as preference data: JSON lines with the columns that TRL reads."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genlab.feedback.session import Output, Session, file_of
from genlab.feedback.statistics import first, twice
from genlab.files.atomic import prepare_file, write_atomically


def export(session: Session, path: Path) -> tuple[int, int, int]:
    """Write ``prompt``, ``chosen`` and ``rejected`` of each pair; of ratings, ``prompt``, ``completion`` and
    ``rating``; and the class that they were drawn for, if they were, by its key. Pictures and videos are named by their
    paths.

    Returns the rows, and how many pairs are left out: ties, and those judged otherwise when they came again. Raises
    StorageError.
    """
    unsure = {one.showing.item for one, other in twice(session) if one.winner != other.winner}
    pairs = [judged for judged in first(session) if judged.showing.item not in unsure]
    ties = sum(judged.winner is None for judged in pairs) if not session.rate else 0
    rows = [*_rows(session, set() if session.rate else unsure)]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    prepare_file(path)
    write_atomically(path, lambda file: file.write(text.encode("utf-8", "replace")))
    return len(rows), ties, 0 if session.rate else len(unsure)


def _rows(session: Session, unsure: set[int]) -> Iterator[dict[str, Any]]:
    for judged in first(session):
        item = session.items[judged.showing.item]
        told: dict[str, Any] = {**item.classes, "prompt": item.prompt or ""}
        if session.rate:
            yield told | {"completion": _content(session, item.outputs[0]), "rating": judged.rating}
        elif judged.winner is not None and judged.showing.item not in unsure:
            chosen, rejected = item.outputs[judged.winner], item.outputs[1 - judged.winner]
            yield told | {"chosen": _content(session, chosen), "rejected": _content(session, rejected)}


def _content(session: Session, output: Output) -> str:
    if output.text is not None:
        return output.text
    return str((session.folder / file_of(output)).resolve())

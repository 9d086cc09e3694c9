"""A new folder of feedback: made once, continued by the same command, and what is compared in it."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from genlab.errors import DataError
from genlab.feedback.session import Item, Output, check_asked, file_of, is_begun, lock
from genlab.files.atomic import writing


class Column(NamedTuple):
    """What one source gave, and what for."""

    outputs: Sequence[Output]
    prompts: Sequence[str | None]
    classes: Sequence[Mapping[str, int]]  # of each, by the key of the condition


def begin(out: Path, asked: Mapping[str, Any], prepare: Callable[[], None]) -> None:
    """Let ``prepare`` fill the folder, which another process may not; or check that it holds what is ``asked``.

    Raises ConfigError: it holds something else.
    """
    if is_begun(out):
        check_asked(out, asked)
        return
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    held = lock(out)
    try:
        prepare()
    finally:
        held.release()


def hash_of(prompts: Sequence[str] | None) -> str | None:
    return None if prompts is None else hashlib.sha256("\n".join(prompts).encode()).hexdigest()


def arranged(columns: Sequence[Column], rate: bool, seed: int, out: Path) -> list[Item]:
    """What is rated, in an order that mixes the sources, or the pairs that differ; those that do not are counted.

    Raises DataError: no pair differs.
    """
    if rate:
        items = [
            Item(prompt, (output,), classes)
            for column in columns
            for output, prompt, classes in zip(*column, strict=True)
        ]
        return sorted(items, key=lambda item: _shuffled(seed, item.outputs[0]))
    first, second = columns
    shared = [dict(one.items() & other.items()) for one, other in zip(first.classes, second.classes, strict=True)]
    items = [
        Item(prompt, (one, other), classes)
        for prompt, one, other, classes in zip(first.prompts, first.outputs, second.outputs, shared, strict=True)
    ]
    different = [item for item in items if _content(item.outputs[0], out) != _content(item.outputs[1], out)]
    if not different:
        raise DataError(
            f"all {len(items)} pairs of samples are equal: nothing can be compared. Name another run, or prompts."
        )
    if len(different) < len(items):
        print(f"{len(items) - len(different)} of {len(items)} pairs are left out: both samples are equal.")
    return different


def _content(output: Output, out: Path) -> object:
    return output.text if output.text is not None else (out / file_of(output)).read_bytes()


def _shuffled(seed: int, output: Output) -> str:
    return hashlib.sha256(f"{seed} {output.source} {output.number}".encode()).hexdigest()

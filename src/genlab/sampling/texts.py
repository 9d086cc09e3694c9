"""Texts as a file."""

from collections.abc import Sequence
from pathlib import Path

from genlab.files.atomic import write_atomically

BETWEEN = "\n" + 80 * "-" + "\n"  # one text and the next


def write_texts(texts: Sequence[str], path: Path) -> None:
    """One file, UTF-8. Raises StorageError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write((BETWEEN.join(texts) + "\n").encode()))

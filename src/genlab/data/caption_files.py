"""Reads the captions of a folder of images: a .txt beside each image, or metadata.csv or .jsonl as of Hugging Face."""

import csv
import json
import logging
import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from genlab.data.image_files import ImageFile, Seen
from genlab.data.text_files import decode
from genlab.errors import DataError
from genlab.files.paths import read_path
from genlab.files.regular_file import LARGEST_TABLE, IrregularFileError, open_text, read_bytes
from genlab.progress import progress

METADATA = ("metadata.jsonl", "metadata.csv")
_LARGEST = 1 << 20  # bytes of a .txt
_SHOWN = 5  # names in a message

_log = logging.getLogger(__name__)


def read_captions(
    root: str, files: Sequence[ImageFile], found: Sequence[Seen], text_column: str
) -> list[tuple[str, ...]]:
    """The captions of each of ``files``, one at least: of ``found``, what is in ``root``, the metadata files if there
    are any, else the .txt files.

    In a .txt each line that is not blank is a caption. Metadata have a row for each image, with its path relative to
    their own folder as ``file_name``, and ``text_column`` with its caption or, in JSON, a list; several rows of one
    image are several captions. Names in them are compared with those of ``files`` and are never opened.

    Raises:
        DataError: an image has no caption, or a file is damaged, not UTF-8 or not regular.
    """
    tables = [name for name, _, _ in found if posixpath.basename(name) in METADATA]
    captions = _of_tables(root, tables, text_column) if tables else _of_texts(root, files, found)
    lacking = [file.name for file in files if not captions.get(file.name)]
    if lacking:
        example = posixpath.splitext(lacking[0])[0]
        remedy = (
            f"Add rows to {tables[0]}" if tables else f"Write them into .txt files beside the images ({example}.txt)"
        )
        raise DataError(
            f"{len(lacking)} of the {len(files)} images in {root} have no caption: {shown(lacking)}. "
            f"{remedy}, remove the images, or train without captions: data=image_folder."
        )
    known = {file.name for file in files}
    if others := [name for name in captions if name not in known]:
        _log.warning(
            "%d rows of %s are of files that are no images in %s: %s.", len(others), tables[0], root, shown(others)
        )
    return [captions[file.name] for file in files]


def shown(names: Sequence[str]) -> str:
    """The first few names, for a message."""
    return ", ".join(name[:100] for name in names[:_SHOWN]) + ", ..." * (len(names) > _SHOWN)


def _of_texts(root: str, files: Sequence[ImageFile], found: Sequence[Seen]) -> dict[str, tuple[str, ...]]:
    texts = {name for name, _, _ in found if name.endswith(".txt")}
    captions = {}
    with progress(f"reading the captions in {root}", len(files)) as advance:
        for file in files:
            name = f"{posixpath.splitext(file.name)[0]}.txt"
            if name in texts:
                captions[file.name] = written(_read(read_path(root) / name).splitlines())
            advance(1)
    return captions


def _of_tables(root: str, tables: Sequence[str], text_column: str) -> dict[str, tuple[str, ...]]:
    captions: dict[str, list[str]] = {}
    for table in tables:
        path = read_path(root) / table
        for line, row in _rows(path):
            where = f"{path}, line {line}"
            if lacking := [column for column in ("file_name", text_column) if column not in row]:
                raise DataError(
                    f"{where}: there is no {lacking[0]} (there are: {shown([str(c) for c in row])}). "
                    + ("Name the column with captions: data.text_column." if lacking[0] == text_column else "Add it.")
                )
            name, text = row["file_name"], row[text_column]
            texts: list[Any] = text if isinstance(text, list) else [text]
            if not isinstance(name, str) or not all(isinstance(text, str | None) for text in texts):
                raise DataError(f"{where}: file_name must be a text, and {text_column} a text or a list of texts.")
            name = posixpath.normpath(posixpath.join(posixpath.dirname(table), name))
            captions.setdefault(name, []).extend(written(text for text in texts if text is not None))
    return {name: tuple(texts) for name, texts in captions.items()}


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    """The rows of a table, with their lines from 1 on."""
    try:
        with open_text(Path(os.path.realpath(path)), largest=LARGEST_TABLE) as file:
            if path.suffix == ".csv":
                reader = csv.DictReader(file)
                for row in reader:
                    yield reader.line_num, {key: value for key, value in row.items() if key is not None}
                return
            for line, text in enumerate(file, start=1):
                if not text.strip():
                    continue
                row = json.loads(text.removeprefix("\ufeff"))
                if not isinstance(row, dict):
                    raise DataError(f"{path}, line {line} is not a JSON object.")
                yield line, row
    except IrregularFileError as error:
        raise DataError(f"{path} {error.strerror}.") from error
    except OSError as error:
        raise DataError(f"cannot read {path} ({(error.strerror or str(error)).lower()}).") from error
    except (ValueError, csv.Error, RecursionError) as error:
        cause = " ".join(str(error).split())[:200]
        raise DataError(f"{path} is not {path.suffix[1:].upper()} in UTF-8 ({cause}).") from error


def _read(path: Path) -> str:
    try:
        content = read_bytes(Path(os.path.realpath(path)), largest=_LARGEST)  # links of the user's own are followed
    except IrregularFileError as error:
        raise DataError(f"{path} {error.strerror}.") from error
    except OSError as error:
        raise DataError(f"cannot read {path} ({(error.strerror or str(error)).lower()}).") from error
    return decode(content, str(path)).removeprefix("\ufeff")


def written(texts: Iterable[str]) -> tuple[str, ...]:
    """The texts that are not blank, with single spaces."""
    return tuple(text for text in (" ".join(text.split()) for text in texts) if text)

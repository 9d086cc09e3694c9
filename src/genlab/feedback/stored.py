"""Samples that are stored: folders of pictures, videos or texts, copied into a folder of feedback."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from genlab.errors import ConfigError, DataError
from genlab.feedback.asked import read_prompts
from genlab.feedback.begin import Column, arranged, begin, hash_of
from genlab.feedback.session import TYPES, Output, create, file_of, kind_of_file
from genlab.files.atomic import write_atomically, writing
from genlab.files.paths import read_path
from genlab.files.regular_file import LARGEST_PICTURE, kind_of

_BEGINS = {  # where it does, and how
    ".png": (0, b"\x89PNG\r\n\x1a\n"),
    ".jpg": (0, b"\xff\xd8\xff"),
    ".gif": (0, b"GIF8"),
    ".webp": (8, b"WEBP"),
    ".mp4": (4, b"ftyp"),
    ".webm": (0, b"\x1aE\xdf\xa3"),
}


def prepare_stored(options: Mapping[str, Any]) -> None:
    """Fill ``options["out"]`` with the files of the folders ``options["samples"]``, unless it holds them.

    Of two folders, files of one name are compared. Raises ConfigError and DataError: they cannot be.
    """
    out, seed, rate = read_path(options["out"]), options["seed"], options["rate"]
    folders = [read_path(folder) for folder in options["samples"]]
    prompts = None if options["prompts"] is None else read_prompts(read_path(options["prompts"]))
    asked = {
        "samples": [str(folder.resolve()) for folder in folders],
        "prompts": hash_of(prompts),
        "n": options["n"],
        "seed": seed,
        "rate": rate,
    }

    def prepare() -> None:
        found = [_files(folder) for folder in folders]
        kinds = sorted({kind for kind, _ in found})
        if len(kinds) > 1:
            raise ConfigError(
                f"samples={folders[0]} holds {found[0][0]}s and {folders[1]} {found[1][0]}s: name two of a kind."
            )
        names = [sorted(files) for _, files in found]
        if not rate:
            both = sorted({*names[0]} & {*names[1]})
            if not both:
                raise DataError(
                    f"{folders[0]} and {folders[1]} have no file of the same name. Give what answers one prompt "
                    "one name."
                )
            if other := len({*names[0]} ^ {*names[1]}):
                print(f"{other} files are left out: the other folder has none of that name.")
            names = [both, both]
        columns = [
            _column(files, own[: options["n"]], source, kinds[0], prompts, out)
            for source, ((_, files), own) in enumerate(zip(found, names, strict=True))
        ]
        items = arranged(columns, rate, seed, out)
        sources = [str(folder) for folder in folders]
        create(out, {"kind": kinds[0], "sources": sources, "rate": rate, "seed": seed, "asked": asked}, items)

    begin(out, asked, prepare)


def _files(folder: Path) -> tuple[str, dict[str, Path]]:
    """Their kind, and the files by name. A .txt beside a picture or a video is its prompt, and no sample."""
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise ConfigError(f"samples={folder} cannot be read ({(error.strerror or str(error)).lower()}).") from error
    by_kind: dict[str, list[Path]] = {}
    for path in paths:
        if path.suffix.lower() == ".txt" or _suffix(path) in TYPES:
            by_kind.setdefault(kind_of_file(_suffix(path)), []).append(path)
    if len(by_kind) > 1:
        by_kind.pop("text", None)
    if len(by_kind) != 1:
        told = "pictures and videos" if by_kind else "no samples"
        raise ConfigError(
            f"samples={folder} holds {told}. Name a folder of pictures (.png), videos (.mp4, .webm) or texts (.txt)."
        )
    ((kind, there),) = by_kind.items()
    files = {path.stem: path for path in there}
    if len(files) < len(there):
        name = next(path.stem for path in there if files[path.stem] != path)
        raise DataError(f"{folder} has two samples of the name {name}. Remove one.")
    return kind, files


def _column(
    files: Mapping[str, Path], names: Sequence[str], source: int, kind: str, prompts: Sequence[str] | None, out: Path
) -> Column:
    if prompts is not None and len(prompts) != len(names):
        raise ConfigError(
            f"{len(prompts)} prompts for {len(names)} samples: write one for each, in the order of the files' names."
        )
    outputs: list[Output] = []
    words: list[str | None] = []
    for number, name in enumerate(names):
        path = files[name]
        content = _read(path)
        beside = path.with_suffix(".txt")
        words.append(prompts[number] if prompts else _text(beside) if kind != "text" and beside.is_file() else None)
        if kind == "text":
            outputs.append(Output(source, number, _text(path)))
            continue
        start, begins = _BEGINS[_suffix(path)]
        if content[start : start + len(begins)] != begins:
            raise DataError(f"{path} is not a {path.suffix[1:]} file. Remove it, or give it the suffix of what it is.")
        output = Output(source, number, suffix=_suffix(path))
        with writing(out):
            (out / file_of(output)).parent.mkdir(exist_ok=True)
        write_atomically(out / file_of(output), partial(_put, content))
        outputs.append(output)
    return Column(outputs, words, [{}] * len(outputs))


def _put(content: bytes, file: BinaryIO) -> None:
    file.write(content)


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    return ".jpg" if suffix == ".jpeg" else suffix


def _text(path: Path) -> str:
    try:
        return _read(path).decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text. Save it as UTF-8.") from error


def _read(path: Path) -> bytes:
    try:
        if (kind := kind_of(path, follow=True)) is not None:
            raise DataError(f"{path} is {kind}, not a file. Remove it.")
        with path.open("rb") as file:
            content = file.read(LARGEST_PICTURE + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({(error.strerror or str(error)).lower()}).") from error
    if len(content) > LARGEST_PICTURE:
        raise DataError(f"{path} has more than {LARGEST_PICTURE >> 20} MiB. Make it smaller, or remove it.")
    return content

"""Lists the image files under a folder, with their classes and splits."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from genlab.data.decode import SUFFIXES
from genlab.data.held_out import held_out_names
from genlab.errors import DataError
from genlab.files.paths import read_path
from genlab.progress import progress

_SUFFIXES = tuple(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
_SPLIT_NAMES = {"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval", "evaluation",
                "extra", "unlabeled", "unlabelled"}  # fmt: skip


_MOST_KINDS = 5  # kinds named in a message


class SplitsOrClasses(DataError):
    """Folders at the top are named like splits."""

    def __init__(self, message: str, first: str):
        super().__init__(message)
        self.first = first  # path of the training folder


@dataclass(frozen=True)
class ImageFile:
    """A file as it was when the folder was listed."""

    name: str  # relative to the root, with "/"
    size: int  # bytes
    modified: int  # nanoseconds

    @property
    def folder(self) -> str | None:
        """The first part of the name: the class. None at the top."""
        first, slash, _ = self.name.partition("/")
        return first if slash else None


Seen = tuple[str, int, int]  # a file as it was: the fields of ImageFile


def list_images(root: str) -> tuple[list[ImageFile], list[str]]:
    """All images under ``root``, at any depth, sorted by name, and the names of other files. Hidden files
    and folders are skipped.

    Raises:
        DataError: there is no such folder, or no image in it.
    """
    return images_of(look(root), root)


def images_of(found: Sequence[Seen], root: str) -> tuple[list[ImageFile], list[str]]:
    """:func:`list_images` for the files that :func:`look` found in ``root``."""
    files = [ImageFile(*file) for file in found if file[0].lower().endswith(_SUFFIXES)]
    others = other_names(found)
    if not files:
        there = f" There are {counted(others)}." if others else ""
        raise DataError(f"no images found in {root} (looked for {' '.join(_SUFFIXES)}, including subfolders).{there}")
    return files, others


def look(root: str) -> list[Seen]:
    """All files of any kind under ``root``, at any depth, sorted by name; hidden ones are skipped. Raises
    DataError if there is no such folder."""
    top = read_path(root)
    if not top.is_dir():
        raise DataError(f"{root} is not a folder. Set data.root to a folder of images.")
    found: list[Seen] = []
    with progress(f"listing the files in {root}", None) as advance:
        _walk(str(top), "", frozenset(), found, advance)
    found.sort()
    return found


def other_names(found: Sequence[Seen]) -> list[str]:
    """The names of the files that are not images."""
    return [name for name, _, _ in found if not name.lower().endswith(_SUFFIXES)]


def digest_of(found: Sequence[Seen]) -> str:
    """32 hex digits, a hash of the names, sizes and times of files."""
    digest = hashlib.blake2b("\0".join(name for name, _, _ in found).encode("utf-8", "surrogateescape"), digest_size=16)
    digest.update(np.array([(size, modified) for _, size, modified in found], dtype=np.int64).tobytes())
    return digest.hexdigest()


def counted(names: Sequence[str]) -> str:
    """``20 .psd (a/1.psd ...), 1 .txt (notes.txt)``: how many files of which kinds."""
    kinds: dict[str, list[str]] = {}
    for name in names:
        suffix = os.path.splitext(name)[1].lower()
        kinds.setdefault(suffix or "without a suffix", []).append(name)
    most = sorted(kinds.items(), key=lambda kind: -len(kind[1]))
    shown = [f"{len(files)} {kind} ({files[0]}{' ...' if files[1:] else ''})" for kind, files in most[:_MOST_KINDS]]
    rest = sum(len(files) for _, files in most[_MOST_KINDS:])
    return ", ".join(shown) + (f" and {rest} more of other kinds" if rest else "")


def _walk(folder: str, prefix: str, above: frozenset[str], found: list[Seen], advance: Callable[[int], None]) -> None:
    """Add all files. Links are followed, except back to a folder that is being walked (``above``)."""
    real = os.path.realpath(folder)
    if real in above:
        return
    before = len(found)
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith(".") or name == "__MACOSX":
                continue
            if entry.is_dir():
                _walk(entry.path, f"{prefix}{name}/", above | {real}, found, advance)
            else:
                try:
                    status = entry.stat()
                except OSError:  # a broken link: decoding it will report that
                    found.append((prefix + name, 0, 0))
                else:
                    found.append((prefix + name, status.st_size, status.st_mtime_ns))
    advance(len(found) - before)


def class_names(root: str, files: Sequence[ImageFile], whatever_named: bool = False) -> tuple[str, ...]:
    """The folders at the top that hold images, sorted; () if all images are at the top: then there are no labels.

    ``whatever_named``: also if they are named train, test and the like.

    Raises:
        DataError: images are both at the top and in folders, or all or several of the folders seem to be splits rather
            than classes.
    """
    at_top = [file.name for file in files if file.folder is None]
    names = sorted({file.folder for file in files if file.folder is not None})
    if at_top and names:
        raise DataError(
            f"{root} has images at its top ({at_top[0]} and {len(at_top) - 1} more) and in class folders "
            f"({', '.join(names[:3])}{' ...' if names[3:] else ''}). Move them into a class folder, or all to the top."
        )
    splits = [name for name in names if name.lower() in _SPLIT_NAMES]
    if not whatever_named and (len(splits) > 1 or len(splits) == len(names) > 0):
        train = next((name for name in splits if name.lower().startswith("train")), splits[0])
        others = [name for name in splits if name != train]
        held_out = sorted(others, key=lambda name: name.lower().startswith(("extra", "unlabel")))[:1]
        rest = [f" data.val_root={os.path.join(root, name)}" for name in held_out]
        found = ", ".join(splits) + (
            f" beside {', '.join(sorted({*names} - {*splits})[:3])}" if len(names) > len(splits) else ""
        )
        raise SplitsOrClasses(
            f"are the folders in {root} splits ({found}), or classes? "
            f"Splits: data.root={os.path.join(root, train)}{''.join(rest)}. Classes: data.folders_are_classes=true.",
            os.path.join(root, train),
        )
    return tuple(names)


def split_files(files: Sequence[ImageFile], val_fraction: float) -> tuple[list[ImageFile], list[ImageFile]]:
    """(training, held out), by :func:`genlab.data.held_out.held_out_names`."""
    held_out = held_out_names((file.name for file in files), val_fraction)
    return [f for f in files if f.name not in held_out], [f for f in files if f.name in held_out]

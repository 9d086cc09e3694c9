"""The image files under a folder, their classes, and which of them are held out."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from genlab.data.held_out import held_out_names
from genlab.errors import DataError
from genlab.paths import read_path

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_SPLIT_NAMES = {"train", "training", "test", "val", "valid", "validation"}


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


def list_images(root: str) -> list[ImageFile]:
    """All images under ``root``, at any depth, sorted by name; hidden files and folders are passed over.

    Raises:
        DataError: there is no such folder, or no image in it.
    """
    top = read_path(root)
    if not top.is_dir():
        raise DataError(f"{root} is not a folder. Set data.root to a folder of images.")
    files = sorted(_walk(str(top), "", set()), key=lambda file: file.name)
    if not files:
        raise DataError(f"no images found in {root} (looked for {' '.join(_SUFFIXES)}, including subfolders).")
    return files


def _walk(folder: str, prefix: str, above: set[str]) -> Iterator[ImageFile]:
    """Links are followed, except back to a folder that is being walked (``above``)."""
    real = os.path.realpath(folder)
    if real in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            if entry.is_dir():
                yield from _walk(entry.path, f"{prefix}{entry.name}/", above | {real})
            elif entry.name.lower().endswith(_SUFFIXES):
                try:
                    status = entry.stat()
                except OSError:  # a link to nowhere: decoding it will say so
                    yield ImageFile(prefix + entry.name, 0, 0)
                else:
                    yield ImageFile(prefix + entry.name, status.st_size, status.st_mtime_ns)


def class_names(root: str, files: Sequence[ImageFile]) -> tuple[str, ...]:
    """The folders at the top that hold images, sorted; () if all images lie at the top: then there are no labels.

    Raises:
        DataError: images lie both at the top and in folders, or the folders are splits rather than classes.
    """
    at_top = [file.name for file in files if file.folder is None]
    names = sorted({file.folder for file in files if file.folder is not None})
    if at_top and names:
        raise DataError(
            f"{root} has images at its top ({at_top[0]} and {len(at_top) - 1} more) and in class folders "
            f"({', '.join(names[:3])}{' ...' if names[3:] else ''}). Move them into a class folder, or all to the top."
        )
    if names and {name.lower() for name in names} <= _SPLIT_NAMES:
        train = next((name for name in names if name.lower().startswith("train")), names[0])
        rest = [f" data.val_root={os.path.join(root, name)}" for name in names if name != train][:1]
        raise DataError(
            f"the folders in {root} are splits ({', '.join(names)}), not classes. "
            f"Set data.root={os.path.join(root, train)}{''.join(rest)}."
        )
    return tuple(names)


def split_files(files: Sequence[ImageFile], val_fraction: float) -> tuple[list[ImageFile], list[ImageFile]]:
    """(training, held out), by :func:`genlab.data.held_out.held_out_names`."""
    held_out = held_out_names((file.name for file in files), val_fraction)
    return [f for f in files if f.name not in held_out], [f for f in files if f.name in held_out]

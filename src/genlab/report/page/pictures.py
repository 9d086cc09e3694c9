"""Compresses runs' samples for a page: pictures as WebP, shortened texts."""

import base64
import io
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from genlab.files import regular_file
from genlab.progress import progress
from genlab.report.picture_file import NAME, UnreadablePictureError, read_picture

ROOM = 5_000_000  # bytes of a page that all pictures may take, encoded
MOST = 1000  # pictures of a page
EACH = 12  # of a run, at most
LEVELS = (
    (360, 80),
    (256, 75),
    (192, 65),
    (192, 45),
    (128, 60),
)  # pixels of the longer side, quality: the first that fits
TRIED = 24  # pictures that tell which does
TEXT = 1200  # characters of a text
_AT_A_TIME = 64  # pictures that are encoded before it is asked whether there is room for more


@dataclass
class Pictures:
    frames: list[list[dict[str, Any]]]  # of each run, by examples: examples, and src or text
    left_out: list[str] = field(default_factory=list)  # what is not shown as it is, in sentences
    unreadable: list[str] = field(default_factory=list)  # a line for each run that has some that cannot be read


@dataclass(frozen=True)
class _File:
    run: int
    examples: int
    path: Path


def pictures(folders: Sequence[Path], room: int = ROOM) -> Pictures:
    """The samples of runs, of each about as many, spread over its training. What cannot be read is left out."""
    files = [_files(run, folder) for run, folder in enumerate(folders)]
    each = min(EACH, max(1, MOST // max(1, sum(map(bool, files)))))
    chosen = [file for of_run in files for file in _spread(of_run, each)]
    texts = [file for file in chosen if file.path.suffix == ".txt"]
    drawn = [file for file in chosen if file.path.suffix == ".png"]
    found = Pictures([[] for _ in folders])
    for file in texts:
        found.frames[file.run].append({"examples": file.examples, "text": _text(file.path)})
    with ThreadPoolExecutor() as threads:
        level = _level(drawn, room, threads)
        encoded = _newest_first(drawn, level, room, threads)
    bad = [(file, picture) for file, picture in encoded if isinstance(picture, str)]
    unreadable = len(bad)
    for run in sorted({file.run for file, _ in bad}):
        (file, reason), *more = sorted((one for one in bad if one[0].run == run), key=lambda one: one[0].examples)
        others = f" and {len(more)} more" if more else ""
        found.unreadable.append(f"{file.path}{others} cannot be read ({reason}), so not shown")
    size = 0
    for file, picture in encoded:
        if not isinstance(picture, str) and size + len(picture["src"]) <= room:
            size += len(picture["src"])
            found.frames[file.run].insert(0, {"examples": file.examples, **picture})
    total, shown = sum(map(len, files)), sum(map(len, found.frames))
    if shown + unreadable < total:
        found.left_out.append(f"{total - shown - unreadable:,} of {total:,} sample grids")
    if unreadable:
        found.left_out.append(f"{unreadable:,} sample grid{'s' * (unreadable > 1)} that cannot be read")
    if any(not isinstance(picture, str) and picture["reduced"] for _, picture in encoded):
        found.left_out.append(f"pixels of grids larger than {level[0]}")
    return found


def _newest_first(
    files: Sequence[_File], level: tuple[int, int], room: int, threads: ThreadPoolExecutor
) -> list[tuple[_File, dict[str, Any] | str]]:
    """The newest of every run, then those before, each encoded, or why it cannot be read; no more once there is hardly
    any room left."""
    left = Counter(file.run for file in files)
    ages = [left[file.run] - place for file, place in zip(files, _places(files), strict=True)]
    ordered = [file for _, file in sorted(zip(ages, files, strict=True), key=lambda one: one[0])]
    done: list[tuple[_File, dict[str, Any] | str]] = []
    left_over = room // 100
    with progress(f"preparing {len(ordered):,} sample grids", len(ordered)) as advance:
        for start in range(0, len(ordered), _AT_A_TIME):
            if room < left_over:
                advance(len(ordered) - start)
                break
            some = ordered[start : start + _AT_A_TIME]
            for file, picture in zip(some, threads.map(lambda file: _encoded(file.path, *level), some), strict=True):
                done.append((file, picture))
                room -= 0 if isinstance(picture, str) else len(picture["src"])
                advance(1)
    return done


def _places(files: Sequence[_File]) -> list[int]:
    """Of each file among its run's."""
    seen: Counter[int] = Counter()
    places = []
    for file in files:
        places.append(seen[file.run])
        seen[file.run] += 1
    return places


def _files(run: int, folder: Path) -> list[_File]:
    found = [(NAME.fullmatch(path.name), path) for path in (folder / "samples").glob("examples=*")]
    return sorted((_File(run, int(match[1]), path) for match, path in found if match), key=lambda file: file.examples)


def _spread(files: list[_File], count: int) -> list[_File]:
    """``count`` of the files at even distances, the last one among them."""
    if len(files) <= count:
        return files
    return [files[(i + 1) * len(files) // count - 1] for i in range(count)]


def _level(files: Sequence[_File], room: int, threads: ThreadPoolExecutor) -> tuple[int, int]:
    few = [
        found
        for found in threads.map(_read, [file.path for file in files[:: max(1, len(files) // TRIED)]])
        if not isinstance(found, str)
    ]
    for level in LEVELS[:-1]:
        sizes = [len(p["src"]) for p in threads.map(lambda found, own=level: _shrunk(*found, *own), few)]
        if not sizes or sum(sizes) / len(sizes) * len(files) <= 0.9 * room:
            return level
    return LEVELS[-1]


def _encoded(path: Path, longest: int, quality: int) -> dict[str, Any] | str:
    """``src`` as a data URL; ``zoom``: by how much its pixels had been enlarged. Text: why it cannot be read."""
    found = _read(path)
    return found if isinstance(found, str) else _shrunk(*found, longest, quality)


def _read(path: Path) -> tuple[Image.Image, int] | str:
    """A picture pixel by pixel as it was drawn, and by how much that was enlarged. Text: why it cannot be read."""
    try:
        image = read_picture(path)
    except UnreadablePictureError as error:
        return str(error)
    return _as_drawn(image)


def _shrunk(image: Image.Image, zoom: int, longest: int, quality: int) -> dict[str, Any]:
    ratio = min(1.0, longest / max(image.size))
    if ratio < 1:
        image = image.resize(
            (max(1, round(image.width * ratio)), max(1, round(image.height * ratio))), Image.Resampling.LANCZOS
        )
    data = io.BytesIO()
    image.save(data, "WEBP", quality=quality, method=2)
    src = f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}"
    return {"src": src, "width": image.width, "height": image.height, "zoom": zoom, "reduced": ratio < 1}


def _as_drawn(image: Image.Image) -> tuple[Image.Image, int]:
    """Without the repeated pixels, and by how much small samples were enlarged: that much of a grid says nothing."""
    for factor in range(8, 1, -1):
        if image.width % factor == 0 and image.height % factor == 0:
            corner = image.crop((0, 0, min(image.width, 8 * factor), min(image.height, 8 * factor)))
            if _reduced(corner, factor) and (small := _reduced(image, factor)):  # a few pixels rule most factors out
                return small, factor
    return image, 1


def _reduced(image: Image.Image, factor: int) -> Image.Image | None:
    """One pixel of each block of them; None: not all of a block are alike."""
    small = image.resize((image.width // factor, image.height // factor), Image.Resampling.NEAREST)
    again = small.resize(image.size, Image.Resampling.NEAREST)
    return small if again.tobytes() == image.tobytes() else None


def _text(path: Path) -> str:
    """The beginning of a text; of a stranger's, only from a regular file of this folder."""
    try:
        with regular_file.open_regular(path, root=path.parents[1], largest=regular_file.LARGEST_TABLE) as file:
            text = file.read(4 * (TEXT + 1)).decode("utf-8", "replace")
    except OSError as error:
        return f"(cannot be read: {error.strerror})"
    text = "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)
    return text if len(text) <= TEXT else f"{text[:TEXT]} …"

"""A folder of feedback: what is judged, in which order, and the judgments so far."""

import errno
import json
import os
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from genlab.errors import ConfigError, DataError, StorageError
from genlab.files.atomic import write_atomically, writing
from genlab.files.lock import LOCK
from genlab.files.regular_file import LARGEST_PICTURE, kind_of, open_to_append, read_bytes, read_text

SESSION, ITEMS, JUDGMENTS = "session.json", "items.jsonl", "judgments.jsonl"
PICTURES, VIDEOS = "pictures-{}", "videos-{}"  # of a source: a file for each item
TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
}
CHOICES = ("left", "right", "tie")
RATINGS = range(1, 6)
TAKES_BACK = "takes_back"  # of a line that undoes the judgment before it
LONGEST_REMARK = 2000  # characters
_AGAIN = 10  # one item of as many comes again
_APART = 5  # items between, where there are enough
_LONGEST = 24 * 3600.0  # seconds that are believed


@dataclass(frozen=True)
class Output:
    """One side of a pair, or what is rated. ``text`` is None for a picture or a video, which is a file."""

    source: int  # whose it is, by its place in ``Session.sources``
    number: int  # of the source's files
    text: str | None = None
    suffix: str = ".png"  # of the file, a key of TYPES


@dataclass(frozen=True)
class Item:
    prompt: str | None
    outputs: tuple[Output, ...]  # two that are compared, or one that is rated
    classes: Mapping[str, int] = field(default_factory=dict)  # that they were drawn for, by the key of the condition


@dataclass(frozen=True)
class Showing:
    """An item on the page. ``sides``: places in ``Item.outputs``, left first."""

    item: int
    sides: tuple[int, ...]
    again: bool


@dataclass(frozen=True)
class Judgment:
    showing: Showing
    winner: int | None  # a place in Item.outputs; None: a tie, or a rating
    rating: int | None
    seconds: float | None  # None: it was imported
    remark: str


def kind_of_file(suffix: str) -> Literal["text", "image", "video"]:
    return "text" if suffix not in TYPES else "video" if TYPES[suffix].startswith("video/") else "image"


def file_of(output: Output) -> Path:
    """Where a picture or a video lies in the folder."""
    folder = VIDEOS if kind_of_file(output.suffix) == "video" else PICTURES
    return Path(folder.format(output.source), f"{output.number:06d}{output.suffix}")


def order(items: Sequence[Item], seed: int, again: bool = True) -> list[Showing]:
    """Each item once, and a tenth of them ``again``, later and with sides swapped. The first side of an item is a
    function of (seed, item)."""
    n = len(items)
    first = [_sides(item, random.Random(f"side {seed} {i}").random() < 0.5) for i, item in enumerate(items)]
    shown = [(i, 0, Showing(i, sides, again=False)) for i, sides in enumerate(first)]
    draw = random.Random(f"again {seed}")
    for i in draw.sample(range(max(1, n - _APART)), round(n / _AGAIN) or 1) if n > 1 and again else ():
        place = draw.randint(min(i + _APART, n - 1), n - 1)  # after this one
        shown.append((place, 1 + i, Showing(i, first[i][::-1], again=True)))
    return [showing for *_, showing in sorted(shown, key=lambda one: one[:2])]


def _sides(item: Item, swapped: bool) -> tuple[int, ...]:
    places = tuple(range(len(item.outputs)))
    return places[::-1] if swapped else places


class Session:
    """Judgments of a folder, of which one process at a time adds to. Raises ConfigError if there is none, DataError if
    a file of it is damaged."""

    def __init__(self, folder: Path):
        self.folder = folder
        facts = _facts(folder)
        self.sources: list[str] = [str(name) for name in facts["sources"]]
        self.kind: Literal["text", "image", "video"] = facts["kind"]
        self.rate: bool = facts["rate"]
        self.imported = bool(facts.get("imported"))  # judged elsewhere
        self.items = _items(folder, 1 if self.rate else 2, self.kind)
        self.showings = order(self.items, facts["seed"], again=not self.imported)
        self.judgments: list[Judgment] = []  # those that stand
        self.taken_back = 0
        for number, line in enumerate(_lines(folder / JUDGMENTS, folder), 1):
            self._replay(line, number)

    @property
    def next(self) -> Showing | None:
        """What is judged next; None: all is judged."""
        return self.showings[len(self.judgments)] if len(self.judgments) < len(self.showings) else None

    def judge(self, number: int, answer: Mapping[str, Any]) -> bool:
        """Add a judgment of showing ``number``: on disk when this returns. False if it has one, which stays.

        Raises ValueError: it is not shown yet, or ``answer`` is not a judgment. StorageError: it cannot be written, and
        is not kept.
        """
        if number < len(self.judgments):
            return False
        showing = self.next
        if number > len(self.judgments) or showing is None:
            raise ValueError("this one is not shown yet")
        judged = self._judged(showing, answer)
        self._append({"showing": number, **_record(judged, self.items, self.sources)})
        self.judgments.append(judged)
        return True

    def take_back(self, number: int) -> bool:
        """Take back the judgment of showing ``number``, which is judged anew: on disk, as a line of its own, when this
        returns. False if it is not the last one. Raises StorageError: it cannot be written, and the judgment stands."""
        if not self.judgments or number != len(self.judgments) - 1:
            return False
        self._append({TAKES_BACK: number})
        self.judgments.pop()
        self.taken_back += 1
        return True

    def file(self, output: Output) -> bytes:
        """Of a picture or a video. Raises OSError."""
        return read_bytes(self.folder / file_of(output), self.folder, LARGEST_PICTURE)

    def _judged(self, showing: Showing, answer: Mapping[str, Any]) -> Judgment:
        choice, rating = answer.get("choice"), answer.get("rating")
        if self.rate and (type(rating) is not int or rating not in RATINGS or choice is not None):
            raise ValueError("a rating is a whole number from 1 to 5")
        if not self.rate and (choice not in CHOICES or rating is not None):
            raise ValueError(f"a choice is one of {', '.join(CHOICES)}")
        remark, seconds = answer.get("remark", ""), answer.get("seconds")
        if not isinstance(remark, str) or len(remark) > LONGEST_REMARK:
            raise ValueError(f"a remark is a text of at most {LONGEST_REMARK:,} characters")
        if not (self.imported and seconds is None) and not _is_time(seconds):
            raise ValueError("seconds is a number from 0 to a day")
        winner = None if self.rate or choice == "tie" else showing.sides[CHOICES.index(str(choice))]
        remark = remark.encode("utf-8", "replace").decode()  # halves of characters
        return Judgment(showing, winner, rating, None if seconds is None else float(seconds), remark)

    def _replay(self, line: Any, number: int) -> None:
        """Line ``number`` of the file: a judgment, or one taken back."""
        done = len(self.judgments)
        try:
            if TAKES_BACK in line:
                if not done or line[TAKES_BACK] != done - 1:
                    raise ValueError("takes back another than the last")
                self.judgments.pop()
                self.taken_back += 1
                return
            showing = self.showings[done]
            if line["showing"] != done or line["item"] != showing.item:
                raise ValueError("is of another order")
            judged = self._judged(showing, line)
            if any(line[name] != value for name, value in _record(judged, self.items, self.sources).items()):
                raise ValueError("is of other runs")
            self.judgments.append(judged)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise DataError(
                f"{self.folder / JUDGMENTS}, line {number}: not a judgment of what this folder shows "
                f"({error or 'too many'}). Put the file back as it was, or judge in a new folder."
            ) from error

    def _append(self, row: Mapping[str, Any]) -> None:
        line = json.dumps({**row, "time": datetime.now(UTC).isoformat(timespec="seconds")}, ensure_ascii=False) + "\n"
        with writing(self.folder), open_to_append(self.folder / JUDGMENTS, self.folder) as file:
            descriptor, content = file.fileno(), line.encode()
            size = os.fstat(descriptor).st_size
            try:
                if os.write(descriptor, content) < len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(descriptor)
            except BaseException:
                os.ftruncate(descriptor, size)  # no half of a line
                raise


def _is_time(seconds: Any) -> bool:
    return isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 <= seconds <= _LONGEST


def _record(judged: Judgment, items: Sequence[Item], sources: Sequence[str]) -> dict[str, Any]:
    """A judgment as its file has it."""
    outputs = items[judged.showing.item].outputs
    sides = [sources[outputs[side].source] for side in judged.showing.sides]
    told: dict[str, Any] = {"item": judged.showing.item, "again": judged.showing.again}
    if len(outputs) == 1:
        told |= {"of": sides[0], "rating": judged.rating}
    else:
        choice = "tie" if judged.winner is None else CHOICES[judged.showing.sides.index(judged.winner)]
        told |= {"left": sides[0], "right": sides[1], "sides": [*judged.showing.sides], "choice": choice}
    return told | {"seconds": judged.seconds, "remark": judged.remark}


def lock(folder: Path) -> FileLock:
    """Hold a folder for one process; release it when done. Raises StorageError: another has it."""
    if (kind := kind_of(folder / LOCK)) is not None:
        raise StorageError(f"{folder / LOCK} is {kind}, not a lock file. Remove it.")
    held = FileLock(folder / LOCK)
    try:
        held.acquire(timeout=0)
    except Timeout as error:
        raise StorageError(f"another process shows the page of {folder}. Use that page, or stop it.") from error
    return held


def drop_torn_line(folder: Path) -> None:
    """Cut off what a process that was killed had not written to its end: nobody was told that it is kept."""
    path = folder / JUDGMENTS
    if kind_of(path) is None and path.exists():
        content = read_bytes(path, folder)
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            write_atomically(path, lambda file: file.write(content[:whole]))


def create(folder: Path, facts: Mapping[str, Any], items: Sequence[Item], judged: Sequence[Judgment] = ()) -> None:
    """Write what will be judged: ``facts`` (``kind``, ``sources``, ``rate``, ``seed``, and what was asked for) last, so
    that a folder without them is begun anew. Raises StorageError."""
    _write_lines(folder / ITEMS, [_row(item) for item in items])
    records = [_record(one, items, facts["sources"]) for one in judged]
    _write_lines(folder / JUDGMENTS, [{"showing": number, **row} for number, row in enumerate(records)])
    whole = json.dumps(facts, ensure_ascii=False, indent=1) + "\n"
    write_atomically(folder / SESSION, lambda file: file.write(whole.encode("utf-8", "replace")))


def _write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomically(path, lambda file: file.write(text.encode("utf-8", "replace")))


def is_begun(folder: Path) -> bool:
    """Raises ConfigError: the folder holds something else."""
    if (folder / SESSION).exists():
        return True
    if folder.is_dir():
        ours = re.compile(rf"{re.escape(LOCK)}|{ITEMS}|{PICTURES.format('[01]')}|{VIDEOS.format('[01]')}|\..*\.partial")
        there = [path for path in folder.iterdir() if path.name != JUDGMENTS or path.stat().st_size]
        if other := sorted(path.name for path in there if not ours.fullmatch(path.name)):
            raise ConfigError(f"out={folder}: the folder holds {other[0]}, and no feedback. Name a new one.")
    return False


def check_asked(folder: Path, asked: Mapping[str, Any]) -> None:
    """Raises ConfigError: the folder is of other runs, prompts or settings."""
    there = _facts(folder).get("asked")
    differs = sorted(name for name in asked if not isinstance(there, dict) or there.get(name) != asked[name])
    if differs:
        raise ConfigError(
            f"out={folder} holds feedback on something else: {', '.join(differs)} differ. Name a new folder, or go on "
            "with what it holds by out= alone."
        )


def _facts(folder: Path) -> dict[str, Any]:
    try:
        facts = json.loads(read_text(folder / SESSION, folder))
        sound = (
            facts["kind"] in ("text", "image", "video")
            and type(facts["rate"]) is bool
            and type(facts["seed"]) is int
            and isinstance(facts["sources"], list)
            and 1 <= len(facts["sources"]) <= 2
        )
    except FileNotFoundError as error:
        raise ConfigError(
            f"{folder}: there is no feedback here (no {SESSION}). Name a folder that has some."
        ) from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        sound = False
    if not sound:
        raise DataError(f"{folder / SESSION} is damaged. Put it back as it was, or judge in a new folder.")
    return dict(facts)


def _items(folder: Path, outputs: int, kind: str) -> list[Item]:
    items = []
    for number, row in enumerate(_lines(folder / ITEMS, folder), 1):
        try:
            found = tuple(
                Output(one["source"], one["number"], one.get("text"), one.get("suffix", ".png"))
                for one in row["outputs"]
            )
            sound = len(found) == outputs and all(
                one.source in (0, 1)
                and type(one.number) is int
                and (isinstance(one.text, str) if kind == "text" else one.text is None)
                and (kind == "text" or kind_of_file(one.suffix) == kind)
                for one in found
            )
            classes = row.get("classes", {})
            items.append(Item(row["prompt"], found, classes))
            sound = sound and isinstance(row["prompt"], str | None)
            sound = sound and all(type(number) is int and number >= 0 for number in classes.values())
        except (KeyError, TypeError, AttributeError):
            sound = False
        if not sound:
            raise DataError(f"{folder / ITEMS}, line {number}, is damaged. Put it back, or judge in a new folder.")
    return items


def _row(item: Item) -> dict[str, Any]:
    outputs = [
        {"source": one.source, "number": one.number}
        | ({"suffix": one.suffix} if one.text is None else {"text": one.text})
        for one in item.outputs
    ]
    classes = {"classes": dict(item.classes)} if item.classes else {}
    return {"prompt": item.prompt, **classes, "outputs": outputs}


def _lines(path: Path, root: Path) -> list[Any]:
    """Of whole lines: one that is being written, or whose writer was killed, is none yet."""
    try:
        content = read_bytes(path, root)
        return [json.loads(line) for line in content[: content.rfind(b"\n") + 1].decode().split("\n") if line]
    except FileNotFoundError as error:
        raise DataError(f"{path} is gone. Put it back, or judge in a new folder.") from error
    except (OSError, ValueError, RecursionError) as error:
        cause = error.strerror if isinstance(error, OSError) and error.strerror else "is no JSON by lines"
        raise DataError(f"{path} {cause}. Put it back as it was, or judge in a new folder.") from error

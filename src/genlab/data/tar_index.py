"""Where the samples of a tar shard are: an index of offsets, so that any of them is read without the others."""

import logging
import os
import posixpath
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from genlab.data.archive import Metered, Unsafe, check_names, damage, open_tar
from genlab.data.array_cache import cached_array, digest
from genlab.data.decode import SUFFIXES
from genlab.errors import DataError
from genlab.files.regular_file import LARGEST_PICTURE, kind_of

PICTURE, TEXT, JSON, LABEL = range(4)  # the parts of a sample, in the order of the index
# A row of an index: the offset and the size in bytes of a sample's picture, .txt and .json, size 0 for those that it
# lacks; then its label, -1 for none.
COLUMNS = 7

_PICTURES = tuple(suffix[1:] for suffixes in SUFFIXES.values() for suffix in suffixes)
_LARGEST_TEXT = 1 << 20  # bytes of a caption, or what describes a sample
_LARGEST_LABEL, _LONGEST_LABEL = 1_000_000, 20  # a class, and bytes of its number
_LARGEST_HEADER = 1 << 20  # bytes of a long name
_BLOCK = 512  # bytes
_SHOWN = 5  # names in a message
_OPEN = 64  # shards that a process keeps open

_log = logging.getLogger(__name__)


def cached_index(folder: Path, shard: Path, shown: str) -> np.ndarray:
    """The index of a shard, (N, COLUMNS) int64, from the cache at ``folder`` as long as the file does not change.

    Raises DataError, one line: the shard is damaged, has links, names that lead out of it or absurd sizes, or a sample
    lacks its caption. ``shown``: the shard in messages.
    """
    try:
        if (kind := kind_of(shard, follow=True)) is not None:
            raise DataError(f"{shown} is {kind}, not a tar file.")
        status = os.stat(shard)
    except OSError as error:
        raise DataError(f"cannot read {shown} ({(error.strerror or str(error)).lower()}).") from error
    key = f"tar-{digest(2, os.path.realpath(shard), status.st_size, status.st_mtime_ns)}"
    return np.asarray(cached_array(folder, key, lambda: [index_of(shard, shown)]))


def index_of(shard: Path, shown: str) -> np.ndarray:
    """:func:`cached_index`, made from the headers in the shard; data of members are not read, but for labels."""
    rows: dict[str, list[int]] = {}
    has_label = set[str]()
    try:
        with shard.open("rb") as file, damage(), open_tar(Metered(file, _LARGEST_HEADER)) as archive:
            names: list[str] = []
            end = 0
            for member in archive:
                names.append(member.name)
                end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise Unsafe(f"is refused: {member.name[:100]!r} is a link, a device or a file with holes")
                key, part = _part_of(member.name)
                if part is None:
                    continue
                most = LARGEST_PICTURE if part == PICTURE else _LARGEST_TEXT
                if not 0 < member.size <= most:
                    raise Unsafe(
                        f"is refused: {member.name[:100]!r} has {member.size:,} bytes, at most {most:,} are read"
                    )
                row = rows.setdefault(key, [0] * (COLUMNS - 1) + [-1])
                if part == LABEL:
                    row[-1] = _label(
                        os.pread(file.fileno(), min(member.size, _LONGEST_LABEL + 1), member.offset_data), member.name
                    )
                    has_label.add(key)
                else:
                    row[2 * part : 2 * part + 2] = member.offset_data, member.size
            check_names(names)
            if os.pread(file.fileno(), _BLOCK, end) != bytes(_BLOCK):  # every archive ends in two blocks of zeros
                raise Unsafe("is truncated: it has no end")
    except (Unsafe, ValueError, OverflowError) as error:  # the latter two of absurd headers
        cause = error if isinstance(error, Unsafe) else "is damaged"
        raise DataError(f"the shard {shown} {cause}. Make it again, as an uncompressed .tar; or remove it.") from error
    except OSError as error:
        raise DataError(f"cannot read {shown} ({(error.strerror or str(error)).lower()}).") from error
    return _checked(rows, has_label, shown)


def _checked(rows: dict[str, list[int]], has_label: set[str], shown: str) -> np.ndarray:
    samples = {key: row for key, row in rows.items() if row[1]}
    if len(samples) < len(rows):
        lacking = [key for key in rows if key not in samples]
        _log.warning("%d samples of %s have no picture, and are left out: %s.", len(lacking), shown, _some(lacking))
    if silent := [key for key, row in samples.items() if not row[3] and not row[5]]:
        raise DataError(
            f"{len(silent)} of the {len(samples)} samples in the shard {shown} have no caption: {_some(silent)}. "
            "Put a .txt or a .json beside each picture."
        )
    if has_label and (plain := [key for key in samples if key not in has_label]):
        raise DataError(
            f"{len(plain)} of the {len(samples)} samples in the shard {shown} have no label: {_some(plain)}. "
            "Put a .cls beside each picture, or beside none."
        )
    return np.array(list(samples.values()), dtype=np.int64).reshape(-1, COLUMNS)


def _some(names: Sequence[str]) -> str:
    return ", ".join(name[:100] for name in names[:_SHOWN]) + ", ..." * (len(names) > _SHOWN)


def _part_of(name: str) -> tuple[str, int | None]:
    """The sample that a member belongs to, all of its path up to the first dot, and which part it is; None: none."""
    folder, base = posixpath.split(name)
    stem, _, extension = base.partition(".")
    parts = {**dict.fromkeys(_PICTURES, PICTURE), "txt": TEXT, "json": JSON, "cls": LABEL}
    return posixpath.join(folder, stem), parts.get(extension.lower()) if stem else None


def _label(content: bytes, name: str) -> int:
    text = content.decode("ascii", "replace").strip()
    if len(content) > _LONGEST_LABEL or not text.isdecimal() or int(text) > _LARGEST_LABEL:
        raise Unsafe(f"is refused: {name[:100]!r} is not a class from 0 to {_LARGEST_LABEL:,}")
    return int(text)


class Shards:
    """The members of tar shards, by place. Each process opens the shards that it reads from, and never writes."""

    def __init__(self, paths: Sequence[Path]):
        self.paths = tuple(paths)
        self._open: OrderedDict[int, int] = OrderedDict()  # descriptors, the one used last at the end
        self._process = os.getpid()

    def read(self, shard: int, offset: int, size: int) -> bytes:
        """``size`` bytes of a shard. Raises DataError: it is gone, or shorter than it was."""
        try:
            content = os.pread(self._descriptor(shard), size, offset)
        except OSError as error:
            cause = (error.strerror or str(error)).lower()
            raise DataError(f"cannot read {self.paths[shard]} ({cause}).") from error
        if len(content) < size:
            raise DataError(f"{self.paths[shard]} has become shorter while it was read. Start again.")
        return content

    def name(self, shard: int, offset: int) -> str:
        """Of the member whose data are at ``offset``, and its shard, for messages."""
        header = self.read(shard, offset - _BLOCK, 100)
        return f"{header.split(bytes(1))[0].decode('utf-8', 'replace')} in {self.paths[shard]}"

    def _descriptor(self, shard: int) -> int:
        if self._process != os.getpid():  # a worker: the descriptors are its parent's, too
            self._open, self._process = OrderedDict(), os.getpid()
        if shard not in self._open:
            if len(self._open) >= _OPEN:
                os.close(self._open.popitem(last=False)[1])
            self._open[shard] = os.open(self.paths[shard], os.O_RDONLY | os.O_CLOEXEC)
        self._open.move_to_end(shard)
        return self._open[shard]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": OrderedDict(), "_process": -1}

    def __del__(self) -> None:
        if self._process == os.getpid():
            for descriptor in self._open.values():
                os.close(descriptor)


def list_shards(root: Path) -> Iterator[Path]:
    """The .tar files under a folder, at any depth, sorted by name; hidden ones are skipped."""
    found = (
        path for path in root.rglob("*.tar") if not any(part.startswith(".") for part in path.relative_to(root).parts)
    )
    return iter(sorted(found, key=lambda path: path.relative_to(root).as_posix()))

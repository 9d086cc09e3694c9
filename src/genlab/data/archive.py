"""Safe unpacking of archives: nothing outside of the target folder, no links, bounded size."""

import gzip
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from genlab.errors import DataError
from genlab.files.regular_file import make_folder, open_new

_MOST_MEMBERS = 1_000_000  # CelebA has 202,599
_RATIO = 100  # unpacked to packed: pictures have 1, MNIST's labels 2, text 5
_ALWAYS = 256 << 20  # bytes that any archive may hold: small ones may compress better
_CHUNK = 1 << 20  # bytes
_DEEPEST, _LONGEST = 64, 1024  # folders that a file lies in, and characters of its path


class Unsafe(Exception):
    """An archive that must not be unpacked; the text says why."""


def unpack_tar(path: Path, folder: Path) -> None:
    """The files of a .tar or .tar.gz into ``folder``. Raises Unsafe, before anything is written."""
    budget = _Budget(path)
    with damage(), _opened(path) as packed, open_tar(Metered(packed, budget.allowed)) as archive:
        members: list[tarfile.TarInfo] = []
        for member in archive:  # one by one: the full list may be endless
            if not (member.isfile() or member.isdir()):
                raise Unsafe(f"is refused: {member.name} is a link or a device")
            budget.plan(len(members) + 1, member.size)
            members.append(member)
        for chunk in _chunks(packed):  # to the end, where the checksum is
            budget.plan(0, len(chunk))
        check_names(member.name for member in members)
        for member in members:
            archive.extract(member, folder, set_attrs=False, filter="data")


def _opened(path: Path) -> Any:
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if is_gzip else path.open("rb")


def open_tar(file: Any) -> tarfile.TarFile:
    """An uncompressed tar archive, of which no member has been read."""
    return tarfile.open(fileobj=file, mode="r:")


def unpack_zip(path: Path, folder: Path, names: Iterable[str]) -> None:
    """The members ``names`` of a zip archive into ``folder``. Raises Unsafe."""
    with damage(), zipfile.ZipFile(path) as archive:
        check_zip(path, archive)
        for name in names:
            member = archive.getinfo(name)
            if member.flag_bits & 1:
                raise Unsafe(f"is refused: {name} is encrypted")
            if member.external_attr >> 28 not in (0, 8):  # the Unix file type: a regular file or unknown
                raise Unsafe(f"is refused: {name} is a link or a device")
            target = folder / name
            folder.mkdir(parents=True, exist_ok=True)
            make_folder(target.parent, folder)  # refuses links
            with archive.open(member) as source, open_new(target) as file:  # stops at the size that was declared
                shutil.copyfileobj(source, file, _CHUNK)


def zip_names(path: Path) -> list[str]:
    """The names in a zip archive. Raises Unsafe."""
    with damage(), zipfile.ZipFile(path) as archive:
        return archive.namelist()


def check_zip(path: Path, archive: zipfile.ZipFile) -> None:
    """Raises Unsafe for names that leave the folder or occur twice, and for too large a content."""
    budget, members = _Budget(path), archive.infolist()
    for member in members:
        budget.plan(len(members), member.file_size)
    check_names(member.filename for member in members)


def unpack_gzip(path: Path, target: Path) -> None:
    """The one file in ``path`` to ``target``. Raises Unsafe; then ``target`` is gone."""
    budget = _Budget(path)
    try:
        with damage(), gzip.open(path) as packed, open_new(target) as file:
            for chunk in _chunks(packed):
                budget.plan(1, len(chunk))
                file.write(chunk)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


@contextmanager
def wholesome(shown: str, remedy: str) -> Iterator[None]:
    """Turns Unsafe inside the block into DataError, with the archive ``shown`` and a remedy."""
    try:
        yield
    except Unsafe as error:
        raise DataError(f"{shown} {error}. {remedy}") from error


class _Budget:
    """How much an archive may unpack to, given its size."""

    def __init__(self, path: Path):
        self.left = self.allowed = max(_ALWAYS, _RATIO * path.stat().st_size)

    def plan(self, members: int, size: int) -> None:
        self.left -= size
        if members > _MOST_MEMBERS:
            raise Unsafe(f"is refused: it holds more than {_MOST_MEMBERS:,} files")
        if size < 0 or self.left < 0:
            raise Unsafe(f"is refused: it holds more than {self.allowed:,} bytes, which no archive of its size should")


class Metered:
    """A file whose reads are bounded, since a header of a tar archive may claim any size."""

    def __init__(self, file: Any, allowed: int):
        self.seek, self.tell, self._read, self._allowed = file.seek, file.tell, file.read, allowed

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self._allowed:
            raise Unsafe(f"is refused: it holds more than {self._allowed:,} bytes, which no archive of its size should")
        return self._read(size)


def check_names(names: Iterable[str]) -> None:
    """Raises Unsafe for names that lead out of a folder, are nested too deeply, or occur twice."""
    seen = set[str]()
    for name in names:
        path = PurePosixPath(name)
        if len(name) > _LONGEST or len(path.parts) > _DEEPEST:
            raise Unsafe(f"is refused: {name[:60]!r}... is nested too deeply in it")
        if path.is_absolute() or ".." in path.parts or "\\" in name or not name.isprintable():
            raise Unsafe(f"is refused: {name!r} leads out of its folder")
        if str(path) in seen:
            raise Unsafe(f"is refused: {name} is in it twice")
        seen.add(str(path))


def _chunks(file: Any) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk


@contextmanager
def damage() -> Iterator[None]:
    """Turns the errors of the libraries for archives into Unsafe."""
    try:
        yield
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        gzip.BadGzipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        NotImplementedError,
    ) as error:
        raise Unsafe("is damaged") from error

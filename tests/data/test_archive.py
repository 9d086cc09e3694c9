"""Hostile archives: nothing outside of the folder, nothing inside either, one line each."""

import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genlab.data import archive
from genlab.data.archive import Unsafe, unpack_gzip, unpack_tar, unpack_zip, zip_names
from genlab.data.array import Array
from genlab.errors import DataError


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_ALWAYS", 1 << 20)
    monkeypatch.setattr(archive, "_MOST_MEMBERS", 50)


def tar_of(*members: tuple[str, dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
        for name, attributes in members:
            member = tarfile.TarInfo(name)
            content = attributes.pop("content", b"x")
            member.size = len(content) if attributes.get("type", tarfile.REGTYPE) == tarfile.REGTYPE else 0
            for key, value in attributes.items():
                setattr(member, key, value)
            packed.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(*members: tuple[str, bytes], mode: int = stat.S_IFREG | 0o644) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            packed.writestr(info, content)
    return buffer.getvalue()


def pax_bomb() -> bytes:
    """A header that claims to be 10 GB."""
    header = bytearray(tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT))
    header[124:136], header[156:157] = b"%011o\0" % (10 << 30), tarfile.XHDTYPE
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return gzip.compress(bytes(header) + bytes(1024))


def patched(content: bytes, signature: bytes, offset: int, value: bytes) -> bytes:
    """``content`` with ``value`` at an offset from each record of a zip archive that begins with ``signature``."""
    changed, start = bytearray(content), 0
    while (start := content.find(signature, start)) >= 0:
        changed[start + offset : start + offset + len(value)] = value
        start += 4
    return bytes(changed)


def encrypted() -> bytes:
    whole = zip_of(("a", b"x"))
    return patched(patched(whole, b"PK\1\2", 8, b"\1\0"), b"PK\3\4", 6, b"\1\0")


AIR = bytes(4 << 20)
LINK = {"type": tarfile.SYMTYPE, "linkname": "/etc"}
TARS: dict[str, tuple[Callable[[], bytes], str]] = {
    "slip": (lambda: tar_of(("../out", {})), r"leads out"),
    "deep slip": (lambda: tar_of(("a/b/../../../out", {})), r"leads out"),
    "absolute": (lambda: tar_of(("/tmp/out", {})), r"leads out"),
    "backslash": (lambda: tar_of(("..\\out", {})), r"leads out"),
    "escape code": (lambda: tar_of(("\x1b[31mout", {})), r"'\\x1b\[31mout' leads out"),
    "link": (lambda: tar_of(("a", LINK), ("a/passwd", {})), r"a is a link"),
    "link inside": (lambda: tar_of(("b", {}), ("a", LINK | {"linkname": "b"})), r"a is a link"),
    "hard link": (lambda: tar_of(("a", {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"})), r"a is a link"),
    "device": (lambda: tar_of(("a", {"type": tarfile.CHRTYPE})), r"a is a link or a device"),
    "pipe": (lambda: tar_of(("a", {"type": tarfile.FIFOTYPE})), r"a is a link or a device"),
    "twice": (lambda: tar_of(("a", {}), ("./a", {})), r"a is in it twice"),
    "deep": (lambda: tar_of(("d/" * 400 + "x", {})), r"nested too deeply"),
    "a long name": (lambda: tar_of(("n" * 2000, {})), r"nested too deeply"),
    "air": (lambda: tar_of(("a", {"content": AIR})), r"more than 1,048,576 bytes"),
    "air in parts": (lambda: tar_of(*((f"a{i}", {"content": AIR[: 1 << 18]}) for i in range(9))), r"more than 1,048"),
    "headers": (pax_bomb, r"more than 1,048,576 bytes"),
    "many": (lambda: tar_of(*((f"a{i}", {}) for i in range(60))), r"more than 50 files"),
    "cut": (lambda: tar_of(("a", {"content": os.urandom(9999)}))[:-2000], r"is damaged"),
    "flipped": (lambda: tar_of(("a", {}))[:-8] + bytes(8), r"is damaged"),
    "no archive": (lambda: b"hello", r"is damaged"),
}
ZIPS: dict[str, tuple[Callable[[], bytes], str]] = {
    "slip": (lambda: zip_of(("../out", b"x")), r"leads out"),
    "absolute": (lambda: zip_of(("/tmp/out", b"x")), r"leads out"),
    "link": (lambda: zip_of(("a", b"/etc"), mode=stat.S_IFLNK | 0o777), r"a is a link"),
    "twice": (lambda: zip_of(("a", b"x"), ("a", b"y")), r"a is in it twice"),
    "deep": (lambda: zip_of(("d/" * 400 + "x", b"x")), r"nested too deeply"),
    "air": (lambda: zip_of(("a", AIR)), r"more than 1,048,576 bytes"),
    "many": (lambda: zip_of(*((f"a{i}", b"") for i in range(60))), r"more than 50 files"),
    "cut": (lambda: zip_of(("a", b"x"))[:-9], r"is damaged"),
    "flipped": (lambda: patched(zip_of(("a", b"x" * 99)), b"PK\1\2", 16, b"\0\0\0\0"), r"is damaged"),
    "encrypted": (encrypted, r"a is encrypted"),
    # declared as empty, in truth more than the limit: no more than was declared is written
    "liar": (lambda: patched(zip_of(("a", AIR)), b"PK\1\2", 24, struct.pack("<I", 10)), r"is damaged"),
}


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", TARS)
def test_tar(name: str, tmp_path: Path) -> None:
    make, said = TARS[name]
    (tmp_path / "x.tar.gz").write_bytes(make())
    (tmp_path / "in").mkdir()
    with pytest.raises(Unsafe, match=said) as caught:
        unpack_tar(tmp_path / "x.tar.gz", tmp_path / "in")
    assert str(caught.value).isprintable()
    assert everything(tmp_path) == ["in", "x.tar.gz"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ZIPS)
def test_zip(name: str, tmp_path: Path) -> None:
    make, said = ZIPS[name]
    (tmp_path / "x.zip").write_bytes(make())
    with pytest.raises(Unsafe, match=said):
        unpack_zip(tmp_path / "x.zip", tmp_path / "in", zip_names(tmp_path / "x.zip"))
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "x.zip"]
    assert sum(path.stat().st_size for path in left) <= 99
    assert all(path.is_relative_to(tmp_path / "in") for path in left)


@pytest.mark.parametrize(("content", "said"), [
    (gzip.compress(AIR, mtime=0), "more than 1,048,576 bytes"),
    (gzip.compress(b"x" * 99, mtime=0)[:-9], "is damaged"),
    (gzip.compress(b"x" * 99, mtime=0)[:-8] + bytes(8), "is damaged"),
    (b"hello", "is damaged"),
])  # fmt: skip
def test_gzip(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "x.gz").write_bytes(content)
    with pytest.raises(Unsafe, match=said):
        unpack_gzip(tmp_path / "x.gz", tmp_path / "x")
    assert everything(tmp_path) == ["x.gz"]


def test_good_ones_are_unpacked(tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(tar_of(("a", {"type": tarfile.DIRTYPE}), ("a/b", {"content": b"hello"})))
    (tmp_path / "x.zip").write_bytes(zip_of(("a/b", b"hello"), ("c", b"")))
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"hello", mtime=0))
    unpack_tar(tmp_path / "x.tar.gz", tmp_path / "tar")
    unpack_zip(tmp_path / "x.zip", tmp_path / "zip", ["a/b"])
    unpack_gzip(tmp_path / "x.gz", tmp_path / "gz")
    for path in ("tar/a/b", "zip/a/b", "gz"):
        assert (tmp_path / path).read_bytes() == b"hello"
    assert everything(tmp_path / "zip") == ["a", "a/b"]


# --- arrays -----------------------------------------------------------------------------------------------------------


def npy(shape: tuple[int, ...], descr: Any = "|u1", content: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue() + content


class Hostile:
    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


def objects(save: Callable[..., None]) -> bytes:
    buffer = io.BytesIO()
    save(buffer, np.array([Hostile()] * 4, dtype=object))
    return buffer.getvalue()


ARRAYS: dict[str, tuple[Callable[[], bytes], str]] = {
    "objects.npy": (lambda: objects(np.save), "holds Python objects"),
    "objects.npz": (lambda: objects(np.savez), "holds Python objects"),
    "giant.npy": (lambda: npy((1 << 50, 8, 8)), "is damaged"),
    "overflow.npy": (lambda: npy((1 << 62, 1 << 62, 8)), "is damaged"),
    "negative.npy": (lambda: npy((-5, 8, 8), content=bytes(640)), "is damaged"),
    "code.npy": (lambda: npy((1,), "__import__('os').system('touch executed')"), "is damaged"),
    "pickle.npy": (lambda: b"cposix\nsystem\n(S'touch executed'\ntR.", "is damaged, or not"),
    "giant.npz": (lambda: zip_of(("images.npy", npy((1 << 50, 8, 8)))), "is damaged"),
    "overflow.npz": (lambda: zip_of(("images.npy", npy((1 << 62, 1 << 62, 8)))), "is damaged"),
    "air.npz": (lambda: zip_of(("images.npy", npy((1 << 16, 8, 8), content=AIR))), "more than 1,048,576 bytes"),
    "slip.npz": (lambda: zip_of(("../images.npy", npy((1, 8, 8), content=bytes(64)))), "leads out"),
    "twice.npz": (lambda: zip_of(("images.npy", b""), ("images.npy", b"")), "is in it twice"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ARRAYS)
def test_array(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, said = ARRAYS[name]
    (tmp_path / name).write_bytes(make())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=said) as caught:
        Array(path=name, cache_dir="cache").table("train")
    assert "\n" not in str(caught.value)
    assert everything(tmp_path) == [name]

"""A second start reads nothing again that has not changed: files opened, bytes read and hashed are counted."""

import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genlab.data import array_cache, hub, image, image_files, text_file, text_files, text_folder
from genlab.data.image_folder import ImageFolder
from genlab.data.remembered import of_array, recall, remember
from genlab.data.text import TextDataModule
from genlab.data.text_file import TextFile
from genlab.data.text_folder import TextFolder
from genlab.data.tokenizer.characters import Characters
from genlab.trust import own_runs

OLD = 1_600_000_000  # seconds: long before this test
PLAY = "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n" * 5


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "cache"))


def _count(monkeypatch: pytest.MonkeyPatch, module: object, name: str) -> list[object]:
    calls: list[object] = []
    real = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *given: calls.append(given) or real(*given))
    return calls


def put(path: Path, shade: int, size: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), (shade, 0, 0)).save(path, "BMP")  # any two have as many bytes


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for i in range(12):
        put(tmp_path / "x" / "ba"[i % 2] / f"{i}.bmp", shade=i)
    return tmp_path / "x"


def _all(data: ImageFolder) -> list[object]:
    tables = [data.table(split) for split in ("train", "val")]
    return [data.fingerprint, *((t.images.tolist(), t.labels.tolist(), t.names) for t in tables)]  # type: ignore[union-attr]


@pytest.mark.parametrize("limit", [None, 3])
def test_images_the_second_time(root: Path, limit: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _all(ImageFolder(str(root), val_fraction=0.4, limit=limit))
    sorted_ = _count(monkeypatch, image_files, "held_out_names")
    checked = _count(monkeypatch, array_cache, "_checksum")
    hashed = _count(monkeypatch, image, "_hash_of_pixels")
    looked = _count(monkeypatch, os, "scandir")
    assert _all(ImageFolder(str(root), val_fraction=0.4, limit=limit)) == first
    assert (len(sorted_), len(checked), len(hashed)) == (0, 0, 0)
    assert len(looked) == 3  # each folder once, for both splits


@pytest.mark.parametrize("limit", [None, 3])
def test_what_is_remembered_is_what_is_found_without(root: Path, limit: int | None, tmp_path: Path) -> None:
    first = _all(ImageFolder(str(root), val_fraction=0.4, limit=limit))
    for i in range(2):
        again = ImageFolder(str(root), val_fraction=0.4, limit=limit, cache_dir=str(tmp_path / f"other{i}"))
        assert _all(again) == first
    assert first == _all(ImageFolder(str(root), val_fraction=0.4, limit=limit))


CHANGES: dict[str, Callable[[Path], object]] = {
    "another": lambda root: put(root / "a" / "new.bmp", 200),
    "one less": lambda root: (root / "a" / "1.bmp").unlink(),
    "another name": lambda root: (root / "a" / "1.bmp").rename(root / "a" / "1b.bmp"),
    "another class": lambda root: (root / "a" / "1.bmp").rename(root / "b" / "1.bmp"),
    "written anew": lambda root: put(root / "a" / "1.bmp", 200),
    "written anew, the folder's time set back": lambda root: (
        put(root / "a" / "1.bmp", 200), os.utime(root / "a", (OLD, OLD)), os.utime(root, (OLD, OLD))
    ),
    "another time": lambda root: os.utime(root / "a" / "1.bmp", (OLD, OLD)),
    "a folder of another name": lambda root: (root / "a").rename(root / "c"),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_is_noticed(root: Path, change: Callable[[Path], object], tmp_path: Path) -> None:
    _all(ImageFolder(str(root), val_fraction=0.4))
    change(root)
    anew = _all(ImageFolder(str(root), val_fraction=0.4, cache_dir=str(tmp_path / "anew")))
    assert _all(ImageFolder(str(root), val_fraction=0.4)) == anew


def test_a_setting_is_another_index(root: Path) -> None:
    found = [_all(ImageFolder(str(root), **changed)) for changed in  # type: ignore[arg-type]
             ({}, {"val_fraction": 0.4}, {"channels": 1}, {"image_size": 4}, {})]  # fmt: skip
    assert found[0] == found[-1]
    assert all(a != b for i, a in enumerate(found[:-1]) for b in found[:i])


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"pixels": 3, "names": 1, "files": "x", "labels": "y"}'])
def test_a_damaged_index_is_made_again(root: Path, content: str, tmp_path: Path) -> None:
    first = _all(ImageFolder(str(root), val_fraction=0.4))
    facts = list((tmp_path / "cache").glob("*.facts"))
    assert len(facts) == 3  # an index each, and the hash of the training pixels
    for path in facts:
        path.write_text(content)
    assert _all(ImageFolder(str(root), val_fraction=0.4)) == first


def test_bad_files_are_told_of_each_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for i in range(2000):
        put(tmp_path / "x" / f"{i}.bmp", shade=0, size=1)
    bad = tmp_path / "x" / "7.bmp"
    bad.write_bytes(b"BM")
    (tmp_path / "x" / "notes.txt").touch()
    said = []
    for _ in range(2):
        ImageFolder(str(tmp_path / "x"), on_bad="skip", val_root=str(tmp_path / "x")).table("train")
        said.append([record.getMessage() for record in caplog.records])
        caplog.clear()
    assert said[0] == said[1]
    assert len(said[0]) == 2


# --- The cache


def test_an_entry_is_read_through_only_where_its_file_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.arange(50, dtype=np.uint8)
    read = _count(monkeypatch, array_cache.zlib, "crc32")
    made: list[int] = []

    def use() -> int:
        before = len(read)
        array_cache.cached_array(tmp_path, "key", lambda: made.append(1) or iter([rows]))
        return len(read) - before

    assert use() > 0  # made
    assert use() == 0
    os.utime(tmp_path / "key.npy")  # a copy has another time
    assert use() > 0
    assert use() == 0
    assert made == [1]
    other = bytearray((tmp_path / "key.npy").read_bytes())
    other[-1] ^= 1
    (tmp_path / "key.npy").write_bytes(other)
    assert use() > 0
    assert made == [1, 1]
    assert zlib.crc32 is not None


def test_an_entry_of_before_seals_told_times(tmp_path: Path) -> None:
    array_cache.cached_array(tmp_path, "key", lambda: iter([np.arange(5)]))
    seal = (tmp_path / "key.json").read_text().replace("modified", "unknown")
    (tmp_path / "key.json").write_text(seal)
    for _ in range(2):
        assert array_cache.cached_array(tmp_path, "key", lambda: iter(())).tolist() == [0, 1, 2, 3, 4]
    assert "modified" in (tmp_path / "key.json").read_text()


def test_facts_of_an_array(tmp_path: Path) -> None:
    array_cache.cached_array(tmp_path, "key", lambda: iter([np.arange(5)]))
    made: list[str] = []

    def fact(name: str) -> str:
        return of_array(tmp_path, "key", name, lambda: made.append(name) or f"{name} {len(made)}")

    assert [fact("a"), fact("b"), fact("a")] == ["a 1", "b 2", "a 1"]
    np.save(tmp_path / "key.npy", np.arange(5))
    assert fact("a") == "a 3"
    assert of_array(tmp_path, "none", "a", lambda: "made") == "made"


def test_where_nothing_can_be_kept_nothing_is_raised(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    remember(tmp_path / "file", "key", {"a": 1})
    assert recall(tmp_path / "file", "key") is None


@pytest.mark.parametrize("kept", ["a fact", "a note of the Hub", "the key of a user"])
def test_a_killed_process_leaves_nothing_for_good(kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child dies before its file appears; who comes after it writes over what it left."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    keep: Callable[[], object] = {
        "a fact": lambda: remember(tmp_path, "key", {"a": 1}),
        "a note of the Hub": lambda: hub.remember(tmp_path / "note.json", {"a": 1}),
        "the key of a user": own_runs._new_key,
    }[kept]
    if (child := os.fork()) == 0:
        os.replace = os.link = lambda *args, **named: os._exit(9)  # type: ignore[assignment]
        keep()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert len(list(tmp_path.rglob("*.part"))) == 1
    keep()
    assert not list(tmp_path.rglob("*.part"))
    found = {
        "a fact": lambda: recall(tmp_path, "key") == {"a": 1},
        "a note of the Hub": lambda: hub.recall(tmp_path / "note.json") == {"a": 1},
        "the key of a user": lambda: own_runs._key() is not None,
    }[kept]
    assert found()


# --- Text


def _files(folder: Path) -> list[Path]:
    folder.mkdir()
    files = [folder / f"{i}.txt" for i in range(3)]
    for i, path in enumerate(files):
        path.write_text(PLAY + "." * i)
    return files


def _file_data(files: list[Path]) -> TextDataModule:
    return TextFile(Characters(), str(files[0]), context=8)


def _folder_data(files: list[Path]) -> TextDataModule:
    return TextFolder(Characters(), str(files[0].parent), val_fraction=0.4, context=8)


def _text(data: TextDataModule) -> list[object]:
    return [data.fingerprint, data.text_hash("val"), data.tokens("train").tolist(), data.tokens("val").tolist()]


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if some seconds had passed since the files were written."""
    monkeypatch.setattr(text_files, "_COARSE", 0)


@pytest.mark.parametrize("make", [_file_data, _folder_data])
def test_text_the_second_time(
    make: Callable[[list[Path]], TextDataModule], settled: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = _files(tmp_path / "x")
    first = _text(make(files))
    read = [_count(monkeypatch, module, "read_text") for module in (text_file, text_files)]
    assert _text(make(files)) == first
    assert read == [[], []]
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "anew"))
    assert _text(make(files)) == first
    assert read != [[], []]


@pytest.mark.parametrize("make", [_file_data, _folder_data])
def test_a_text_of_the_same_size_and_time_is_another(
    make: Callable[[list[Path]], TextDataModule], settled: None, tmp_path: Path
) -> None:
    files = _files(tmp_path / "x")
    first = _text(make(files))
    for path in files:
        status = path.stat()
        path.write_text(path.read_text().replace("Citizen", "citizen"))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert _text(make(files)) != first


def test_a_text_that_was_just_written_is_read(tmp_path: Path) -> None:
    """Within the grain of a clock it may be written twice at one time."""
    files = _files(tmp_path / "x")
    assert _file_data(files).stamp("train") is None
    assert _folder_data(files).stamp("val") is None
    assert text_folder.stamp_of([tmp_path / "none"]) is None

"""The cache of arrays: killed at any moment, wanted by two at once, and keyed by all that made them."""

import errno
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genlab.data import array_cache, decoding
from genlab.data.array_cache import cached_array, cached_rows
from genlab.data.decoding import FileDecoding
from genlab.data.image_files import ImageFile
from genlab.errors import StorageError

FORK = multiprocessing.get_context("fork")
ROWS = np.random.default_rng(0).integers(0, 256, (300, 3, 8, 8), dtype=np.uint8)
LEFT_OUT = {7, 150}


def rows(log: Path, stop: Callable[[int], None] = lambda position: None) -> Iterator[np.ndarray | None]:
    """All but two of ROWS; each call is noted in ``log``."""
    with open(log, "a") as file:
        file.write(f"{os.getpid()}\n")
    for position, row in enumerate(ROWS):
        stop(position)
        yield None if position in LEFT_OUT else row


def check(folder: Path, log: Path) -> None:
    pixels, kept = cached_rows(folder, "key", lambda: rows(log))
    assert kept.tolist() == [i for i in range(len(ROWS)) if i not in LEFT_OUT]
    assert np.array_equal(pixels, ROWS[kept])


def made(log: Path) -> int:
    return len(log.read_text().split()) if log.exists() else 0


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _killed_at_a_row(folder: Path, log: Path, row: int) -> None:
    cached_rows(folder, "key", lambda: rows(log, lambda position: die() if position == row else None))


def _killed_at_a_call(folder: Path, log: Path, module: Any, name: str, call: int, before: bool) -> None:
    real, calls = getattr(module, name), 0

    def deadly(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and before:
            die()
        result = real(*arguments, **options)
        if calls == call:
            die()
        return result

    setattr(module, name, deadly)
    check(folder, log)


def killed(target: Callable[..., None], *arguments: object) -> None:
    process = FORK.Process(target=target, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("row", [0, 1, 299])
def test_killed_while_rows_are_made(tmp_path: Path, row: int) -> None:
    folder, log = tmp_path / "cache", tmp_path / "log"
    killed(_killed_at_a_row, folder, log, row)
    check(folder, log)
    check(folder, log)
    assert made(log) == 2  # the killed one and the first check


@pytest.mark.parametrize(
    ("module", "name", "call", "before", "times"),
    [
        (os, "fsync", 1, True, 2),  # of the pixels
        (os, "replace", 1, True, 2),
        (os, "replace", 1, False, 2),  # pixels in place, no seal yet
        (os, "fsync", 2, True, 2),  # of the seal
        (os, "replace", 2, True, 2),
        (os, "replace", 2, False, 1),  # all is there
    ],
)
def test_killed_between_the_steps_of_writing(
    tmp_path: Path, module: Any, name: str, call: int, before: bool, times: int
) -> None:
    folder, log = tmp_path / "cache", tmp_path / "log"
    killed(_killed_at_a_call, folder, log, module, name, call, before)
    check(folder, log)
    check(folder, log)
    assert made(log) == times
    assert not list(folder.glob("*.npy.part"))


def test_an_old_seal_does_not_vouch_for_new_pixels(tmp_path: Path) -> None:
    log = tmp_path / "log"
    check(tmp_path, log)
    other = np.load(tmp_path / "key.npy")
    other[5] ^= 1
    np.save(tmp_path / "key.npy", other)  # the same size, another content
    check(tmp_path, log)
    assert made(log) == 2


def _slow(folder: Path, log: Path, started: Any, is_to_die: bool) -> None:
    def stop(position: int) -> None:
        started.set()
        time.sleep(0.002)
        if is_to_die and position == 100:
            die()

    cached_rows(folder, "key", lambda: rows(log, stop))


@pytest.mark.parametrize("is_to_die", [False, True])
def test_who_waits_gets_what_the_other_made_or_makes_it(tmp_path: Path, is_to_die: bool) -> None:
    log, started = tmp_path / "log", FORK.Event()
    process = FORK.Process(target=_slow, args=(tmp_path, log, started, is_to_die))
    process.start()
    assert started.wait(20)
    check(tmp_path, log)
    process.join()
    assert process.exitcode == (-signal.SIGKILL if is_to_die else 0)
    assert made(log) == (2 if is_to_die else 1)


def _check(folder: Path, log: Path) -> None:
    check(folder, log)


def test_many_at_once_make_it_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    processes = [FORK.Process(target=_check, args=(tmp_path, log)) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 6
    assert made(log) == 1


def test_a_full_disk_leaves_nothing_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder, log = tmp_path / "cache", tmp_path / "log"
    monkeypatch.setattr(array_cache.os, "fsync", full)
    with pytest.raises(StorageError, match=f"cannot keep prepared data in {folder} .no space left on device.*Make"):
        check(folder, log)
    assert [path.suffix for path in folder.iterdir()] == [".lock"]
    monkeypatch.undo()
    check(folder, log)


def test_another_key_is_another_entry(tmp_path: Path) -> None:
    check(tmp_path, tmp_path / "log")
    pixels, _ = cached_rows(tmp_path, "other", lambda: iter(ROWS[:2]))
    assert np.array_equal(pixels, ROWS[:2])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.float32])
def test_blocks_of_any_length_and_type_are_joined(tmp_path: Path, dtype: type) -> None:
    lengths = [0, 3, 1, 0, 5000]
    blocks = [np.arange(n).astype(dtype) for n in lengths]
    array = cached_array(tmp_path, "key", lambda: iter(blocks))
    assert array.dtype == dtype
    assert np.array_equal(array, np.concatenate(blocks))
    assert np.array_equal(cached_array(tmp_path, "key", lambda: iter(())), array)  # from disk
    assert cached_array(tmp_path, "empty", lambda: iter(blocks[:1])).shape == (0,)
    assert cached_array(tmp_path, "empty", lambda: iter(())).shape == (0,)


FILES = [ImageFile("a/1.png", 10, 1), ImageFile("a/2.png", 10, 1)]


def key(root: str = "r", files: list[ImageFile] = FILES, **options: Any) -> str:
    return FileDecoding(root, files, **{"image_size": 8, "channels": 3, **options}).key()


def test_the_key_is_made_of_all_that_pixels_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [
        key(),
        key(image_size=9),
        key(image_size=None),
        key(channels=1),
        key(crop=4),
        key(on_bad="skip"),
        key(files=FILES[:1]),
        key(files=FILES[::-1]),
        *(key(files=[file, FILES[1]]) for file in (ImageFile("b/1.png", 10, 1), ImageFile("a/1.png", 11, 1))),
        key(files=[ImageFile("a/1.png", 10, 2), FILES[1]]),
    ]
    assert len(set(keys)) == len(keys)
    assert key(root="elsewhere") == keys[0]  # a folder may be moved
    monkeypatch.setattr(decoding, "DECODER", "another")
    assert key() not in keys


@pytest.mark.parametrize("said", ["set GENLAB_CACHE to another folder", "set cache_dir to another"])
def test_another_folder_is_a_way_out(said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "file" / "cache"))
    broken = array_cache.default_folder() if "GENLAB_CACHE" in said else tmp_path / "file" / "mine"
    with pytest.raises(StorageError, match=said):
        check(broken, tmp_path / "log")
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "other"))
    check(array_cache.default_folder() if "GENLAB_CACHE" in said else tmp_path / "mine", tmp_path / "log")

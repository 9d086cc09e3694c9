"""Files of a run folder are opened without following links, regular ones only, of bounded size."""

import os
from pathlib import Path

import pytest

from genlab.files import regular_file
from genlab.files.regular_file import IrregularFileError, kind_of, open_new, open_regular, open_to_append, read_text


def _fifo(path: Path, _: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path, _: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def _link(path: Path, canary: Path) -> None:
    path.symlink_to(canary)


def _link_to_a_device(path: Path, _: Path) -> None:
    path.symlink_to("/dev/zero")


def _loop(path: Path, _: Path) -> None:
    path.symlink_to(path.name)


def _folder(path: Path, _: Path) -> None:
    path.mkdir()


ODD = [_fifo, _socket, _link, _link_to_a_device, _loop, _folder]


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    path = tmp_path / "elsewhere.txt"
    path.write_text("canary")
    return path


@pytest.mark.parametrize("make", ODD, ids=lambda make: make.__name__.strip("_"))
def test_only_regular_files_are_opened(make, tmp_path: Path, canary: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    make(run / "file", canary)
    for opened in (open_regular, open_to_append):
        with pytest.raises(IrregularFileError) as caught:
            opened(run / "file")
        assert kind_of(run / "file") in str(caught.value)
    assert not regular_file.is_regular(run / "file")


def test_no_link_is_followed_below_the_root_and_the_root_may_be_one(tmp_path: Path, canary: Path) -> None:
    (tmp_path / "run" / "real").mkdir(parents=True)
    (tmp_path / "run" / "real" / "file").write_text("mine")
    (tmp_path / "run" / "samples").symlink_to(tmp_path)
    (tmp_path / "alias").symlink_to(tmp_path / "run")
    run = tmp_path / "alias"
    assert read_text(run / "real" / "file", root=run) == "mine"
    for path in (run / "samples" / canary.name, run / "real" / ".." / ".." / canary.name):
        with pytest.raises(IrregularFileError):
            read_text(path, root=run)


def test_sizes_are_bounded_before_anything_is_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(IrregularFileError, match="at most 67,108,864 are read"):
        read_text(tmp_path / "sparse")
    (tmp_path / "ten").write_bytes(b"0123456789")
    assert read_text(tmp_path / "ten", largest=10) == "0123456789"
    with pytest.raises(IrregularFileError):
        read_text(tmp_path / "ten", largest=9)


def test_a_new_file_takes_the_place_of_a_link(tmp_path: Path, canary: Path) -> None:
    (tmp_path / "new").symlink_to(canary)
    with open_new(tmp_path / "new") as file:
        file.write(b"new")
    assert (canary.read_text(), (tmp_path / "new").read_text()) == ("canary", "new")
    assert regular_file.is_regular(tmp_path / "new")


def test_nothing_there_is_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "none" / "file", root=tmp_path)
    descriptors = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            read_text(tmp_path / "none")
    assert not descriptors or len(os.listdir("/proc/self/fd")) == descriptors

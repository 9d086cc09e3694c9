"""Rows that name files: only files of the data set itself are read."""

import os
import zipfile
from pathlib import Path

import pytest

from genlab.data.row_files import read_row_file
from genlab.errors import DataError


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    (folder / "below" / "a.png").write_bytes(b"mine")
    with zipfile.ZipFile(folder / "some.zip", "w") as archive:
        archive.writestr("b.png", b"packed")
    (tmp_path / "secret").write_bytes(b"canary")
    (tmp_path / "pictures-of-others").mkdir()
    (tmp_path / "pictures-of-others" / "c.png").write_bytes(b"canary")
    with zipfile.ZipFile(tmp_path / "outside.zip", "w") as archive:
        archive.writestr("b.png", b"canary")
    (folder / "link.png").symlink_to(tmp_path / "secret")
    (folder / "out").symlink_to(tmp_path)
    (folder / "inside.png").symlink_to(folder / "below" / "a.png")
    os.mkfifo(folder / "fifo.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    return folder


def test_files_of_the_data_set_are_read(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("below/a.png", str(pictures / "below" / "a.png"), "inside.png"):
        assert read_row_file(path, str(pictures), "row 0") == b"mine"
    assert read_row_file(f"zip://b.png::{pictures / 'some.zip'}", str(pictures), "row 0") == b"packed"
    monkeypatch.chdir(pictures.parent)
    assert read_row_file("pictures/below/a.png", "pictures", "row 0") == b"mine"


ELSEWHERE = [
    "{up}/secret", "../secret", "below/../../secret", "link.png", "out/secret", "{up}/pictures-of-others/c.png",
    "zero.png", "/dev/zero", "/etc/passwd", "/proc/self/environ", "", ".", "file:///etc/passwd",
    "http://169.254.169.254/latest/meta-data", "https://example.org/a.png", "s3://bucket/a.png", "ftp://a/b",
    "memory://a", "local://{up}/secret", "hf://datasets/other/name@main/a.png", "zip://b.png::{up}/outside.zip",
    "zip://b.png::http://example.org/a.zip", "simplecache::http://example.org/a.png", "below/a.png::http://x/y",
    "github://owner:name@/x", "reference://::{up}/secret", "zip://b.png::", "data:text/plain,canary",
]  # fmt: skip


@pytest.mark.parametrize("path", ELSEWHERE)
def test_a_row_leads_nowhere_else(path: str, pictures: Path) -> None:
    with pytest.raises(DataError, match=r"row 7 names the file .* not part of the data set"):
        read_row_file(path.format(up=pictures.parent), str(pictures), "row 7")
    with pytest.raises(DataError, match="row 7 names the file"):
        read_row_file(path.format(up=pictures.parent), "owner/name", "row 7")


def test_what_is_no_file_does_not_wait(pictures: Path) -> None:
    for path in ("fifo.png", f"zip://b.png::{pictures / 'fifo.png'}", "below"):
        with pytest.raises(DataError, match="cannot read row 7"):
            read_row_file(path, str(pictures), "row 7")
    with (pictures / "huge.png").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DataError, match="bytes"):
        read_row_file("huge.png", str(pictures), "row 7")


def test_a_folder_of_the_hubs_cache_may_link_to_its_blobs(tmp_path: Path) -> None:
    repository = tmp_path / "datasets--owner--name"
    (repository / "blobs").mkdir(parents=True)
    (repository / "blobs" / "1").write_bytes(b"mine")
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "a.png").symlink_to("../../blobs/1")
    (snapshot / "b.png").symlink_to(tmp_path / "secret")
    assert read_row_file("a.png", str(snapshot), "row 0") == b"mine"
    with pytest.raises(DataError, match="names the file"):
        read_row_file("b.png", str(snapshot), "row 0")

"""Tar shards: read in place in genlab's order, resumed to the bit, split stably, and hostile ones in one line."""

import io
import json
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from genlab.checkpoint import read
from genlab.command.train import Interrupted
from genlab.data import tar_index
from genlab.data.tokenizer.words import Words
from genlab.data.webdataset import Webdataset
from genlab.data.workers import plain_error
from genlab.errors import ConfigError, DataError
from tiny_run import MLP, SignalAt, only_run, resume, same, train

COUNT = 30  # samples in three shards


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def captions_of(i: int) -> list[str]:
    return [f"thing {i}"] + ["two words"] * (i % 2)


def pack(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def sample(i: int, label: bool = True) -> dict[str, bytes]:
    key = f"d.d/{i:04}"  # a dot in a folder is no extension
    told = {f"{key}.txt": "\n".join(captions_of(i)).encode()}
    if i % 3 == 0:
        told = {f"{key}.json": json.dumps({"text": captions_of(i), "url": "x"}).encode()}
    return (
        {f"{key}.PNG": png(i), f"{key}.seg.png": b"of no interest"}
        | told
        | ({f"{key}.cls": b"%d\n" % (i % 4)} if label else {})
    )


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "cache"))
    for shard in range(3):
        members: dict[str, bytes] = {}
        for i in range(shard * 10, shard * 10 + 10):
            members |= sample(i)
        pack(tmp_path / "s" / f"{shard}.tar", members)
    return tmp_path / "s"


def made(root: Path, **options: Any) -> Webdataset:
    options = {"image_size": 8, "val_fraction": 0.2, "batch_size": 4, "num_workers": 0} | options
    return Webdataset(Words(), str(root), **options)


def numbers(images: np.ndarray) -> list[int]:
    known = {np.asarray(Image.open(io.BytesIO(png(i)))).transpose(2, 0, 1).tobytes(): i for i in range(COUNT)}
    return [known[image.tobytes()] for image in images]


def test_samples_are_read_in_place_with_captions_and_labels(shards: Path, tmp_path: Path) -> None:
    data = made(shards)
    count = len(data.dataset("train"))
    batch = data.dataset("train")[[(0, i) for i in range(count)]]
    found, held_out = numbers(batch["image"].numpy()), numbers(data.table("val").images)
    assert sorted(found + held_out) == list(range(COUNT))
    assert 1 <= len(held_out) <= 15
    assert batch["label"].tolist() == [i % 4 for i in found]
    assert all(
        text in captions_of(i) for i, text in zip(found, data.caption_texts(batch["caption"].numpy()), strict=True)
    )
    assert data.references("val") == tuple(tuple(captions_of(i)) for i in held_out)
    assert data.spec.condition["label"].size == 4
    assert data.spec.condition["caption"].length == 2
    assert not list((tmp_path / "cache").rglob("*.png"))
    # the whole training split, where a metric asks for it, has the same images
    assert numbers(data.table("train").images) == found
    assert data.references("train") == tuple(tuple(captions_of(i)) for i in found)
    assert made(shards, limit=5).spec.shape == (3, 8, 8)
    assert len(made(shards, limit=5).dataset("train")) == 5


def test_a_batch_is_a_function_of_its_keys(shards: Path) -> None:
    data = made(shards, flip=True)
    dataset = data.dataset("train")
    keys = [(3, i) for i in (7, 2, 11, 5)]
    once, again = dataset[keys], pickle.loads(pickle.dumps(made(shards, flip=True).dataset("train")))[keys]
    assert same(once, again)
    for row, key in enumerate(keys):  # whatever stands beside it in the batch
        alone = dataset[[key]]
        assert all(torch.equal(alone[name][0], once[name][row]) for name in once)
    drawn = [dataset[[(epoch, i) for i in range(len(dataset))]] for epoch in range(6)]
    assert any(not torch.equal(drawn[0]["caption"], other["caption"]) for other in drawn)
    assert any(not torch.equal(drawn[0]["image"], other["image"]) for other in drawn)


def test_the_split_stays_when_shards_are_added(shards: Path) -> None:
    before = set(numbers(made(shards).table("val").images))
    (shards / "1.tar").rename(shards.parent / "1.tar")
    fewer = {*numbers(made(shards).table("val").images)}
    assert fewer == before - set(range(10, 20))
    assert made(shards).fingerprint != made(shards, val_fraction=0.5).fingerprint


def test_an_index_is_made_once_until_the_shard_changes(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    index_of = tar_index.index_of
    monkeypatch.setattr(tar_index, "index_of", lambda path, shown: seen.append(shown) or index_of(path, shown))
    made(shards).samples("train")
    made(shards).samples("val")
    assert sorted(seen) == ["0.tar", "1.tar", "2.tar"]
    os.utime(shards / "1.tar", ns=(1, 1))
    made(shards).samples("train")
    assert len(seen) == 4


def test_captions_that_were_not_read_may_be_longer(shards: Path) -> None:
    data = made(shards, learn_from=2, caption_length=9)
    assert data.spec.condition["caption"].length == 9
    assert data.title("train") == "2 of the training images"
    with pytest.raises(ConfigError, match="learn_from must"):
        made(shards, learn_from=0)


HOSTILE = {
    "link": "is a link, a device or a file with holes",
    "device": "is a link, a device or a file with holes",
    "outside": "leads out of its folder",
    "absolute": "leads out of its folder",
    "twice": "is in it twice",
    "truncated": "is (damaged|truncated)",
    "without an end": "is truncated: it has no end",
    "compressed": "is damaged. Make it again, as an uncompressed .tar",
    "no tar": "is damaged",
    "huge": "is (damaged|refused)",
    "huge text": "has 1,048,577 bytes, at most 1,048,576 are read",
    "empty picture": "has 0 bytes",
    "no caption": r"1 of the 1 samples in the shard \S+ have no caption: b\. Put a \.txt",
    "class": "is not a class from 0 to",
    "some classes": r"1 of the 2 samples in the shard \S+ have no label: c\. Put a \.cls",
}


def hostile(kind: str, path: Path) -> None:
    good = {"a.png": png(0), "a.txt": b"x"}
    member = tarfile.TarInfo("b.png")
    if kind in ("link", "device"):
        member.type, member.linkname = (tarfile.SYMTYPE, "/etc/passwd") if kind == "link" else (tarfile.CHRTYPE, "")
        with tarfile.open(path, "w") as archive:
            archive.addfile(member)
    elif kind in ("outside", "absolute"):
        pack(path, {**good, "../b.png" if kind == "outside" else "/b.png": png(1)})
    elif kind == "twice":
        with tarfile.open(path, "w") as archive:
            for _ in range(2):
                archive.addfile(tarfile.TarInfo("b.x"))
    elif kind in ("truncated", "without an end"):
        content = pack(path, good).read_bytes()
        path.write_bytes(content[:700] if kind == "truncated" else content.rstrip(b"\0") + bytes(511))
    elif kind == "compressed":
        with tarfile.open(path, "w:gz") as archive:
            archive.addfile(tarfile.TarInfo("b.txt"))
    elif kind == "no tar":
        path.write_bytes(b"\x93NUMPY" * 300)
    elif kind == "huge":
        member.size = 1 << 50
        path.write_bytes(member.tobuf() + bytes(2048))
    else:
        other = {
            "huge text": {"b.png": png(1), "b.txt": b"x" * ((1 << 20) + 1)},
            "empty picture": {"b.png": b"", "b.txt": b"x"},
            "no caption": {"b.png": png(1)},
            "class": {"b.png": png(1), "b.txt": b"x", "b.cls": b"1" * 100},
            "some classes": {"b.png": png(1), "b.txt": b"x", "b.cls": b"1", "c.png": png(1), "c.txt": b"x"},
        }
        pack(path, other[kind])


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_shards_are_one_line(kind: str, shards: Path) -> None:
    hostile(kind, shards / "1.tar")
    with pytest.raises(DataError, match=HOSTILE[kind]) as caught:
        made(shards).samples("train")
    assert "1.tar" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("members", "said"), [
    ({"b.png": b"no picture", "b.txt": b"x"}, r"cannot read b\.png in \S+1\.tar \(not a known image format"),
    ({"b.png": png(1), "b.txt": b"\xff"}, r"b\.txt in \S+1\.tar is not UTF-8"),
    ({"b.png": png(1), "b.txt": b" \n"}, r"b\.txt in \S+1\.tar has no caption"),
    ({"b.png": png(1), "b.json": b"{"}, r"b\.json in \S+1\.tar is not JSON"),
    ({"b.png": png(1), "b.json": b'{"caption": "x"}'}, r"has no text \(it has: caption\)\. Set data\.text_column\."),
    ({"b.png": png(1), "b.json": b'{"text": 1}'}, "must be a text or a list of texts"),
])  # fmt: skip
def test_damaged_members_name_their_shard(members: dict[str, bytes], said: str, shards: Path) -> None:
    pack(shards / "1.tar", {**members, "b.cls": b"1"})
    data = made(shards)

    def read_all() -> None:
        for split in data.splits:
            data.samples(split).every_text("reading")
            data.table(split)

    with pytest.raises(DataError, match=said) as caught:
        read_all()
    assert "\n" not in str(caught.value)


def test_what_is_no_folder_of_shards_is_refused(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"nowhere is not a folder\. Set data\.root, or data\.val_root, to a folder of \.tar shards"
    ):
        made(tmp_path / "nowhere").samples("train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no \.tar shards found"):
        made(tmp_path / "empty").samples("train")
    pack(shards / "1.tar", sample(10, label=False))
    with pytest.raises(DataError, match=r"1\.tar has no \.cls members, and other shards have"):
        made(shards, val_root=str(shards)).spec  # noqa: B018
    os.mkfifo(shards / "4.tar")
    with pytest.raises(DataError, match=r"4\.tar is a FIFO, not a tar file"):
        made(shards).samples("train")


def test_an_error_of_a_worker_is_one_line() -> None:
    traceback = "Original Traceback (most recent call last):\n  x\ngenlab.errors.DataError: a.png is damaged.\n"
    text = f"Caught DataError in DataLoader worker process 0.\n{traceback}"
    assert str(plain_error(DataError(text))) == "a.png is damaged."
    error = DataError("b")
    assert plain_error(error) is error


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.matrix)])
def test_a_run_is_continued_to_the_bit(workers: int, shards: Path, tmp_path: Path) -> None:
    typed = ("data=webdataset", f"data.root={shards}", "data/tokenizer=words", *MLP, "data.image_size=8",
             "data.val_fraction=0.2", "data.batch_size=4", "data.limit=null", "budget.value=20", "data.flip=true",
             "model.conditions=[label,caption]", f"data.num_workers={workers}")  # fmt: skip
    whole = train(*typed, outputs=tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(*typed, SignalAt.override(8), outputs=tmp_path / "stopped")
    run = only_run(tmp_path / "stopped")
    resume(run)
    assert same(read.newest(run).state, read.newest(whole).state)

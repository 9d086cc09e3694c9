"""A folder of images with captions: files and tables, several captions, missing ones, and hostile files."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genlab.checkpoint import read
from genlab.cli import main
from genlab.command.train import Interrupted
from genlab.data.captioned_folder import CaptionedFolder
from genlab.data.tokenizer.words import Words
from genlab.errors import ConfigError, DataError
from tiny_run import MLP, SignalAt, only_run, resume, same, train

WORDS = ("cat", "dog", "eel", "fox")
REFUSED = {
    "a cet": "unknown word 'cet'. Did you mean 'cat'?",
    "a a a": "it has 3 words, and captions of these data have at most 2",
}


def pictures(folder: Path, count: int = 20) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
    return folder


def captions_of(i: int) -> list[str]:
    return [f"a {WORDS[i % 4]}"] + ["Two  animals."] * (i % 2)


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    folder = pictures(tmp_path / "p")
    for i in range(20):
        (folder / f"{i:02}.txt").write_text("\n\n".join(captions_of(i)) + "\n")
    return folder


def data(root: Path, **options: Any) -> CaptionedFolder:
    options = {"image_size": 8, "val_fraction": 0.2, "batch_size": 4, "cache_dir": str(root.parent / "cache")} | options
    return CaptionedFolder(Words(), str(root), **options)


def told(root: Path, **options: Any) -> dict[bytes, tuple[str, ...]]:
    """The captions of each picture, by its pixels."""
    made = data(root, **options)
    return {
        image.tobytes(): texts
        for split in made.splits
        for image, texts in zip(made.table(split).images, made.references(split), strict=True)
    }


def expected() -> dict[bytes, tuple[str, ...]]:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8).transpose(0, 3, 1, 2)
    return {image.tobytes(): tuple(" ".join(c.split()) for c in captions_of(i)) for i, image in enumerate(pixels)}


def test_captions_stand_beside_images_or_in_tables(beside: Path, tmp_path: Path) -> None:
    assert told(beside) == expected()
    assert told(beside) == expected()  # from the cache
    for name, where in (("jsonl", "lists"), ("jsonl", "rows"), ("csv", "")):
        folder = pictures(tmp_path / f"{name}{where}" / "sub").parent
        (folder / "sub" / "00.txt").write_text("of no interest")
        if name == "csv":
            lines = ["file_name,caption", *(f'sub/{i:02}.png,"{c}"' for i in range(20) for c in captions_of(i))]
        elif where == "lists":
            lines = [json.dumps({"file_name": f"./sub/{i:02}.png", "caption": captions_of(i)}) for i in range(20)]
        else:
            rows = [(i, c) for i in range(20) for c in captions_of(i)]
            lines = [json.dumps({"file_name": f"sub/{i:02}.png", "caption": c}) for i, c in rows]
        (folder / f"metadata.{name}").write_text("\n".join([*lines, ""]))
        assert told(folder, text_column="caption") == expected()


def test_batches_hold_one_caption_and_the_spec_says_what_is_in_them(beside: Path) -> None:
    made = data(beside)
    caption = made.spec.condition["caption"]
    assert set(caption.names[1:]) == {"a", "two", "animals", *WORDS}
    assert (caption.size, caption.length, caption.tokenized, caption.names[0]) == (8, 2, True, "<nothing>")
    assert {*caption.examples} <= {f"a {word}" for word in WORDS}
    count = len(made.table("train"))
    batches = [made.dataset("train")[[(epoch, i) for i in range(count)]]["caption"].numpy() for epoch in range(6)]
    for i, texts in enumerate(made.references("train")):
        drawn = {made.caption_texts(batch[i : i + 1])[0] for batch in batches}
        assert drawn == {text.lower().strip(".") for text in texts}  # 6 draws: all of them, with this seed
    assert made.table("val").captions is not None
    held_out = made.dataset("val")[[(0, 0)]]["caption"].numpy()
    assert made.caption_texts(held_out) == [made.references("val")[0][0]]
    assert len(data(beside, limit=3).references("train")) == 3
    assert data(beside, limit=3).spec.condition["caption"].size == 8  # a limit changes no vocabulary
    assert data(beside).fingerprint != data(beside, limit=3).fingerprint
    before = data(beside).fingerprint
    (beside / "03.txt").write_text("a cat on a dog")
    assert {part for part, value in data(beside).fingerprint.items() if value != before[part]} <= {"captions"}


def test_missing_captions_are_named(beside: Path) -> None:
    (beside / "03.txt").unlink()
    (beside / "05.txt").write_text(" \n")
    with pytest.raises(
        DataError, match=r"2 of the 20 images in \S+ have no caption: 03\.png, 05\.png\. Write them into"
    ):
        data(beside).spec  # noqa: B018
    (beside / "metadata.jsonl").write_text('{"file_name": "00.png", "text": "x"}\n')
    with pytest.raises(
        DataError, match=r"19 of the 20 .*: 01\.png, .*, \.\.\.\. Add rows to metadata\.jsonl, remove .*image_folder"
    ):
        data(beside).spec  # noqa: B018


def test_long_captions_are_cut_and_said_once(beside: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        made = data(beside, caption_length=1)
        assert made.spec.condition["caption"].length == 1
        made.spec, made.table("val")
    assert (
        sum(
            "longer than 1 tokens, and cut. The longest has 2: set data.caption_length=2" in r.message
            for r in caplog.records
        )
        == 2
    )
    caplog.clear()
    data(beside, caption_length=2).spec  # noqa: B018
    assert not caplog.records
    with pytest.raises(ConfigError, match="caption_length must be"):
        data(beside, caption_length=0)


@pytest.mark.parametrize(("name", "content", "said"), [
    ("metadata.jsonl", b"{", "is not JSONL in UTF-8"),
    ("metadata.jsonl", b"[" * 100_000, "is not JSONL in UTF-8"),
    ("metadata.jsonl", b"[]", "line 1 is not a JSON object"),
    ("metadata.jsonl", b'{"file_name": "a"}', "line 1: there is no text .*data.text_column"),
    ("metadata.jsonl", b'{"file_name": ["a"], "text": "b"}', "must be a text"),
    ("metadata.jsonl", b'{"file_name": "a", "text": {}}', "must be a text"),
    ("metadata.csv", b"name,text\na,b\n", "line 2: there is no file_name"),
    ("metadata.csv", b"\xff\xfe", "is not CSV in UTF-8"),
    ("metadata.csv", b"file_name,text\n" + b"x" * 200_000, "is not CSV in UTF-8"),
    ("00.txt", b"\xff", "is not UTF-8: byte 0xFF"),
    ("00.txt", b"x" * (1 << 20) + b"x", "has 1,048,577 bytes"),
])  # fmt: skip
def test_damaged_files_are_one_line(name: str, content: bytes, said: str, beside: Path) -> None:
    (beside / name).write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        data(beside).spec  # noqa: B018
    assert "\n" not in str(caught.value)


def test_names_in_tables_are_never_opened(beside: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"file_name": f"{i:02}.png", "text": captions_of(i)} for i in range(20)]
    rows += [{"file_name": name, "text": "x"} for name in ("../../etc/passwd", "/etc/passwd", "")]
    (beside / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert told(beside) == expected()
    assert "3 rows of metadata.jsonl are of files that are no images" in caplog.text
    (beside / "metadata.jsonl").unlink()
    (beside / "00.txt").unlink()
    os.mkfifo(beside / "00.txt")
    with pytest.raises(DataError, match=r"00\.txt is a FIFO"):
        data(beside).spec  # noqa: B018


def options(beside: Path, *more: str) -> tuple[str, ...]:
    return ("data=captioned_folder", f"data.root={beside}", f"data.cache_dir={beside.parent / 'cache'}", *MLP,
            "data.image_size=8", "data.val_fraction=0.2", "data.batch_size=4", "data.limit=null", "budget.value=20",
            "model.conditions=[caption]", "task=text_to_image", *more)  # fmt: skip


@pytest.mark.parametrize("tokenizer", ["words", pytest.param("bytes", marks=pytest.mark.matrix)])
def test_a_run_trains_resumes_to_the_bit_and_samples_without_its_data(
    tokenizer: str, beside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = options(beside, f"data/tokenizer={tokenizer}")
    whole = train(*typed, outputs=tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(*typed, SignalAt.override(8), outputs=tmp_path / "stopped")
    run = only_run(tmp_path / "stopped")
    resume(run)
    assert same(read.newest(run).state, read.newest(whole).state)
    beside.rename(tmp_path / "gone")
    monkeypatch.chdir(tmp_path)
    main(["sample", f"run={run}", "n=2", "prompt=a  cat", "out=a.png"])
    assert (tmp_path / "captions-a.txt").read_text() == "a cat\na cat\n"
    main(["sample", f"run={run}", "n=2", "out=b.png"])
    assert {*(tmp_path / "captions-b.txt").read_text().splitlines()} <= {f"a {word}" for word in WORDS}
    if tokenizer == "words":
        capsys.readouterr()
        for prompt, said in REFUSED.items():
            with pytest.raises(SystemExit) as end:
                main(["sample", f"run={run}", f"prompt={prompt}"])
            assert end.value.code == 2
            assert f"prompt={prompt}: {said}" in capsys.readouterr().err

"""Emoji: a layout like npm's, made here; names, variants on one side of the split, checksums and what is missing."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genlab.data import emoji_files
from genlab.data.emoji import Emoji, code_of, concept_of
from genlab.data.tokenizer.words import Words
from genlab.errors import ConfigError, DataError

PLAIN = {f"1F4{i:02X}": f"thing {i}" for i in range(30)}
RUNNING = {"1F3C3": "person running", "1F3C3-200D-2640-FE0F": "woman running", "1F3C3-200D-2642-FE0F": "man running"}


def publish(root: Path, patch: pytest.MonkeyPatch) -> Path:
    """Both packages as npm installs them, and their checksums."""
    pictures, names = (root / "node_modules" / name for name, _ in (emoji_files.PICTURES, emoji_files.NAMES))
    (pictures / "img" / "google" / "64").mkdir(parents=True)
    (names / "en").mkdir(parents=True)
    for folder, (name, version) in ((pictures, emoji_files.PICTURES), (names, emoji_files.NAMES)):
        (folder / "package.json").write_text(json.dumps({"name": name, "version": version}))
    entries, named, contents = [], [], []
    for code, name in (PLAIN | RUNNING).items():
        entry: dict[str, Any] = {"unified": code, "image": f"{code.lower()}.png"}
        label = {"hexcode": code.replace("-FE0F", ""), "label": name, "tags": ["x", "y"]}
        if code in RUNNING:
            toned = code.replace("1F3C3", "1F3C3-1F3FB")
            entry["skin_variations"] = {"1F3FB": {"unified": toned, "image": f"{toned.lower()}.png"}}
            label["skins"] = [{"hexcode": toned, "label": f"{name}: light skin tone"}]
        entries.append(entry)
        named.append(label)
        for one in (entry, *entry.get("skin_variations", {}).values()):
            path = pictures / "img" / "google" / "64" / one["image"]
            pixels = np.full((64, 64, 4), len(contents), dtype=np.uint8)
            pixels[..., 3] = [0] * 32 + [255] * 32  # the left half is transparent
            Image.fromarray(pixels).save(path)
            contents.append(path.read_bytes())
    (pictures / "emoji.json").write_text(json.dumps(entries))
    (names / "en" / "data.json").write_text(json.dumps(named))
    for name, content in (
        ("emoji.json", (pictures / "emoji.json").read_bytes()),
        ("en/data.json", (names / "en" / "data.json").read_bytes()),
        ("pictures", b"".join(contents)),
    ):
        patch.setitem(emoji_files.SHA256, name, hashlib.sha256(content).hexdigest())
    return root


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "cache"))
    return publish(tmp_path / "emoji", monkeypatch)


def test_pictures_on_white_with_their_names(root: Path) -> None:
    data = Emoji(Words(), str(root), val_fraction=0.2, tags=True)
    assert data.spec.shape == (3, 32, 32)
    seen = {}
    for split in data.splits:
        for image, texts in zip(data.table(split).images, data.references(split), strict=True):
            assert (image[:, :, :12] == 255).all()
            assert image[0, 0, -1] == image[2, 31, -1]
            seen[int(image[0, 0, -1])] = texts
    assert seen[3] == ("thing 3", "x y")
    assert [seen[i][0] for i in range(30, 36)] == [
        name for one in RUNNING.values() for name in (one, f"{one}: light skin tone")
    ]
    assert len(seen) == 36
    assert Emoji(Words(), str(root), image_size=64).table("val").images.shape[1:] == (3, 64, 64)


@pytest.mark.parametrize("val_fraction", [0.05, 0.3, 0.6])
def test_variants_of_a_concept_are_on_one_side(val_fraction: float, root: Path) -> None:
    data = Emoji(Words(), str(root), val_fraction=val_fraction)
    sides = {split: {text for (text, *_) in data.texts(split)} for split in data.splits}
    assert len(sides["train"] | sides["val"]) == 36
    assert sum(any("running" in text for text in texts) for texts in sides.values()) == 1


@pytest.mark.parametrize("codes", [
    ("1F468", "1F469", "1F9D1"),  # man, woman, person
    ("1F468-200D-1F680", "1F469-200D-1F680", "1F9D1-200D-1F680"),  # astronauts
    ("1F6B6", "1F6B6-200D-2640-FE0F-200D-27A1-FE0F", "1F6B6-200D-2642-FE0F", "1F6B6-200D-27A1-FE0F"),  # walking
    ("1F46B", "1F46D", "1F9D1-200D-1F91D-200D-1F9D1"),  # holding hands
    ("1F48F", "1F468-200D-2764-FE0F-200D-1F48B-200D-1F468", "1F469-200D-2764-FE0F-200D-1F48B-200D-1F468"),  # kiss
    ("1F468-200D-1F469-200D-1F466", "1F469-200D-1F469-200D-1F467", "1F9D1-200D-1F9D1-200D-1F9D2"),  # family
    ("1F385", "1F936", "1F9D1-200D-1F384"), ("1F474", "1F475", "1F9D3"), ("1F57A", "1F483"),
])  # fmt: skip
def test_genders_and_directions_are_one_concept(codes: tuple[str, ...]) -> None:
    assert len({concept_of(code) for code in codes}) == 1


def test_other_emoji_are_other_concepts() -> None:
    codes = (
        "2640-FE0F",
        "2642-FE0F",
        "27A1-FE0F",
        "1F468",
        "1F468-200D-1F9B0",
        "1F474",
        "1F466",
        "1F1E9-1F1EA",
        "1F600",
    )
    assert len({concept_of(code) for code in codes}) == len(codes)
    assert code_of("0023-fe0f-20e3") == "0023-20E3"


COMMAND = r"npm install --ignore-scripts --prefix \S+/ emoji-datasource-google@16\.0\.0 emojibase-data@17\.0\.0$"


def test_what_is_missing_or_not_as_published_says_how_to_fetch_it(root: Path, tmp_path: Path) -> None:
    data = Emoji(Words(), str(root))
    folder = root / "node_modules" / "emoji-datasource-google"
    with pytest.raises(DataError, match=rf"emojibase-data 17\.0\.0 of npm, and it is not in \S+nowhere\. .*{COMMAND}"):
        Emoji(Words(), str(tmp_path / "nowhere")).spec  # noqa: B018
    (folder / "img" / "google" / "64" / "1f403.png").write_bytes(b"other")
    with pytest.raises(DataError, match=rf"64 is not as published: its SHA-256 is .*{COMMAND}"):
        data.table("train")
    (folder / "img" / "google" / "64" / "1f403.png").unlink()
    with pytest.raises(DataError, match=rf"cannot read \S+1f403\.png \(no such file.*{COMMAND}"):
        data.table("train")
    assert not list((tmp_path / "cache").glob("emoji-*.npy"))
    (folder / "emoji.json").write_text("[]")
    with pytest.raises(DataError, match=rf"emoji\.json is not as published.*{COMMAND}"):
        Emoji(Words(), str(root)).table("train")
    (folder / "package.json").write_text('{"name": "emoji-datasource-google", "version": "15.1.0"}')
    with pytest.raises(DataError, match=rf"google has version '15\.1\.0' of it\. Fetch it: {COMMAND}"):
        Emoji(Words(), str(root)).table("train")
    with pytest.raises(ConfigError, match=r"language=eng: .* Did you mean 'en'\? Use one of bn, .* zh\."):
        Emoji(Words(), language="eng")


def test_unpacked_archives_may_lie_in_folders_of_their_own(root: Path, tmp_path: Path) -> None:
    for name, version in (emoji_files.PICTURES, emoji_files.NAMES):
        target = tmp_path / "other" / f"{name}-{version}"
        target.mkdir(parents=True)
        (root / "node_modules" / name).rename(target / "package")
    first = Emoji(Words(), str(tmp_path / "other"))
    assert len(first.table("train")) > 20
    pictures, names = (tmp_path / "other" / f"{name}-{v}" for name, v in (emoji_files.PICTURES, emoji_files.NAMES))
    second = Emoji(Words(), str(pictures), names_root=str(names / "package"))
    assert second.fingerprint == first.fingerprint

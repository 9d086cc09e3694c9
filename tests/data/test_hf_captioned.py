"""Captioned data sets in the formats of Hugging Face: from parquet and folders, once, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genlab.data import hub
from genlab.data.hf_captioned import HFCaptioned
from genlab.data.tokenizer.words import Words
from genlab.errors import ConfigError, DataError

COUNT = 30


def picture(number: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8))


def captions_of(number: int) -> list[str]:
    return [f"a thing {number % 3}", *["Another  text."] * (number % 2)]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def datasets():  # type: ignore[no-untyped-def]
    module = pytest.importorskip("datasets", reason="needs the extra hf: pip install 'genlab[hf]'")
    module.disable_progress_bars()
    return module


@pytest.fixture
def parquet(datasets, tmp_path: Path) -> Path:  # type: ignore[no-untyped-def]
    """Columns image, text (a list), caption (a text), number, and one whose row 3 has nothing."""
    folder = tmp_path / "set"
    folder.mkdir()
    kinds = {
        "image": datasets.Image(),
        "text": datasets.Sequence(datasets.Value("string")),
        "caption": datasets.Value("string"),
        "number": datasets.Value("int32"),
        "lacking": datasets.Value("string"),
    }
    for split, numbers in (("train", range(COUNT)), ("test", range(COUNT, COUNT + 4))):
        rows = {
            "image": [picture(i) for i in numbers],
            "text": [captions_of(i) for i in numbers],
            "caption": [captions_of(i)[0] for i in numbers],
            "number": [*numbers],
            "lacking": ["x" if i != 3 else " " for i in numbers],
        }
        table = datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))
        table.to_parquet(folder / f"{split}-0.parquet")
    return folder


def made(folder: object, **options: object) -> HFCaptioned:
    return HFCaptioned(Words(), str(folder), image_size=8, **options)  # type: ignore[arg-type]


def told(data: HFCaptioned) -> dict[bytes, tuple[str, ...]]:
    return {
        image.tobytes(): texts
        for split in data.splits
        for image, texts in zip(data.table(split).images, data.references(split), strict=True)
    }


def expected(count: int) -> dict[bytes, tuple[str, ...]]:
    return {
        np.asarray(picture(i)).transpose(2, 0, 1).tobytes(): tuple(" ".join(t.split()) for t in captions_of(i))
        for i in range(count)
    }


def test_rows_have_their_captions(parquet: Path) -> None:
    data = made(parquet, val_split="test")
    assert told(data) == expected(COUNT + 4)
    assert len(data.table("val")) == 4
    assert told(made(parquet, val_fraction=0.3)) == expected(COUNT)
    single = made(parquet, text_column="caption")
    assert told(single) == {image: texts[:1] for image, texts in expected(COUNT).items()}
    caption = data.spec.condition["caption"]
    assert (caption.length, caption.size) == (3, 1 + len({"a", "thing", "0", "1", "2", "another", "text"}))


def test_it_is_streamed_once(parquet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    open_stream = hub.open_stream
    monkeypatch.setattr(hub, "open_stream", lambda name, *rest: opened.append(name) or open_stream(name, *rest))
    for count in (1, 1):
        assert told(made(parquet)) == expected(COUNT)
        assert len(opened) == count
    for path in (tmp_path / "cache").glob("*-captions.npy"):
        path.unlink()
    assert told(made(parquet)) == expected(COUNT)
    assert len(opened) == 2


def test_a_folder_of_images_with_a_table(datasets, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "pictures" / "train"
    folder.mkdir(parents=True)
    rows = []
    for i in range(6):
        picture(i).save(folder / f"{i}.png")
        rows.append(json.dumps({"file_name": f"{i}.png", "text": captions_of(i)}))
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    assert told(made(tmp_path / "pictures")) == expected(6)


@pytest.mark.parametrize(("options", "said"), [
    ({"text_column": "nowhere"}, r"has no column nowhere \(it has: image, .*\)\. Set data\.text_column\."),
    ({"image_column": "caption"}, "the column caption of the data set .* does not hold images"),
    ({"text_column": "number"}, "row 0 of .* has neither a text nor a list of texts in number. Name the column"),
    ({"text_column": "lacking"}, r"row 3 of .* has no caption in lacking\. .*data=hf_images"),
    ({"split": "other"}, "cannot load the data set"),
])  # fmt: skip
def test_what_is_not_there_is_refused(options: dict[str, str], said: str, parquet: Path) -> None:
    with pytest.raises(DataError, match=said) as caught:
        made(parquet, **options).spec  # noqa: B018
    assert "\n" not in str(caught.value)


def test_offline_is_one_line(datasets) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(
        DataError, match=r"owner/nowhere is not here .*HF_HUB_OFFLINE is set.*Set data\.name to a folder"
    ):
        made("owner/nowhere").spec  # noqa: B018


@pytest.mark.parametrize("options", [{"val_fraction": 1.0}, {"caption_length": 0}])
def test_values_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"data.{next(iter(options))} must"):
        made("x", **options)
    with pytest.raises(ConfigError, match="image_size must"):
        HFCaptioned(Words(), "x", image_size=0)

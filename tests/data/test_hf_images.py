"""Data sets in the formats of Hugging Face: from parquet and from folders, cached, offline, and what is refused."""

import logging
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from genlab.data import hub
from genlab.data.decode import decode
from genlab.data.hf_images import HFImages
from genlab.errors import ConfigError, DataError

COUNT = 40
NAMES = ["cat", "dog", "eel"]


def picture(number: int) -> Image.Image:
    """10 x 8, of random pixels."""
    pixels = np.random.default_rng(number).integers(0, 256, (10, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    module = pytest.importorskip("datasets", reason="needs the extra hf: pip install 'genlab[hf]'")
    module.disable_progress_bars()
    return module


@pytest.fixture
def parquet(datasets, tmp_path: Path) -> Path:  # type: ignore[no-untyped-def]
    """train: 0..39 with the classes 0, 1, 2 in turn; test: 40..44, of class 1."""
    folder = tmp_path / "set"
    folder.mkdir()
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=NAMES),
            "number": datasets.Value("int32"),
            "text": datasets.Value("string"),
        }
    )
    for split, numbers in (("train", range(COUNT)), ("test", range(COUNT, COUNT + 5))):
        rows = {
            "image": [picture(i) for i in numbers],
            "label": [i % 3 if split == "train" else 1 for i in numbers],
            "number": [i % 2 for i in numbers],
            "text": ["" for _ in numbers],
        }
        datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / f"{split}-0.parquet")
    return folder


def expected(numbers: range | list[int], folder: Path, size: int = 8, channels: int = 3) -> np.ndarray:
    """Decoded from files of their own."""
    rows = []
    for number in numbers:
        picture(number).save(folder / "one.png")
        rows.append(decode(folder / "one.png", size, channels))  # type: ignore[arg-type]
    return np.stack(rows)


def refusal(kind: type[Exception] = DataError, part: str = "train", **options: object) -> str:
    with pytest.raises(kind) as caught:
        HFImages(**options).table(part)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("channels", [1, 3])
def test_rows_are_decoded_in_order_with_their_labels(parquet: Path, tmp_path: Path, channels: int) -> None:
    data = HFImages(str(parquet), val_split="test", label_column="label", image_size=8, channels=channels)  # type: ignore
    for split, numbers in (("train", range(COUNT)), ("val", range(COUNT, COUNT + 5))):
        table = data.table(split)  # type: ignore[arg-type]
        assert np.array_equal(table.images, expected(numbers, tmp_path, channels=channels))
        assert table.labels is not None
        assert table.labels.tolist() == [i % 3 if split == "train" else 1 for i in numbers]
        assert table.names == tuple(NAMES)
    assert data.spec.shape == (channels, 8, 8)


def test_sizes_and_no_labels(parquet: Path, tmp_path: Path) -> None:
    table = HFImages(str(parquet), val_split="test", image_size=5).table("val")
    assert np.array_equal(table.images, expected(range(COUNT, COUNT + 5), tmp_path, size=5))
    assert table.labels is None
    assert table.names == ()


def test_a_part_is_held_out_with_its_labels(parquet: Path, tmp_path: Path) -> None:
    data = HFImages(str(parquet), val_fraction=0.3, label_column="label", image_size=8)
    label_of = {image.tobytes(): i % 3 for i, image in enumerate(expected(range(COUNT), tmp_path))}
    parts = [data.table("train"), data.table("val")]
    assert sum(map(len, parts)) == len(label_of) == COUNT
    assert 4 <= len(parts[1]) <= 20
    for part in parts:
        assert part.labels is not None
        assert [label_of[image.tobytes()] for image in part.images] == part.labels.tolist()


def test_whole_numbers_are_labels_too(parquet: Path) -> None:
    table = HFImages(str(parquet), val_split="test", label_column="number", image_size=4).table("train")
    assert table.names == ("0", "1")
    assert table.labels is not None
    assert table.labels.tolist() == [0, 1] * (COUNT // 2)


def test_images_stay_mapped(parquet: Path) -> None:
    base: np.ndarray | None = HFImages(str(parquet), label_column="label", image_size=8).table("train").images
    while base is not None and not isinstance(base, np.memmap):
        base = base.base  # type: ignore[assignment]
    assert base is not None


@pytest.mark.parametrize("kind", ["classes", "archive"])
def test_files_of_their_own(datasets, tmp_path: Path, kind: str) -> None:  # type: ignore[no-untyped-def]
    root = tmp_path / "pictures"
    for number in range(6):
        path = root / "train" / (NAMES[number % 2] if kind == "classes" else "") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(path)
    if kind == "archive":
        shutil.make_archive(str(tmp_path / "zipped/train"), "zip", root / "train")
        root = tmp_path / "zipped"
    data = HFImages(str(root), label_column="label" if kind == "classes" else None, image_size=8)
    tables = [data.table("train"), data.table("val")]
    found = np.concatenate([table.images for table in tables])
    whole = {image.tobytes(): number % 2 for number, image in enumerate(expected(range(6), tmp_path))}
    assert {image.tobytes() for image in found} == set(whole)
    if kind == "classes":
        labels = np.concatenate([table.labels for table in tables])  # type: ignore[misc]
        assert [whole[image.tobytes()] for image in found] == labels.tolist()
        assert data.spec.condition["label"].names == ("cat", "dog")


def test_it_is_streamed_once_until_something_changes(parquet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    open_stream = hub.open_stream
    monkeypatch.setattr(hub, "open_stream", lambda name, *rest: opened.append(name) or open_stream(name, *rest))

    def load(**options: object) -> int:
        opened.clear()
        data = HFImages(str(parquet), image_size=4, label_column="label", **options)  # type: ignore[arg-type]
        data.table("train"), data.table("val")
        return len(opened)

    assert load() == 2  # for the rows and for the names of the classes
    assert load() == 0
    assert load(val_fraction=0.5) == 0  # cut from what is there
    assert load(channels=1) == 1
    (parquet / "more-train.parquet").write_bytes((parquet / "train-0.parquet").read_bytes())
    assert load() == 2


# --- the Hub ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub_at(datasets, parquet: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:  # type: ignore[no-untyped-def]
    """A Hub in place of the real one: a commit, or an error to raise; its data are those of the fixture."""
    import huggingface_hub

    state = SimpleNamespace(answer="a" * 40, loaded=[])

    def dataset_info(self: object, name: str, revision: str | None, timeout: float) -> SimpleNamespace:
        if isinstance(state.answer, Exception):
            raise state.answer
        return SimpleNamespace(sha=state.answer)

    def load_dataset(path: str, config: object, *, revision: str, **options: object) -> object:
        state.loaded.append((path, revision))
        return real(str(parquet), config, **options)

    real = datasets.load_dataset
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return state


def test_the_cache_follows_the_commit_and_serves_without_a_network(
    hub_at: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    def load() -> int:
        hub_at.loaded.clear()
        return len(HFImages("owner/set", label_column="label", image_size=4).table("train"))

    count = load()
    assert hub_at.loaded == [("owner/set", "a" * 40)] * 2
    assert load() == count
    assert hub_at.loaded == []
    hub_at.answer = "b" * 40
    load()
    assert hub_at.loaded == [("owner/set", "b" * 40)] * 2
    assert caplog.messages == []
    hub_at.answer = OSError("unplugged")
    with caplog.at_level(logging.WARNING):
        assert load() == count
    assert hub_at.loaded == []
    assert caplog.messages == [
        "the Hugging Face Hub cannot be reached (no network); using owner/set as of commit bbbbbbbbbbbb."
    ]


# --- what is refused --------------------------------------------------------------------------------------------------


def test_splits_and_columns_that_are_not_there(parquet: Path) -> None:
    assert refusal(name=str(parquet), split="valid").startswith(f"cannot load the data set {parquet}: Bad split: valid")
    assert refusal(name=str(parquet), config="x").startswith(f"cannot load the data set {parquet}: BuilderConfig 'x'")
    has = "(it has: image, label, number, text)"
    assert refusal(name=str(parquet), image_column="img") == (
        f"the data set {parquet} has no column img {has}. Set data.image_column."
    )
    assert refusal(name=str(parquet), label_column="fine") == (
        f"the data set {parquet} has no column fine {has}. Set data.label_column."
    )
    assert refusal(name=str(parquet), image_column="text") == (
        f"the column text of the data set {parquet} does not hold images."
    )
    assert refusal(name=str(parquet), label_column="text") == (
        f"the column text of the data set {parquet} does not hold numbered classes."
    )


def test_rows_that_make_no_sense(datasets, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    whole = tmp_path / "one.png"
    picture(0).save(whole)

    def saved(name: str, images: list[object], labels: list[int | None]) -> str:
        features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
        (tmp_path / name).mkdir()
        rows = datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)
        rows.to_parquet(tmp_path / name / "train-0.parquet")
        return str(tmp_path / name)

    good = {"bytes": whole.read_bytes(), "path": None}
    cut = {"bytes": whole.read_bytes()[:100], "path": None}
    name = saved("cut", [good, cut], [0, 1])
    assert refusal(name=name) == (
        f"cannot read row 1 of {name} (truncated PNG, 100 bytes). "
        "Remove it from the data set; PNG, JPEG, WebP, GIF, BMP, TIFF and PPM can be read."
    )
    name = saved("none", [good, None], [0, 1])
    assert refusal(name=name) == f"row 1 of {name} has no image."
    for title, label in (("unlabelled", None), ("negative", -1)):
        name = saved(title, [good, good], [0, label])
        assert refusal(name=name, label_column="label") == (
            f"row 1 of {name} has no label (it is {label}). Choose another split, or data.label_column=null."
        )
        assert len(HFImages(name, val_fraction=0.5, image_size=8, label_column=None).table("train")) == 1
    name = saved("single", [good], [0])
    assert refusal(name=name) == f"{name} (train) has one image; at least one to train and one to hold out are needed."
    name = saved("empty", [], [])
    assert refusal(name=name) == f"the split train of the data set {name} is empty."
    (tmp_path / "nothing").mkdir()
    assert refusal(name=str(tmp_path / "nothing")).startswith(f"cannot load the data set {tmp_path}/nothing: ")


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert refusal(ConfigError, name="owner/set") == ("data=hf_images needs a package: pip install 'genlab[hf]'")


@pytest.mark.parametrize("options", [{"val_fraction": 0.0}, {"image_size": 0}])
def test_values_out_of_range_are_refused(options: dict[str, float]) -> None:
    assert refusal(ConfigError, name="x", **options).startswith(f"data.{next(iter(options))} must ")

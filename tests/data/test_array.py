"""Images in NumPy files: layouts, labels, the held-out part, mapping, and what is refused."""

import os
from pathlib import Path

import numpy as np
import pytest

from genlab.data.array import Array
from genlab.errors import ConfigError, DataError

RNG = np.random.default_rng(0)
COLOR = RNG.integers(0, 256, (40, 3, 6, 5), dtype=np.uint8)  # (N, C, H, W)
LABELS = np.arange(40) % 4


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "cache"))


def npy(path: Path, values: np.ndarray) -> str:
    np.save(path, values)
    return str(path)


def npz(path: Path, **arrays: np.ndarray) -> str:
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return str(path)


def refusal(kind: type[Exception] = DataError, split: str = "train", **options: object) -> str:
    with pytest.raises(kind) as caught:
        Array(**options).table(split)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("stored", "images"),
    [
        (COLOR, COLOR),
        (COLOR.transpose(0, 2, 3, 1), COLOR),
        (COLOR[:, 0], COLOR[:, :1]),
        (COLOR[:, :1], COLOR[:, :1]),
        (COLOR[:, 0, :, :, None], COLOR[:, :1]),
        (COLOR[:, :, :, :3], COLOR[:, :, :, :3].transpose(0, 3, 1, 2)),  # could be both: the last is the channel
    ],
    ids=["NCHW", "NHWC", "NHW", "N1HW", "NHW1", "N3H3"],
)
@pytest.mark.parametrize("compressed", [True, False])
def test_layouts(stored: np.ndarray, images: np.ndarray, compressed: bool, tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", images=stored) if compressed else npy(tmp_path / "a.npy", stored)
    whole = Array(path, val_path=path)
    assert np.array_equal(whole.table("train").images, images)
    assert whole.spec.shape == images.shape[1:]
    assert whole.spec.condition == {}
    parts = Array(path, val_fraction=0.3)
    found = np.concatenate([parts.table("train").images, parts.table("val").images])
    assert sorted(image.tobytes() for image in found) == sorted(image.tobytes() for image in images)
    batch = parts.dataset("train")[[(0, 1), (0, 0)]]
    assert np.array_equal(batch["image"], parts.table("train").images[[1, 0]])


@pytest.mark.parametrize("image_key", ["images", "x", "arr_0", "faces"])
@pytest.mark.parametrize("label_key", ["labels", "y", "kinds"])
def test_keys(image_key: str, label_key: str, tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", **{image_key: COLOR, label_key: LABELS.astype(np.uint8), "other": LABELS})
    options = {"image_key": "faces"} if image_key == "faces" else {}
    options |= {"label_key": "kinds"} if label_key == "kinds" else {}
    table = Array(path, val_path=path, **options).table("train")  # type: ignore[arg-type]
    assert np.array_equal(table.images, COLOR)
    assert table.labels is not None
    assert table.labels.dtype == np.int64
    assert np.array_equal(table.labels, LABELS)
    assert table.names == ("0", "1", "2", "3")


@pytest.mark.parametrize("images_compressed", [True, False])
@pytest.mark.parametrize("labels_compressed", [True, False])
def test_labels_in_a_file_of_their_own(images_compressed: bool, labels_compressed: bool, tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", x=COLOR) if images_compressed else npy(tmp_path / "a.npy", COLOR)
    labels = npz(tmp_path / "b.npz", y=LABELS) if labels_compressed else npy(tmp_path / "b.npy", LABELS)
    data = Array(path, label_path=labels, val_fraction=0.3)
    of = {image.tobytes(): label for image, label in zip(COLOR, LABELS, strict=True)}
    for split in ("train", "val"):
        table = data.table(split)  # type: ignore[arg-type]
        assert table.labels is not None
        assert [of[image.tobytes()] for image in table.images] == table.labels.tolist()
    assert data.spec.condition["label"].size == 4


@pytest.mark.parametrize("compressed", [True, False])
def test_the_held_out_part_stays_when_images_are_appended(compressed: bool, tmp_path: Path) -> None:
    images = np.arange(250, dtype=np.uint8)[:, None, None] + np.zeros((1, 2, 2), dtype=np.uint8)

    def parts(count: int) -> tuple[set[int], set[int]]:
        stored = images[:count]
        path = npz(tmp_path / "a.npz", x=stored) if compressed else npy(tmp_path / "a.npy", stored)
        data = Array(path, val_fraction=0.2)
        return set(data.table("train").images[:, 0, 0, 0]), set(data.table("val").images[:, 0, 0, 0])

    train, val = parts(150)
    more_train, more_val = parts(250)
    assert train | val == set(range(150))
    assert train < more_train
    assert val < more_val
    assert not more_train & more_val
    assert 30 <= len(more_val) <= 70


def test_each_side_has_an_image(tmp_path: Path) -> None:
    path = npy(tmp_path / "a.npy", COLOR[:2])
    for fraction in (1e-9, 1 - 1e-9):
        data = Array(path, val_fraction=fraction)
        assert len(data.table("train")) == len(data.table("val")) == 1
    one = npy(tmp_path / "b.npy", COLOR[:1])
    assert refusal(path=one) == f"{one} has one image; at least one to train and one to hold out are needed."


def test_a_npy_is_mapped_and_never_written_to(tmp_path: Path) -> None:
    path = npy(tmp_path / "a.npy", COLOR)
    before = Path(path).read_bytes()
    for data in (Array(path, val_path=path), Array(path)):
        images = data.table("train").images
        base = images
        while not isinstance(base, np.memmap):
            assert base.base is not None, "in memory"
            base = base.base
        images[:] = 0
    assert Path(path).read_bytes() == before
    assert np.array_equal(Array(path, val_path=path).table("train").images, COLOR)


def test_the_cached_part_follows_the_file(tmp_path: Path) -> None:
    path = npy(tmp_path / "a.npy", COLOR)
    first = Array(path).table("val").images
    caches = set((tmp_path / "cache").glob("*.npy"))
    Array(path).table("val")
    assert set((tmp_path / "cache").glob("*.npy")) == caches
    npy(tmp_path / "a.npy", 255 - COLOR)
    assert np.array_equal(Array(path).table("val").images, 255 - first)
    assert len(Array(path, val_fraction=0.5).table("val")) > len(first)


def test_a_second_file_is_held_out(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", x=COLOR[:30], y=LABELS[:30])
    val = npz(tmp_path / "b.npz", x=COLOR[30:], y=LABELS[30:])
    data = Array(path, val_path=val)
    assert (len(data.table("train")), len(data.table("val"))) == (30, 10)
    assert data.table("val").labels.tolist() == LABELS[30:].tolist()  # type: ignore[union-attr]
    bare = npz(tmp_path / "c.npz", x=COLOR)
    assert refusal(path=path, val_path=bare, split="val") == (
        f"only one of {path} and {bare} has labels; both or none must."
    )
    new = npz(tmp_path / "d.npz", x=COLOR, y=LABELS + 1)
    assert refusal(path=path, val_path=new, split="val") == f"{new} has the label 4; those of {path} end at 3."
    small = npz(tmp_path / "e.npz", x=COLOR[:, :, :4], y=LABELS)
    assert refusal(path=path, val_path=small, split="val") == (
        f"{small} has images of shape (3, 4, 5), {path} of (3, 6, 5). Set data.image_size=[6,5]."
    )
    labels = npy(tmp_path / "f.npy", LABELS[:30] * 0)
    data = Array(path, val_path=path, val_label_path=labels)
    assert data.table("val").labels.tolist() == [0] * 30  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (
            COLOR / 255,
            "has the type float64; images must be uint8, 0 to 255, or uint16, 0 to 65535. "
            "Convert floats in [0, 1] with: (x * 255).round().astype('uint8')",
        ),
        (COLOR.astype(np.int64), "has the type int64; images must be uint8, 0 to 255, or uint16, 0 to 65535. Convert"),
        (COLOR[0, 0], "has the shape (6, 5); images must be (N, H, W), (N, H, W, C) or (N, C, H, W) with C 1 to 4."),
        (COLOR[:, [0] * 7], "has the shape (40, 7, 6, 5); images must be"),
        (COLOR[None], "has the shape (1, 40, 3, 6, 5); images must be"),
        (COLOR[:0], "is empty: its shape is (0, 3, 6, 5)."),
        (COLOR[:, 0, :0], "is empty: its shape is (40, 0, 5)."),
        (np.array(["a", None], dtype=object), "holds Python objects; only arrays of numbers are read."),
    ],
)
@pytest.mark.parametrize("compressed", [True, False])
def test_other_arrays_are_refused(images: np.ndarray, text: str, compressed: bool, tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", x=images) if compressed else npy(tmp_path / "a.npy", images)
    where = f"{path} (x)" if compressed and "Python" not in text else path
    assert refusal(path=path).startswith(f"{where} {text}")


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (LABELS[:39], "has 39 labels for the 40 images in {path}."),
        (LABELS - 1, "has the label -1; labels must be 0 or more."),
        (LABELS / 2, "has the shape (40,) and the type float64; labels must be (N,) whole numbers."),
        (LABELS[:, None], "has the shape (40, 1) and the type int64; labels must be (N,) whole numbers."),
        (LABELS == 1, "has the shape (40,) and the type bool; labels must be (N,) whole numbers."),
        (LABELS + (1 << 40), "has the label 1099511627779; number the classes from 0 on."),
    ],
)
def test_other_labels_are_refused(labels: np.ndarray, text: str, tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", x=COLOR, y=labels)
    assert refusal(path=path) == f"{path} (y) {text.format(path=path)}"
    images, own = npy(tmp_path / "b.npy", COLOR), npy(tmp_path / "c.npy", labels)
    assert refusal(path=images, label_path=own) == f"{own} {text.format(path=images)}"


def test_files_and_keys_that_are_not_there(tmp_path: Path) -> None:
    assert refusal(path=f"{tmp_path}/no.npz") == f"there is no file {tmp_path}/no.npz."
    assert refusal(path=str(tmp_path)) == f"{tmp_path} is a folder, not a .npy or .npz file."
    path = npz(tmp_path / "a.npz", faces=COLOR, y=LABELS)
    assert refusal(path=path) == f"{path} has no images or x or arr_0 (it has: faces, y). Set data.image_key."
    assert refusal(path=path, image_key="x") == f"{path} has no x (it has: faces, y). Set data.image_key."
    assert refusal(path=path, image_key="faces", label_key="z") == (
        f"{path} has no z (it has: faces, y). Set data.label_key."
    )
    bare = npy(tmp_path / "a.npy", COLOR)
    assert refusal(ConfigError, path=bare, label_key="y") == (
        f"data.label_key=y: {bare} is a .npy, which has no keys. Set data.label_path."
    )


@pytest.mark.parametrize("name", ["a.npz", "a.npy"])
def test_damaged_files_are_refused(name: str, tmp_path: Path) -> None:
    path = npz(tmp_path / name, x=COLOR) if name.endswith("z") else npy(tmp_path / name, COLOR)
    whole = Path(path).read_bytes()
    damaged = [b"", b"<html>", whole[:5], whole[:60], whole[:-40], whole[: len(whole) // 2]]
    if name.endswith("z"):
        damaged.append(whole[:1000] + bytes(200) + whole[1200:])
    for content in damaged:
        Path(path).write_bytes(content)
        assert refusal(path=path) == f"{path} is damaged, or not a .npy or .npz file.", content[:20]


def test_options_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    assert refusal(ConfigError, path="x", val_fraction=1.0) == "data.val_fraction must lie between 0 and 1, got 1.0."
    assert refusal(ConfigError, path="x", val_label_path="y") == (
        "data.val_label_path needs data.val_path: without it, labels come from data.label_path."
    )


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_a_fifo_is_refused_at_once(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    assert "is a FIFO" in refusal(path=str(tmp_path / name))
    images = npy(tmp_path / "b.npy", COLOR)
    assert "is a FIFO" in refusal(path=images, label_path=str(tmp_path / name))
    (tmp_path / "link.npy").symlink_to(images)
    assert Array(path=str(tmp_path / "link.npy"), val_path=images).spec.shape == COLOR.shape[1:]

"""A folder of images: classes, the held-out part, sizes, bad files, and the cache."""

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genlab.data import decoding
from genlab.data.given import GivenImages
from genlab.data.image_folder import ImageFolder
from genlab.errors import ConfigError, DataError, StorageError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "x").mkdir()
    return tmp_path / "x"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were decoded."""
    names: list[str] = []
    decode = decoding.decode
    monkeypatch.setattr(decoding, "decode", lambda path, *rest: names.append(path.name) or decode(path, *rest))
    return names


def put(path: Path, shade: int = 0, size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, shade, shade)).save(path)
    return path


def refusal(make: Callable[[], object], kind: type[Exception] = DataError) -> str:
    with pytest.raises(kind) as caught:
        make()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def train(root: Path, **options: object) -> Callable[[], object]:
    return lambda: ImageFolder(str(root), **options).table("train")  # type: ignore[arg-type]


def shades(data: ImageFolder) -> tuple[list[int], list[int]]:
    return data.table("train").images[:, 0, 0, 0].tolist(), data.table("val").images[:, 0, 0, 0].tolist()


def test_folders_are_classes(root: Path) -> None:
    for i, name in enumerate(["b/1.png", "a/2.PNG", "a/deep/er/3.webp", "ß é/日本 4.jpeg"]):
        put(root / name, shade=10 * i)
    put(root / ".hidden/5.png")
    put(root / "a/._6.png")
    (root / "empty").mkdir()
    (root / "b/notes.txt").write_text("no image")
    data = ImageFolder(str(root), val_root=str(root))
    table = data.table("train")
    assert table.names == ("a", "b", "ß é")
    assert table.images[:, 0, 0, 0].tolist() == [10, 20, 0, 30]
    assert table.labels is not None
    assert table.labels.tolist() == [0, 0, 1, 2]
    assert data.spec.shape == (3, 8, 8)
    assert data.spec.condition["label"].size == 3


def test_files_at_the_top_have_no_labels(root: Path) -> None:
    for i in range(3):
        put(root / f"{i}.png")
    data = ImageFolder(str(root), channels=1)
    assert data.table("train").labels is None
    assert data.spec.condition == {}
    assert data.spec.shape == (1, 8, 8)


def test_a_mixture_is_refused(root: Path) -> None:
    put(root / "a/1.png")
    put(root / "2.png")
    assert refusal(train(root)) == (
        f"{root} has images at its top (2.png and 0 more) and in class folders (a). "
        "Move them into a class folder, or all to the top."
    )


def test_splits_are_not_taken_for_classes(root: Path) -> None:
    put(root / "train/a/1.png")
    put(root / "test/a/2.png")
    assert refusal(train(root)) == (
        f"are the folders in {root} splits (test, train), or classes? "
        f"Splits: data.root={root}/train data.val_root={root}/test. Classes: data.folders_are_classes=true."
    )
    with pytest.raises(DataError, match=f"seem to be splits. Name one of them: {root}/train"):
        GivenImages(str(root)).table("train")


def test_several_splits_among_other_folders_are_asked_about(root: Path) -> None:
    for name in ("extra", "mine", "test", "train"):
        put(root / name / "1.png")
    said = f"are the folders in {root} splits (extra, test, train beside mine), or classes? Splits: "
    assert refusal(train(root)).startswith(said + f"data.root={root}/train data.val_root={root}/test. Classes:")
    table = ImageFolder(str(root), val_root=str(root), folders_are_classes=True).table("train")
    assert table.names == ("extra", "mine", "test", "train")


def test_one_class_may_be_called_train(root: Path) -> None:
    for name in ("bus", "train"):
        put(root / name / "1.png")
    assert ImageFolder(str(root), val_root=str(root)).table("train").names == ("bus", "train")


def test_every_format_is_read_and_the_rest_is_told_of(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    pixels = {
        name: rng.integers(0, 256, (8, 8, 3), np.uint8) for name in ("b.bmp", "p.ppm", "t.tif", "u.TIFF", "w.webp")
    }
    for name, picture in pixels.items():
        Image.fromarray(picture).save(root / name, lossless=True)
    put(root / "j.jpg", shade=90).rename(root / "j.jfif")
    frames = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (50, 200)]
    frames[0].save(root / "g.gif", save_all=True, append_images=frames[1:])
    for name in ("a/x.psd", "a/y.PSD", "labels.csv", "LICENSE", ".hidden"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"something")
    data = ImageFolder(str(root), val_root=str(root))
    table = data.table("train").images
    assert sorted([*pixels, "g.gif", "j.jfif"]) == ["b.bmp", "g.gif", "j.jfif", "p.ppm", "t.tif", "u.TIFF", "w.webp"]
    for row, name in zip(table[[0, 3, 4, 5, 6]], sorted(pixels), strict=True):
        assert np.array_equal(row, pixels[name].transpose(2, 0, 1))
    assert table[1, :, 0, 0].tolist() == [50, 0, 0]  # the first frame
    assert table[2, :, 0, 0].tolist() == [90, 90, 90]
    assert caplog.messages == [f"4 files in {root} are not images of a known format: 2 .psd (a/x.psd ...), "
                               "1 without a suffix (LICENSE), 1 .csv (labels.csv)."]  # fmt: skip


@pytest.mark.parametrize("name", ["wide.tif", "wide.pgm", "wide.ppm"])
def test_more_than_8_bits_are_refused_in_every_format(root: Path, name: str) -> None:
    if name == "wide.ppm":
        (root / name).write_bytes(b"P6 2 2 65535\n" + bytes(24))
    else:
        Image.fromarray(np.full((2, 2), 300, np.uint16)).save(root / name)
    assert refusal(train(root, val_root=str(root))).startswith(f"{root}/{name} is 16-bit; only 8-bit images are read")


def test_a_folder_that_links_to_itself_ends(root: Path) -> None:
    put(root / "a/1.png")
    (root / "a/again").symlink_to(root)
    put(root.parent / "elsewhere/2.png")
    (root / "b").symlink_to(root.parent / "elsewhere")
    assert len(ImageFolder(str(root), val_root=str(root)).table("train")) == 2


def test_no_images(root: Path) -> None:
    (root / "a.psd").write_bytes(b"")
    assert refusal(train(root)) == (
        f"no images found in {root} (looked for .png .apng .jpg .jpeg .jpe .jfif .webp .gif .bmp .dib .tif .tiff .ppm "
        ".pgm .pbm .pnm, including subfolders). There are 1 .psd (a.psd)."
    )
    assert refusal(train(root / "no")) == f"{root / 'no'} is not a folder. Set data.root to a folder of images."


def test_a_damaged_file_stops(root: Path) -> None:
    for i in range(40):
        put(root / f"a/{i:02}.png")
    path = root / "a/39.png"
    path.write_bytes(path.read_bytes()[:45])
    assert refusal(train(root, val_root=str(root))) == (
        f"cannot read image {path} (truncated PNG, 45 bytes). Remove it, or set data.on_bad=skip (max 0.1 %)."
    )
    assert refusal(train(root, val_root=str(root), on_bad="skip")) == (
        f"more than 0.1 % of the 40 images in {root} cannot be read, such as {path} "
        "(truncated PNG, 45 bytes). Remove them."
    )
    assert not list((root.parent / "cache").glob("*.part"))


def test_a_few_damaged_files_can_be_skipped(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    for i in range(1000):
        put(root / f"{'ab'[i % 2]}/{i:04}.png", shade=i % 200, size=(2, 2))
    (root / "a/0500.png").write_bytes(b"")
    for _ in range(2):  # decoded, and from the cache
        table = ImageFolder(str(root), val_root=str(root), on_bad="skip").table("train")
        assert len(table) == 999
        assert table.labels is not None
        assert table.labels.tolist() == [0] * 499 + [1] * 500
        assert table.images[249, 0, 0, 0] == 498 % 200
        assert table.images[250, 0, 0, 0] == 502 % 200
    assert caplog.messages == [f"left out 1 of 1000 images in {root} that cannot be read."] * 2
    with pytest.raises(DataError, match="Remove it"):
        ImageFolder(str(root), val_root=str(root)).table("train")


def test_sizes_must_agree_unless_one_is_asked_for(root: Path) -> None:
    put(root / "a/1.png", size=(32, 32))
    put(root / "a/10.png", size=(30, 40))
    options = {"val_root": str(root)}
    assert refusal(train(root, **options)) == (
        f"images differ in size: {root}/a/10.png is 30x40, expected 32x32. Set data.image_size=32."
    )
    assert ImageFolder(str(root), val_root=str(root), image_size=16).spec.shape == (3, 16, 16)
    (root / "a/1.png").unlink()
    assert refusal(train(root, **options)) == (
        f"images must be square: {root}/a/10.png is 30x40. Set data.image_size=30, or keep the shape: "
        "data.image_size=[40,30]."
    )


@pytest.mark.parametrize("repetition", range(2))  # the second finds both sizes in the cache
def test_held_out_images_must_have_the_size_of_the_others(root: Path, repetition: int) -> None:
    put(root / "train/1.png", size=(8, 8))
    put(root / "val/2.png", size=(6, 6))
    ImageFolder(str(root / "val"), val_root=str(root / "val")).table("train")
    data = ImageFolder(str(root / "train"), val_root=str(root / "val"))
    assert refusal(lambda: data.table("val")) == (
        f"images differ in size: {root}/val/2.png is 6x6, expected 8x8. Set data.image_size=8."
    )


def test_classes_of_both_folders_must_agree(root: Path) -> None:
    put(root / "train/a/1.png")
    put(root / "train/b/1.png")
    put(root / "val/b/2.png")
    data = ImageFolder(str(root / "train"), val_root=str(root / "val"))
    assert data.table("val").labels == [1]
    assert data.table("val").names == ("a", "b")
    put(root / "val/c/3.png")
    data = ImageFolder(str(root / "train"), val_root=str(root / "val"))
    assert refusal(lambda: data.table("val")) == f"{root}/val has the class 'c', which {root}/train does not have."


def test_the_held_out_part_stays_when_files_are_added(root: Path) -> None:
    for i in range(0, 200, 2):
        put(root / f"{i}.png", shade=i)
    before, held_out = shades(ImageFolder(str(root), val_fraction=0.2))
    assert sorted(before + held_out) == list(range(0, 200, 2))
    assert 8 <= len(held_out) <= 32
    for i in range(1, 200, 2):
        put(root / f"{i}.png", shade=i)
    after, held_out_after = shades(ImageFolder(str(root), val_fraction=0.2))
    assert set(before) < set(after)
    assert set(held_out) < set(held_out_after)
    assert not set(after) & set(held_out_after)


def test_each_side_has_an_image(root: Path) -> None:
    put(root / "1.png")
    assert refusal(train(root)) == f"{root} has one image; at least one to train and one to hold out are needed."
    put(root / "2.png")
    for fraction in (1e-9, 1 - 1e-9):
        data = ImageFolder(str(root), val_fraction=fraction)
        assert len(data.table("train")) == len(data.table("val")) == 1


@pytest.mark.parametrize("options", [{"val_fraction": 0.0}, {"val_fraction": 1.0}, {"image_size": 0}])
def test_values_out_of_range_are_refused(root: Path, options: dict[str, float]) -> None:
    assert refusal(train(root, **options), ConfigError).startswith(f"data.{next(iter(options))} must ")


def test_the_cache_is_used_until_something_changes(root: Path, decoded: list[str]) -> None:
    path = put(root / "a/1.png", shade=50)
    put(root / "a/2.png", shade=60)

    def first() -> int:
        decoded.clear()
        return int(ImageFolder(str(root), val_root=str(root)).table("train").images[0, 0, 0, 0])

    assert (first(), sorted(decoded)) == (50, ["1.png", "2.png"])
    assert (first(), decoded) == (50, [])
    time = path.stat().st_mtime_ns
    put(path, shade=51)
    os.utime(path, ns=(time, time + 1))
    assert (first(), sorted(decoded)) == (51, ["1.png", "2.png"])
    assert (first(), decoded) == (51, [])
    ImageFolder(str(root), val_root=str(root), channels=1).table("train")
    ImageFolder(str(root), val_root=str(root), image_size=4).table("train")
    assert len(decoded) == 4


def _flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("suffix", [".npy", ".json"])
@pytest.mark.parametrize("damage", [Path.unlink, _cut, _flip_a_byte, lambda path: path.write_bytes(b"")])
def test_a_damaged_cache_is_made_again(
    root: Path, decoded: list[str], suffix: str, damage: Callable[[Path], object]
) -> None:
    for i in range(3):
        put(root / f"{i}.png", shade=i)
    for _ in range(2):
        assert ImageFolder(str(root), val_root=str(root)).table("train").images[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert len(decoded) == 3
    (path,) = (root.parent / "cache").glob(f"*{suffix}")
    damage(path)
    for _ in range(2):
        assert ImageFolder(str(root), val_root=str(root)).table("train").images[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert len(decoded) == 6


def test_what_a_killed_process_left_is_written_over(root: Path) -> None:
    put(root / "1.png", shade=9)
    ImageFolder(str(root), val_root=str(root)).table("train")
    (path,) = (root.parent / "cache").glob("*.npy")
    path.rename(path.with_suffix(".npy.part"))
    assert ImageFolder(str(root), val_root=str(root)).table("train").images[0, 0, 0, 0] == 9
    assert not list((root.parent / "cache").glob("*.part"))


def test_a_cache_that_cannot_be_written_says_so(root: Path) -> None:
    put(root / "1.png")
    file = root / "file"
    file.write_text("")
    text = refusal(train(root, val_root=str(root), cache_dir=str(file)), StorageError)
    assert text == (
        f"cannot keep prepared data in {file} (not a directory). Make room, or set cache_dir to another folder."
    )


def _load_and_log(root: str, log: str) -> None:
    decode = decoding.decode

    def logged(path: Path, *rest: object) -> np.ndarray:
        with open(log, "a") as file:
            file.write(f"{path.name}\n")
        return decode(path, *rest)  # type: ignore[arg-type]

    decoding.decode = logged  # type: ignore[assignment]
    assert len(ImageFolder(root, val_root=root).table("train")) == 200


def test_two_processes_decode_once(root: Path) -> None:
    for i in range(200):
        put(root / f"{i}.png")
    log = root.parent / "log"
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_load_and_log, args=(str(root), str(log))) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len(log.read_text().split()) == 200

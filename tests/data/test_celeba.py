"""CelebA from files in the layout of torchvision: crop, split, attributes, the archive, and what is missing."""

import io
import multiprocessing
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genlab.data.celeba import CelebA
from genlab.errors import ConfigError, DataError

URL = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
SPLIT = [0, 1, 0, 2, 0, 1, 0]  # of images 1..7
SMILING = [1, -1, -1, 1, 1, 1, -1]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "cache"))


def face(number: int) -> np.ndarray:
    """(218, 178, 3): the centered square of 140 is full of 30 * number, what lies around it is white."""
    pixels = np.full((218, 178, 3), 255, dtype=np.uint8)
    pixels[39:179, 19:159] = 30 * number
    return pixels


@pytest.fixture
def celeba(tmp_path: Path) -> Path:
    """root/celeba with its lists and unpacked images."""
    folder = tmp_path / "root/celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{i:06}.jpg" for i in range(1, 8)]
    for i, name in enumerate(names, 1):
        Image.fromarray(face(i)).save(folder / "img_align_celeba" / name, quality=100, subsampling=0)
    (folder / "list_eval_partition.txt").write_text("".join(f"{n} {s}\n" for n, s in zip(names, SPLIT, strict=True)))
    lines = [f"{n}  1 {s:2} -1\n" for n, s in zip(names, SMILING, strict=True)]
    (folder / "list_attr_celeba.txt").write_text(f"{len(names)}\nYoung Smiling Bald\n" + "".join(lines))
    return folder


def pack(celeba: Path) -> None:
    """Images into their archive, the folder away."""
    images = celeba / "img_align_celeba"
    with zipfile.ZipFile(celeba / "img_align_celeba.zip", "w") as archive:
        archive.mkdir("img_align_celeba")
        for path in sorted(images.iterdir()):
            archive.write(path, f"img_align_celeba/{path.name}")
            path.unlink()
    images.rmdir()


def data(celeba: Path, **options: object) -> CelebA:
    return CelebA(str(celeba.parent), **options)  # type: ignore[arg-type]


def refusal(celeba: Path, kind: type[Exception] = DataError, **options: object) -> str:
    with pytest.raises(kind) as caught:
        data(celeba, **options).table("train")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("image_size", [64, 32, 140])
def test_faces_are_cropped_and_split_as_published(celeba: Path, image_size: int) -> None:
    faces = data(celeba, image_size=image_size)
    for split, numbers in (("train", [1, 3, 5, 7]), ("val", [2, 6])):
        table = faces.table(split)  # type: ignore[arg-type]
        assert table.images.shape == (len(numbers), 3, image_size, image_size)
        shades = table.images[:, :, 3:-3, 3:-3].astype(int)  # at the border of the crop its JPEG rings
        assert np.abs(shades - 30 * np.array(numbers)[:, None, None, None]).max() <= 3
        assert table.labels is None
    assert faces.spec.condition == {}


def test_an_attribute_is_a_label(celeba: Path) -> None:
    smiling = data(celeba, attribute="Smiling")
    assert smiling.spec.condition["label"].names == ("not Smiling", "Smiling")
    assert [smiling.table(split).labels.tolist() for split in ("train", "val")] == [[1, 0, 1, 0], [0, 1]]  # type: ignore
    assert data(celeba, attribute="Bald").table("train").labels.tolist() == [0] * 4  # type: ignore[union-attr]
    assert refusal(celeba, ConfigError, attribute="smiling") == (
        "unknown data.attribute 'smiling'. Did you mean 'Smiling'? Available: Young, Smiling, Bald."
    )


def _load(celeba: Path) -> None:
    assert len(data(celeba).table("train")) == 4


def test_an_archive_is_unpacked_once_and_its_leftovers_do_not_matter(celeba: Path) -> None:
    pack(celeba)
    (celeba / "img_align_celeba.part/img_align_celeba").mkdir(parents=True)  # of a process that was killed
    (celeba / "img_align_celeba.part/img_align_celeba/000001.jpg").write_bytes(b"half")
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_load, args=(celeba,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert not (celeba / "img_align_celeba.part").exists()
    (celeba / "img_align_celeba.zip").unlink()
    _load(celeba)


def test_an_archive_cannot_write_outside_its_folder(celeba: Path, tmp_path: Path) -> None:
    path = celeba / "img_align_celeba.zip"
    for name in ("../escaped.jpg", "img_align_celeba/../../escaped.jpg", "/escaped.jpg"):
        pack(celeba)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(name, b"")
        assert refusal(celeba) == f"{path} is refused: '{name}' leads out of its folder. Fetch it again: {URL}"
        with zipfile.ZipFile(path) as archive:
            archive.extractall(celeba, [n for n in archive.namelist() if "escaped" not in n])
    assert not list(tmp_path.rglob("escaped*"))


def test_damaged_archives_are_refused(celeba: Path) -> None:
    pack(celeba)
    path = celeba / "img_align_celeba.zip"
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    assert refusal(celeba) == f"{path} is damaged. Fetch it again: {URL}"
    path.write_bytes(whole[:200] + bytes(100) + whole[300:])
    assert refusal(celeba) == f"{path} is damaged. Fetch it again: {URL}"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme", "no images")
    path.write_bytes(buffer.getvalue())
    assert refusal(celeba) == f"{path} holds no img_align_celeba/*.jpg. Fetch it again: {URL}"
    assert not (celeba / "img_align_celeba").exists()


def test_what_is_missing_is_named(celeba: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty/celeba"
    assert refusal(empty) == (
        f"CelebA is not in {empty}/. Put img_align_celeba.zip and list_eval_partition.txt there, from {URL}"
    )
    assert refusal(empty, attribute="Bald") == (
        f"CelebA is not in {empty}/. Put img_align_celeba.zip, list_eval_partition.txt and list_attr_celeba.txt there, "
        f"from {URL}"
    )
    assert not empty.exists()
    (celeba / "img_align_celeba/000005.jpg").unlink()
    assert refusal(celeba) == (
        f"1 of 4 images are not in {celeba}/img_align_celeba (000005.jpg for one). "
        "Delete that folder and unpack img_align_celeba.zip again."
    )
    (celeba / "list_attr_celeba.txt").unlink()
    assert refusal(celeba, attribute="Bald") == (
        f"CelebA is not in {celeba}/. Put list_attr_celeba.txt there, from {URL}"
    )


@pytest.mark.parametrize("line", ["<html>", "000001.jpg", "000001.jpg x", "../../a.jpg 0"])
def test_a_list_that_is_something_else_is_refused(celeba: Path, line: str) -> None:
    path = celeba / "list_eval_partition.txt"
    path.write_text(f"000001.jpg 0\n{line}\n")
    assert refusal(celeba) == f"line 2 of {path} cannot be read. Fetch it again: {URL}"
    path.write_text("000002.jpg 1\n")
    assert refusal(celeba) == f"{path} names no image of the train split. Fetch it again: {URL}"


def test_a_damaged_image_stops(celeba: Path) -> None:
    path = celeba / "img_align_celeba/000003.jpg"
    path.write_bytes(path.read_bytes()[:900])
    assert refusal(celeba) == (
        f"cannot read image {path} (truncated JPEG, 900 bytes). "
        f"Delete {celeba}/img_align_celeba and unpack img_align_celeba.zip again."
    )
    assert refusal(celeba, ConfigError, image_size=0) == "data.image_size must be a whole number >= 1, got 0."

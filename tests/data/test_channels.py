"""Alpha, 16 bits, rectangles and archives: from files and arrays to batches and back to PNGs."""

import io
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genlab.data.archive_root import unpacked_root
from genlab.data.array import Array
from genlab.data.array_cache import cached_array
from genlab.data.base import DataSpec
from genlab.data.decode import decode
from genlab.data.image import to_float, to_pixels
from genlab.data.image_folder import ImageFolder
from genlab.data.remembered import recall, remember
from genlab.errors import ConfigError, DataError, StorageError
from genlab.evaluation.pixels_allowed import check_pixels
from genlab.metrics.noise_level import NoiseLevel
from genlab.model.flow import Flow
from genlab.run.pixel_levels import check_model_bits
from genlab.sampling.pictures import save_grid
from genlab.sampling.png import save_png


def pixels(shape: tuple[int, ...], kind: type = np.uint8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(kind).max + 1, shape, dtype=kind)


def png_rows(path: Path) -> np.ndarray:
    """The samples of a PNG of one IDAT chunk without filters, read by the format's own description."""
    content, place, chunks = path.read_bytes(), 8, {}
    while place < len(content):
        length, kind = struct.unpack(">I4s", content[place : place + 8])
        body = content[place + 8 : place + 8 + length]
        assert struct.unpack(">I", content[place + 8 + length : place + 12 + length])[0] == zlib.crc32(kind + body)
        chunks[kind] = body
        place += 12 + length
    width, height, bits, color = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert bits == 16
    channels = {0: 1, 4: 2, 2: 3, 6: 4}[color]
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    assert not rows[:, 0].any()
    return np.ascontiguousarray(rows[:, 1:]).view(">u2").reshape(height, width, channels)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pngs_of_any_channels_hold_their_pixels(tmp_path: Path, channels: int) -> None:
    narrow, wide = pixels((5, 7, channels)), pixels((5, 7, channels), np.uint16)
    save_png(narrow, tmp_path / "narrow.png")
    save_png(wide, tmp_path / "wide.png")
    assert np.array_equal(decode(tmp_path / "narrow.png", None, channels).transpose(1, 2, 0), narrow)
    assert np.array_equal(png_rows(tmp_path / "wide.png"), wide)
    with Image.open(tmp_path / "wide.png") as image:  # an independent reader takes it
        assert image.size == (7, 5)


def test_alpha_is_kept_where_there_is_a_channel_for_it_and_weighs_colors_in_resizing(tmp_path: Path) -> None:
    image = np.zeros((2, 2, 4), np.uint8)
    image[:, 0], image[:, 1] = (255, 0, 0, 255), (0, 255, 0, 0)  # green that nobody sees
    save_png(image, tmp_path / "a.png")
    assert np.array_equal(decode(tmp_path / "a.png", None, 4).transpose(1, 2, 0), image)
    red, green, _, alpha = decode(tmp_path / "a.png", 1, 4)[:, 0, 0].tolist()
    assert (green, alpha) == (0, 128)
    assert red >= 254
    assert decode(tmp_path / "a.png", None, 2)[1].tolist() == [[255, 0], [255, 0]]
    assert decode(tmp_path / "a.png", None, 3)[:, 0, 1].tolist() == [255, 255, 255]  # laid on white


def test_sixteen_bits_go_from_file_to_batch_to_grid(tmp_path: Path) -> None:
    folder = tmp_path / "wide"
    folder.mkdir()
    images = pixels((6, 8, 8, 1), np.uint16)
    for i, image in enumerate(images):
        save_png(image, folder / f"{i}.png")
    data = ImageFolder(str(folder), str(folder), channels=1, bits=16, cache_dir=str(tmp_path / "c"), batch_size=2)
    batch = data.dataset("train")[[(0, i) for i in range(6)]]["image"]
    assert (batch.dtype, data.spec.bits, data.spec.to_config()["bits"]) == (torch.uint16, 16, 16)
    assert np.array_equal(batch.numpy()[:, 0], images[..., 0])
    x = to_float(batch)
    assert -1 <= float(x.min()) < -0.9 < 0.9 < float(x.max()) <= 1
    assert torch.equal(to_pixels(x, 16).int(), batch.int())  # every level comes back
    save_grid(to_pixels(x, 16), 3, tmp_path / "grid.png", smallest=1)
    assert np.array_equal(png_rows(tmp_path / "grid.png")[:8, :8, 0], images[0, ..., 0])
    with pytest.raises(DataError, match=r"is 16-bit.*Set data.bits=16 data.channels=1\."):
        ImageFolder(str(folder), str(folder), channels=1, cache_dir=str(tmp_path / "c")).table("train")


def test_sixteen_bits_are_resized_as_real_numbers(tmp_path: Path) -> None:
    save_png(np.full((9, 12, 1), 40_001, np.uint16), tmp_path / "a.png")
    assert np.array_equal(decode(tmp_path / "a.png", (4, 5), 1, bits=16), np.full((1, 4, 5), 40_001))
    save_png(np.full((3, 3, 1), 7, np.uint8), tmp_path / "b.png")
    assert (decode(tmp_path / "b.png", None, 1, bits=16) == 7 * 257).all()  # 255 is 65535
    save_png(pixels((3, 3, 3), np.uint16), tmp_path / "c.png")
    with pytest.raises(DataError, match=r"only 8-bit images are read, and gray ones of 16 bits"):
        decode(tmp_path / "c.png", None, 1, bits=16)


def test_rectangles_are_the_largest_centered_part_of_their_shape(tmp_path: Path) -> None:
    image = pixels((40, 90, 3))
    save_png(image, tmp_path / "a.png")
    assert np.array_equal(decode(tmp_path / "a.png", (40, 60), 3).transpose(1, 2, 0), image[:, 15:75])
    with Image.open(tmp_path / "a.png") as opened:
        expected = np.asarray(opened.resize((24, 16), Image.Resampling.LANCZOS, box=(15, 0, 75, 40)))
    assert np.array_equal(decode(tmp_path / "a.png", (16, 24), 3).transpose(1, 2, 0), expected)
    data = ImageFolder(str(tmp_path), str(tmp_path), image_size=[16, 24], cache_dir=str(tmp_path / "c"))  # type: ignore[arg-type]
    assert data.spec.shape == (3, 16, 24)
    with pytest.raises(ConfigError, match=r"data.image_size must be .* got \[16, 0\]"):
        ImageFolder(str(tmp_path), image_size=(16, 0))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_arrays_of_any_channels_are_resized_like_files(tmp_path: Path, kind: type, channels: int) -> None:
    images = pixels((5, 12, 20, channels), kind)
    np.savez(tmp_path / "a.npz", images=images)
    whole = Array(str(tmp_path / "a.npz"), str(tmp_path / "a.npz"), cache_dir=str(tmp_path / "c")).table("train")
    assert np.array_equal(whole.images, images.transpose(0, 3, 1, 2))
    small = Array(str(tmp_path / "a.npz"), str(tmp_path / "a.npz"), image_size=6, cache_dir=str(tmp_path / "c"))
    found = small.table("train").images
    assert (found.shape, found.dtype) == ((5, channels, 6, 6), kind)
    box = (4, 0, 16, 12)
    for channel in range(channels):
        plain = images[2, ..., channel].astype(np.float32 if kind is np.uint16 else np.uint8)
        expected = np.asarray(Image.fromarray(plain).resize((6, 6), Image.Resampling.LANCZOS, box=box))
        assert np.array_equal(found[2, channel], np.clip(np.rint(expected), 0, np.iinfo(kind).max).astype(kind))


def test_sixteen_bits_that_are_eight_are_told(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", pixels((4, 8, 8)).astype(np.uint16))
    with pytest.raises(DataError, match="no value is above 255"):
        Array(str(tmp_path / "a.npy")).table("train")


def test_metrics_and_models_that_cannot_take_such_pixels_refuse() -> None:
    wide, alpha = DataSpec("image", (1, 8, 8), bits=16), DataSpec("image", (4, 8, 8))
    with pytest.raises(ConfigError, match=r"metrics=noise_level needs 8 bits.*metrics=\[\]"):
        check_pixels({"noise_level": NoiseLevel()}, {}, None, wide)
    check_pixels({"noise_level": NoiseLevel()}, {}, None, alpha)
    check_pixels({}, {}, None, wide)

    class Reads:
        reads = frozenset({"features"})

    class Extractor:
        name = "inception"

    with pytest.raises(ConfigError, match=r"metrics=fid: features of inception need gray or RGB images.*4 channels"):
        check_pixels({"fid": Reads()}, {}, Extractor(), alpha)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Flow has 256 levels per pixel"):
        check_model_bits(Flow.__new__(Flow), {"bits": 16})
    check_model_bits(Flow.__new__(Flow), {})


def packed(path: Path, members: dict[str, bytes]) -> str:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
            for name, content in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return str(path)


def png(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels((8, 8, 3), seed=seed)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tgz"])
def test_an_archive_stands_for_its_folder(tmp_path: Path, name: str) -> None:
    members = {f"pictures/{kind}/{i}.png": png(i) for i, kind in enumerate(["cat", "cat", "dog", "dog"])}
    archive = packed(tmp_path / name, members)
    data = ImageFolder(archive, archive, cache_dir=str(tmp_path / "cache"))
    table = data.table("train")
    assert (table.names, table.labels.tolist()) == (("cat", "dog"), [0, 0, 1, 1])  # type: ignore[union-attr]
    assert np.array_equal(table.images[3].transpose(1, 2, 0), pixels((8, 8, 3), seed=3))
    before = Path(data.root).stat().st_mtime_ns
    again = ImageFolder(archive, archive, cache_dir=str(tmp_path / "cache"))
    assert (again.root, Path(again.root).stat().st_mtime_ns) == (data.root, before)  # unpacked once


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
@pytest.mark.parametrize("member", ["../out.png", "/tmp/genlab-out.png", "a/../../out.png"])
def test_no_path_leads_out_of_an_archive(tmp_path: Path, name: str, member: str) -> None:
    archive = packed(tmp_path / name, {member: png(0)})
    with pytest.raises(DataError, match="leads out of its folder"):
        unpacked_root(archive, tmp_path / "cache")
    assert not list(tmp_path.rglob("*.png"))
    assert [path for path in (tmp_path / "cache").iterdir() if path.is_dir()] == []


def test_links_and_bombs_and_damage_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "link.tar", "w") as archive:
        link = tarfile.TarInfo("a.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as zipped:
        info = zipfile.ZipInfo("a.png")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        zipped.writestr(info, "/etc/passwd")
    for name in ("link.tar", "link.zip"):
        with pytest.raises(DataError, match="a link or a device"):
            unpacked_root(str(tmp_path / name), tmp_path / "cache")
    (tmp_path / "bad.zip").write_bytes(b"PK\3\4 nothing")
    with pytest.raises(DataError, match="is damaged"):
        unpacked_root(str(tmp_path / "bad.zip"), tmp_path / "cache")
    with tarfile.open(tmp_path / "bomb.tar", "w") as archive:  # a header that promises more than any such file holds
        huge = tarfile.TarInfo("a.png")
        huge.size = 1 << 40
        archive.fileobj.write(huge.tobuf())  # type: ignore[union-attr]
    with pytest.raises(DataError, match=r"is refused|is damaged"):
        unpacked_root(str(tmp_path / "bomb.tar"), tmp_path / "cache")


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
def test_no_link_in_a_cache_is_written_through(tmp_path: Path, name: str) -> None:
    """A cache may come with a run, whose config names it."""
    victim, cache = tmp_path / "victim", tmp_path / "cache"
    victim.mkdir()
    (victim / "file").write_text("kept")
    archive = packed(tmp_path / name, {"cat/0.png": png(0), "cat/1.png": png(1)})
    unpacked = Path(unpacked_root(archive, cache))
    folder = next(path for path in cache.iterdir() if path.is_dir())
    assert cache in unpacked.parents
    shutil.rmtree(folder)
    folder.with_name(f"{folder.name}.part").symlink_to(victim)
    with pytest.raises(StorageError, match="cannot unpack"):
        unpacked_root(archive, cache)
    folder.with_name(f"{folder.name}.lock").unlink()
    folder.with_name(f"{folder.name}.lock").symlink_to(victim / "file")
    with pytest.raises(StorageError, match="cannot unpack"):
        unpacked_root(archive, cache)
    for ending in (".npy", ".npy.part", ".json.part"):
        (cache / f"key{ending}").symlink_to(victim / "file")
    os.mkfifo(cache / "key.facts")
    (cache / f"key.{os.getpid()}.part").symlink_to(victim / "file")
    assert cached_array(cache, "key", lambda: [np.arange(3)]).tolist() == [0, 1, 2]
    assert recall(cache, "key") is None  # and does not wait
    remember(cache, "key", {"a": 1})
    assert recall(cache, "key") == {"a": 1}
    (cache / "key.lock").unlink()
    (cache / "key.lock").symlink_to(victim / "file")
    (cache / "key.json").unlink()
    os.mkfifo(cache / "key.json")
    with pytest.raises(StorageError, match="cannot keep prepared data"):
        cached_array(cache, "key", lambda: [np.arange(3)])
    assert [path.name for path in victim.iterdir()] == ["file"]
    assert (victim / "file").read_text() == "kept"


def test_a_picture_is_written_over_a_link_not_through_it(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("kept")
    for kind in (np.uint8, np.uint16):
        (tmp_path / "a.png").unlink(missing_ok=True)
        (tmp_path / "a.png").symlink_to(tmp_path / "victim")
        save_png(np.zeros((2, 3, 1), kind), tmp_path / "a.png")
        assert Image.open(tmp_path / "a.png").size == (3, 2)
        assert not (tmp_path / "a.png").is_symlink()
    assert (tmp_path / "victim").read_text() == "kept"


def test_a_damaged_archive_of_any_method_is_one_line(tmp_path: Path) -> None:
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        path = tmp_path / f"{method}.zip"
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("cat/0.png", png(0) * 20)
        content = bytearray(path.read_bytes())
        content[60:90] = bytes(30)
        path.write_bytes(content)
        with pytest.raises((DataError, StorageError)):
            unpacked_root(str(path), tmp_path / "cache")

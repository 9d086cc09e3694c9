"""A path is read in one way wherever it stands, and where results go is checked before they are made."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import genlab
from genlab import cli
from genlab.command.options import take_options
from genlab.config.overrides import parse
from genlab.config.tree import ConfigTree
from genlab.data.given import GivenImages
from genlab.errors import ConfigError, StorageError
from genlab.files.atomic import prepare_file
from genlab.files.paths import read_path
from genlab.run.run_folder import create, find
from genlab.sampling.pictures import picture_destination, write_images
from genlab.sampling.texts import text_destination


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("folder=2026_11_27", "2026_11_27"),
        ("folder=1e3", "1e3"),
        ("folder=007", "007"),
        ("folder=true", "true"),
        ("folder=null", None),
        ("out=a(1)=b.png", "a(1)=b.png"),
        ('out=say "so"', 'say "so"'),
        ("out='in quotes'", "in quotes"),
        ("outputs=~/runs", "~/runs"),
        ("data.root=2026_11_27", "2026_11_27"),
        ("metrics.extractor=~/runs/1", "~/runs/1"),
        ("runs=[2026_11_27,1e3,~/c,'a, b']", ["2026_11_27", "1e3", "~/c", "a, b"]),
        ("protocol=00123456", "00123456"),
        ("seed=7", 7),
        ("data.limit=1e3", 1000.0),
    ],
)
def test_a_path_is_text_whatever_it_looks_like(typed: str, value: object) -> None:
    (override,) = parse([typed])
    assert override.value() == value
    assert [o.value() for o in parse([override.input_line or ""])] == [value]  # as a saved run repeats it


def test_what_needs_no_quotes_gets_none() -> None:
    lines = ["data.root=/a/b", "data.path=a b", "runs=[a,b]", 'out="x"', "model=vae", "outputs=${oc.env:HOME}/x"]
    assert [override.input_line for override in parse(lines)] == lines


def test_several_paths_of_a_sweep() -> None:
    (override,) = parse(["data.root=2026_11_27,~/b"], sweep=True)
    assert [value.text for value in override.value().list] == ["2026_11_27", "~/b"]  # type: ignore[union-attr]


def test_home_folders(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    assert read_path("~/a/b") == home / "a/b"
    assert read_path("a/~b") == Path("a/~b")
    assert read_path("./~b") == read_path(str(read_path("./~b"))) == home / "~b"
    for typed, name in (("~nobody_at_all/x", "~nobody_at_all"), ("", "''"), ("a\0b", "'a")):
        with pytest.raises(ConfigError, match=re.escape(name)):
            read_path(typed)


def test_home_is_home_in_every_option(home: Path) -> None:
    run = create("~/runs", "vae-digits")
    assert run.parent == home / "runs/vae-digits"
    (run / "config.yaml").touch()
    assert find(f"~/runs/vae-digits/{run.name}") == run
    (home / "mine").mkdir()
    assert ConfigTree("~/mine").folders[0] == home / "mine"
    np.save(home / "a.npy", np.zeros((2, 4, 4), np.uint8))
    assert len(GivenImages("~/a.npy", cache_dir="~/cache").table("train")) == 2
    options, _ = take_options("evaluate", ["images=~/a", "reference=~/b", "out=~/c/", "data=digits"])
    assert (options["images"], options["reference"], options["out"]) == tuple(f"{home}/{x}" for x in ("a", "b", "c/"))
    assert take_options("compare", ["runs=[~/a,b]", "out=~/c"])[0]["runs"] == [f"{home}/a", "b"]
    assert take_options("train", ["folder=~/a"])[0]["folder"] == f"{home}/a"


def test_nothing_else_reads_home_folders() -> None:
    files = sorted(Path(genlab.__file__).parent.rglob("*.py"))
    assert [file.name for file in files if "expanduser" in file.read_text()] == ["paths.py"]


def test_images_go_where_the_name_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).view(2, 3, 4, 4)
    for out in ("new/grid.PNG", "new/a.npz", "folder", "v1.2/"):
        write_images(images, picture_destination(out), columns=2)
    assert Image.open("new/grid.PNG").format == "PNG"
    assert np.array_equal(np.load("new/a.npz")["images"], images.permute(0, 2, 3, 1))
    for folder in ("folder", "v1.2"):
        assert np.array_equal(np.asarray(Image.open(f"{folder}/000001.png")), images[1].permute(1, 2, 0))


def test_samples_never_lie_among_others(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    assert picture_destination(f"{tmp_path}/d") == tmp_path / "d"  # empty
    (tmp_path / "d/000007.png").touch()
    with pytest.raises(ConfigError, match="the folder holds 1 file already"):
        picture_destination(f"{tmp_path}/d")


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("grid.jpg", r"out=grid\.jpg: images go into .* Use out=grid\.png, or out=grid\.jpg/ for a folder\."),
        ("x.txt", "images go into"),
    ],
)
def test_other_kinds_of_files_are_refused(out: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=said):
        picture_destination(out)
    with pytest.raises(ConfigError, match=r"texts go into a \.txt file\. Use out=a\.txt"):
        text_destination("a.png")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write to"):
        prepare_file(tmp_path / "file/x.json")
    with pytest.raises(StorageError, match="is a folder"):
        prepare_file(tmp_path)


def test_numbers_go_into_a_folder_that_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(0).integers(0, 256, (4, 8, 8), np.uint8))
    typed = ["evaluate", f"images={tmp_path}/a.npy", f"reference={tmp_path}/b.npy", "metrics=[sharpness]",
             "metrics/extractor=random", "data.channels=1"]  # fmt: skip
    cli.run([*typed, f"out={tmp_path}/results/fid.json"])
    assert (tmp_path / "results/fid.json").exists()
    with pytest.raises(ConfigError, match=r"the numbers go into a \.json file"):
        cli.run([*typed, f"out={tmp_path}/results"])

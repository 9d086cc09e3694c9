"""The table of remedies: what a message advises is tried in the command that printed it, and helps.

A row is what is there, the command, what its message must say, and the command with the remedy in it. Whatever else a
message advises (weights to fetch, a disk to clear, packages to install) no test can do; those are in test_bad_input.py.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genlab import cli, experiment
from genlab.errors import GenlabError
from tiny_run import SHORT
from wrong_values import draw, outcome


class Trained(BaseException):
    """Training would have begun: nothing was refused."""


@pytest.fixture(autouse=True)
def no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(*_: object) -> None:
        raise Trained

    monkeypatch.setattr(experiment, "fit", fit)
    monkeypatch.chdir(tmp_path)


def nothing() -> None:
    pass


def array() -> None:
    np.savez("a.npz", pictures=np.zeros((20, 17, 17), np.uint8))
    np.savez("b.npz", images=np.zeros((20, 17, 17), np.uint8))


def folder(count: int = 60, size: tuple[int, int] = (18, 18), where: str = "p") -> None:
    Path(where).mkdir()
    for i in range(count):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8)).save(
            f"{where}/{i:03}.png"
        )


def oblong() -> None:
    folder(12, (16, 24))


def damaged() -> None:
    folder(1200, (4, 4))
    Path("p/007.png").write_bytes(b"no picture")


def text() -> None:
    Path("t.txt").write_text("abc\n" * 300 + "z", encoding="utf-8")


PLAIN = ("data.cache_dir=cache", "metrics=[]")
IMAGES = ("train", *SHORT, *PLAIN, "data=image_folder", "data.root=p")
TEXT = ("train", *SHORT, *PLAIN, "model=transformer", "data=text_file", "data.path=t.txt",
        "data.context=8", "data.limit=null")  # fmt: skip

REMEDIES: dict[str, tuple[Callable[[], None], tuple[str, ...], str, tuple[str, ...]]] = {
    "key of an array": (array, ("train", *SHORT, *PLAIN, "data=array", "data.path=a.npz", "model/network=mlp"),
                        "Set data.image_key.", ("data.image_key=pictures",)),
    "size of an array for a U-Net": (array, ("train", *SHORT, *PLAIN, "data=array", "data.path=b.npz",
                                             "model/network=unet"),
                                     "data.image_size=18.", ("data.image_size=18",)),
    "size of files for a U-Net": (folder, (*IMAGES, "model/network=unet", "model.network.channel_mult=[1,1,1]"),
                                  "data.image_size=20.", ("data.image_size=20",)),
    "oblong files": (oblong, (*IMAGES, "model/network=mlp"), "Set data.image_size=16,", ("data.image_size=16",)),
    "a damaged file": (damaged, (*IMAGES, "model/network=mlp"), "set data.on_bad=skip", ("data.on_bad=skip",)),
    "a new character": (text, (*TEXT, "data/tokenizer=characters"),
                        "which is at character 1200 (line 301) of t.txt: the training text has none. "
                        "Train with data/tokenizer=bytes.", ("data/tokenizer=bytes",)),
    "a comma in a path": (nothing, ("train", "data=image_folder", "data.root=/data/a,b"),
                          "needs quotes: 'data.root=\"/data/a,b\"'.", ()),
    "spaces around =": (nothing, ("train", "model = vae"), "model=vae", ()),
}  # fmt: skip


def said(*typed: str) -> str:
    """The error of a command; nothing where training would begin."""
    try:
        cli.run(list(typed))
    except GenlabError as error:
        return str(error)
    except Trained:
        pass
    return ""


@pytest.mark.parametrize("row", REMEDIES)
def test_a_remedy_helps_where_it_is_shown(row: str) -> None:
    prepare, typed, advice, remedy = REMEDIES[row]
    prepare()
    assert advice in said(*typed)
    if remedy:
        names = {line.partition("=")[0] for line in remedy}
        assert said(*(line for line in typed if line.partition("=")[0] not in names), *remedy) == ""


def test_a_comma_in_quotes_is_of_one_value() -> None:
    assert "there is no such" in said("train", *SHORT, "data=image_folder", 'data.root="/data/a,b"') or (
        "/data/a,b is not a folder" in said("train", *SHORT, "data=image_folder", 'data.root="/data/a,b"')
    )


def test_a_home_needs_no_quotes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert f"{tmp_path}/x is not a folder" in said("train", *SHORT, "data=image_folder", "data.root=~/x") or (
        "~/x is not a folder" in said("train", *SHORT, "data=image_folder", "data.root=~/x")
    )


def test_a_batch_larger_than_the_data_is_clipped_and_said(caplog: pytest.LogCaptureFixture) -> None:
    folder(12)
    assert said(*IMAGES, "model/network=mlp", "data.batch_size=128") == ""
    (warning,) = [record.getMessage() for record in caplog.records if "batch_size" in record.getMessage()]
    assert warning.startswith("data.batch_size=128: the training set has ")


# --- values of the wrong kind, range and size -------------------------------------------------------------------------


@pytest.mark.parametrize("case", draw(8, seed=0), ids=lambda case: f"{case.option}={case.value}"[:60])
def test_a_wrong_value_is_never_unforeseen(case: object) -> None:
    assert outcome(case) in (0, *range(2, 10))  # type: ignore[arg-type]


@pytest.mark.matrix
def test_300_wrong_values_are_never_unforeseen() -> None:
    assert {outcome(case) for case in draw(300, seed=1)} <= {0, *range(2, 10)}

"""The commands that find directions and move samples along them, attributes that are typed, and the best of several."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genlab.cli import run as command_line
from genlab.directions import stored
from genlab.errors import GenlabError
from genlab.run.judge import ClassifierJudge, SceneJudge, label_kind, load_judge
from genlab.run.run_folder import read_config
from tiny_run import CAPTIONS, UNET, small, train

GAN = ("model=gan", "model.conditions=[]")
NUMBERS = (*CAPTIONS, "data.attributes=[size,x]", "model=diffusion", "model/network=mlp",
           "model.conditions=[attributes]")  # fmt: skip


@pytest.fixture(scope="module")
def gan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(*small(*GAN), outputs=tmp_path_factory.mktemp("gan"))


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    choices = small("model=classifier", "data.limit=160", "budget.value=640")
    return train(*choices, outputs=tmp_path_factory.mktemp("judge"))


def said(capsys: pytest.CaptureFixture[str], *typed: str) -> list[str]:
    capsys.readouterr()
    command_line([*typed])
    return capsys.readouterr().out.strip().splitlines()


def refusal(*typed: str) -> str:
    with pytest.raises(GenlabError) as caught:
        command_line([*typed])
    return str(caught.value)


def written(line: str) -> Path:
    return Path(line.rpartition(": ")[2])


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_directions_are_found_written_and_used(gan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, shown = said(capsys, "directions", f"run={gan}", "method=sefa", "count=3", "columns=3", "n=2")
    assert written(found) == gan / stored.FILE
    assert shown.startswith("2 samples moved along each, from -3 to 3: ")
    grid = pixels(written(shown))
    said(capsys, "directions", f"run={gan}", "method=sefa", "count=3", "columns=3", "n=2")
    assert np.array_equal(pixels(written(shown)), grid)
    (plain,) = said(capsys, "sample", f"run={gan}", "n=2", f"out={gan / 'plain.npz'}")
    with np.load(written(plain)) as arrays:
        samples = arrays["images"]
    side = len(samples[0])
    (moved,) = said(capsys, "sample", f"run={gan}", "n=2", "direction=1", "strength=0", f"out={gan / 'zero.npz'}")
    with np.load(written(moved)) as arrays:
        assert np.array_equal(arrays["images"], samples)
    scale = len(grid[:, 0]) // (6 * (side + 1) - 1)  # three directions of two rows, with lines between
    for row in range(6):
        top, left = row * (side + 1), side + 1  # the middle one of three
        tile = grid[:: scale or 1, :: scale or 1][top : top + side, left : left + side]
        assert np.array_equal(tile, samples[row % 2, :, :, 0])
    (moved,) = said(capsys, "sample", f"run={gan}", "n=2", "direction=[0,2]", "strength=[2,-1]")
    assert "sefa=0x2,2x-1" in moved


@pytest.mark.matrix
def test_labels_of_encoded_data_and_of_a_judge(
    gan: Path, judge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(*small("model=vae"), "data.limit=200", outputs=tmp_path)
    *lines, found, _ = said(capsys, "directions", f"run={run}", "method=label", "samples=200", "columns=3")
    assert re.fullmatch(r"\d: \d+ of 200, told apart at \d+\.\d%", lines[0])
    assert found.startswith(f"{len(lines)} directions of the latent space")
    (line,) = said(capsys, "sample", f"run={run}", "direction=[3,1]", "strength=[1,-1]", "n=2")
    assert "label=3x1,1x-1" in line
    monkeypatch.setattr(ClassifierJudge, "classes", lambda self, x: (x[:, 0, 8, 8] > x[:, 0, 8, 8].median()).long())
    by_judge = ("method=label", f"judge={judge}", "samples=60", "columns=3", "n=1")
    lines = said(capsys, "directions", f"run={gan}", *by_judge)
    assert [re.sub(r"at .*", "", line) for line in lines[:2]] == [f"{i}: 30 of 60, told apart " for i in (0, 1)]
    unet = train(*small("model=diffusion", *UNET), outputs=tmp_path)
    said(capsys, "directions", f"run={unet}", "method=pca", "samples=12", "count=2", "columns=3", "n=1")
    assert "Use method=pca" in refusal("directions", f"run={unet}", "method=sefa")
    assert said(capsys, "directions", f"run={unet}", *by_judge)[0] == "0: 30 of 60"
    assert "judge=outputs/<a run of" in refusal("directions", f"run={unet}", "method=label")
    assert "Find directions again" in refusal(
        "sample", f"run={unet}", "direction=0", "strength=1", "model.sampler.num_steps=3"
    )


@pytest.mark.matrix
def test_the_best_of_several_is_what_a_judge_finds_best(
    gan: Path, judge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = ("sample", f"run={gan}", "n=4", f"judge={judge}", "label=3")
    told, line = said(capsys, *typed, "best_of=5", f"out={tmp_path / 'a.npz'}")
    assert re.match(r"each the best of 5 by Classifier [0-9a-f]{16}: 20 candidates, 20 evaluations", told)
    said(capsys, *typed, "best_of=5", "batch_size=1", f"out={tmp_path / 'b.npz'}")
    with np.load(written(line)) as a, np.load(tmp_path / "b.npz") as b:
        assert np.abs(a["images"].astype(int) - b["images"]).max() <= 1
    run = train(*small("model=gan"), outputs=tmp_path)
    shown = said(capsys, "evaluate", f"run={run}", f"judge={judge}", "best_of=3", "metrics=[label_accuracy]", "n=20")
    plain = said(capsys, "evaluate", f"run={run}", "metrics=[label_accuracy]", "n=20")
    assert shown[-1].split(":")[0] != plain[-1].split(":")[0], "another protocol"
    assert 'evaluations_per_sample": 3.0' in written(shown[-1]).read_text()


@pytest.mark.matrix
def test_attributes_are_typed_and_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(*small(*NUMBERS), "metrics=[attribute_error]", outputs=tmp_path)
    line = said(capsys, "sample", f"run={run}", "attributes=size=1,x=0.25", "n=2")
    assert (written(line[0]).read_text()) == "size=1,x=0.25\n" * 2
    wrong = {"size=1": "x is missing", "size=1,x=1.5": "x=1.5 is outside [0, 1]", "y=1": "there is no attribute 'y'"}
    for typed, shown in wrong.items():
        assert shown in refusal("sample", f"run={run}", f"attributes={typed}")
    said(capsys, "sample", f"run={run}", "attributes=size=0.5,x=0.5", "n=2")
    told = said(capsys, "evaluate", f"run={run}", "n=8")
    assert "attribute_missing_8" in told[0]
    shown = refusal("directions", f"run={run}", "method=label", "judge=scenes")
    assert "no latent to move" in shown or "middle of a U-Net" in shown
    config = read_config(run)
    assert isinstance(load_judge("scenes", config["spec"], run), SceneJudge)
    assert label_kind(config["spec"]["condition"]).size == 4


@pytest.mark.matrix
def test_what_the_commands_refuse(gan: Path, judge: Path, tmp_path: Path) -> None:
    of_gan = ("directions", f"run={gan}")
    draws = ("sample", f"run={gan}")
    for typed, shown in (
        ((*of_gan, "count=99"), "has 8 dimensions. Use count=8"),
        ((*of_gan, "columns=4"), "Use columns=5"),
        ((*of_gan, "method=magic"), "method must be sefa, pca or label"),
        ((*of_gan, "judge=x"), "Use method=label, or leave judge= out"),
        ((*of_gan, "label=1"), "Use method=label, or leave label= out"),
        ((*of_gan, "samples=3"), "Use samples=10"),
        ((*of_gan, "method=label"), "judge=outputs/<a run of model=classifier>"),
        ((*of_gan, "method=label", f"judge={gan}"), "a GAN judges no pictures"),
        ((*of_gan, "method=label", "judge=scenes"), "reads captions, and the data of"),
        ((*draws, "direction=0"), "Add strength=2"),
        ((*draws, "strength=1"), "Add direction=0"),
        ((*draws, "best_of=4"), "Add judge=outputs/"),
        ((*draws, f"judge={judge}"), "Add best_of=8"),
        ((*draws, "best_of=1", f"judge={judge}"), "best_of must be a whole number >= 2"),
        ((*draws, "best_of=4", f"judge={judge}"), "Name the class that is wanted, label=0"),
        ((*draws, "direction=a,b", "strength=1"), ""),
        ((*draws, "direction=[0.5]", "strength=1"), "direction must be a number or a label"),
        ((*draws, "frames=2", "direction=0", "strength=1"), "Leave direction= out"),
        ((*draws, "project=x.png", "direction=0", "strength=1"), "Leave direction= out"),
        (("evaluate", f"run={gan}", "best_of=4", f"judge={judge}"), "Leave best_of= and judge= out"),
        (("evaluate", f"run={gan}", "best_of=4"), "go together"),
        (("directions", f"run={judge}"), "a Classifier, which draws no pictures"),
    ):
        assert shown in refusal(*typed), typed
    command_line([*of_gan, "method=sefa", "count=2", "columns=3", "n=1"])
    for typed, shown in ((("direction=2", "strength=1"), "Known: 0 to 1. Use direction=0"),
                         (("direction=[0,1]", "strength=[1,2,3]"), "Use one, or one for each")):  # fmt: skip
        assert shown in refusal(*draws, *typed)
    other = train(*small("model=gan", "model.latent_dim=4"), outputs=tmp_path)
    assert "has no directions yet" in refusal("sample", f"run={other}", "direction=0", "strength=1")


@pytest.mark.matrix
def test_labels_that_are_not_there(tmp_path: Path) -> None:
    plain = train(*small("data=array", f"data.path={_array(tmp_path)}", "model=vae"), outputs=tmp_path / "runs")
    assert "have no labels. Use method=pca" in refusal("directions", f"run={plain}", "method=label")
    run = train(*small("model=vae"), outputs=tmp_path / "labelled")
    assert "no label divides 12 examples" in refusal("directions", f"run={run}", "method=label", "samples=12")
    shown = refusal("directions", f"run={run}", "method=label", "samples=12", "label=1")
    assert "label=1: " in shown
    assert "Use samples=48" in shown


def _array(folder: Path) -> Path:
    np.save(folder / "x.npy", np.random.default_rng(0).integers(0, 256, (60, 16, 16, 1), dtype=np.uint8))
    return folder / "x.npy"


@pytest.mark.matrix
def test_a_model_of_text_has_no_directions(tmp_path: Path) -> None:
    run = train(*small("data=python_docs", "model=transformer"), outputs=tmp_path)
    assert "draws no pictures" in refusal("directions", f"run={run}")
    typed = ("sample", f"run={run}", "n=1")
    assert "Leave direction= out" in refusal(*typed, "direction=0", "strength=1")
    assert "Leave attributes= out" in refusal(*typed, "attributes=x=1")

"""The command ``edit``: what it reads, says, writes and refuses."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from genlab.cli import run as command_line
from genlab.command.options import OPTIONS, edited
from genlab.editing.picture import box_mask, extended, kept_box, read, seen
from genlab.errors import ConfigError, DataError, GenlabError
from tiny_run import small, train

SIDE = 16


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of diffusion, conditioned on labels."""
    return train(*small("model=diffusion", "model/network=mlp"), outputs=tmp_path_factory.mktemp("edit"))


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures a and b, of the size of the model's, c that is larger, and masks."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for name, size in (("a", (SIDE, SIDE)), ("b", (SIDE, SIDE)), ("c", (40, 60, 3))):
        Image.fromarray(generator.integers(0, 256, size, dtype=np.uint8)).save(f"{name}.png")
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for name, rows in (("none", 0), ("upper", 8), ("all", SIDE)):
        mask[:rows] = 255
        Image.fromarray(mask).save(f"{name}.png")
    Image.fromarray(mask[:9, :9]).save("odd.png")
    Path("broken.png").write_bytes(Path("a.png").read_bytes()[:60])


def said(capsys: pytest.CaptureFixture[str], *typed: str) -> list[str]:
    capsys.readouterr()
    command_line(["edit", *typed])
    return capsys.readouterr().out.strip().splitlines()


def refusal(*typed: str) -> str:
    with pytest.raises(GenlabError) as caught:
        command_line(["edit", *typed])
    return str(caught.value)


def pixels(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_known_pixels_are_the_files(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, f"run={run}", "image=a.png", "mask=upper.png", "n=3", "out=x.npz")
    assert lines == ["3 of inpaint, 11 evaluations of the network for each: x.npz"]  # 1 step of 2 ten times, and 1
    images = np.load("x.npz")["images"][..., 0]
    assert (images[:, 8:] == pixels("a.png")[8:]).all()
    assert len({image.tobytes() for image in images}) == 3
    said(capsys, f"run={run}", "image=a.png", "box=[0,0,16,8]", "n=3", "batch_size=2", "out=again.npz")
    assert np.abs(np.load("again.npz")["images"][..., 0].astype(int) - images).max() <= 1
    said(capsys, f"run={run}", "image=a.png", "mask=upper.png", "n=2", "out=parts/")
    assert sorted(path.name for path in Path("parts").iterdir()) == [
        "000000.png",
        "000001.png",
        "input.png",
        "mask.png",
    ]
    assert (pixels("parts/input.png") == pixels("a.png")).all()
    assert (pixels("parts/000001.png") == images[1]).all()


def test_a_strip_shows_the_picture_the_mask_and_results(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = said(capsys, f"run={run}", "image=a.png", "mask=upper.png", "label=[1,2]")
    strip = pixels(line.rpartition(": ")[2])
    assert strip.shape == (3 * SIDE, 3 * (4 * (SIDE + 1) - 1))  # enlarged, with lines between
    assert (strip[::3, : 3 * SIDE : 3] == pixels("a.png")).all()
    assert (strip[: 3 * 8, 3 * (SIDE + 1) : 3 * (2 * SIDE + 1)] == 255).all()


def test_masks_of_one_color_are_said(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, f"run={run}", "image=a.png", "mask=none.png", "n=1", "out=x.npz")
    assert "nothing to replace" in lines[0]
    assert (np.load("x.npz")["images"][0, :, :, 0] == pixels("a.png")).all()
    lines = said(capsys, f"run={run}", "image=a.png", "mask=all.png", "label=3", "n=2", "seed=5", "out=x.npz")
    assert "results are samples" in lines[0]
    command_line(["sample", f"run={run}", "label=3", "n=2", "seed=5", "out=y.npz"])
    assert (np.load("x.npz")["images"] == np.load("y.npz")["images"]).all()


def test_strength_0_keeps_the_picture(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for strength, same in (("0", True), ("0.5", False)):
        said(capsys, f"run={run}", "image=a.png", f"strength={strength}", "out=x.npz")
        assert (np.load("x.npz")["images"][..., 0] == pixels("a.png")).all() == same


def test_a_strength_of_other_methods(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for typed in (("box=[0,0,16,8]", "label=3", "resamplings=1"), ("source_label=1", "label=3", "steps=6")):
        distance = []
        for strength in ("0", "0.3", "1"):
            (line,) = said(capsys, f"run={run}", "image=a.png", *typed, f"strength={strength}", "n=1", "out=x.npz")[-1:]
            distance.append(np.abs(np.load("x.npz")["images"][0, :, :, 0].astype(int) - pixels("a.png")).mean())
            assert (" 0 evaluations" in line) == (strength == "0")
        assert distance[0] < 0.01
        assert distance == sorted(distance)
    typed = ("source_label=1", "label=3", "steps=6", "n=2", "out=x.npz")
    said(capsys, f"run={run}", "image=a.png", "mask=upper.png", *typed)
    found = np.load("x.npz")["images"][..., 0]
    assert (found[:, 8:] == pixels("a.png")[8:]).all()
    assert (found[:, :8] != pixels("a.png")[:8]).any()
    lines = said(capsys, f"run={run}", "image=a.png", "mask=none.png", *typed)
    assert "nothing to replace" in lines[0]
    assert (np.load("x.npz")["images"][..., 0] == pixels("a.png")).all()
    lines = said(capsys, f"run={run}", "image=a.png", "mask=all.png", "strength=0.3", "n=1", "out=x.npz")
    assert not any("results are samples" in line for line in lines)


def test_noise_is_written_and_guidance_warned_of(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    typed = (f"run={run}", "image=a.png", "source_label=1", "label=[1,2]", "steps=4", "out=x.png")
    lines = said(capsys, *typed)
    assert lines[0] == "the noise of the picture: x.safetensors"
    noise = load_file("x.safetensors")["noise"]
    assert noise.shape == (1, 1, SIDE, SIDE)
    said(capsys, *typed[:-1], "out=x.npz")
    found = np.load("x.npz")
    assert (found["noise"] == noise.numpy()).all()
    assert (found["images"][0] != found["images"][1]).any()
    said(capsys, f"run={run}", "image=a.png", "method=invert", "out=x.npz")
    error = np.load("x.npz")["images"][0, :, :, 0].astype(float) - pixels("a.png")
    assert 20 * np.log10(255 / max(np.sqrt((error**2).mean()), 1e-9)) >= 35  # dB, by 40 steps
    with pytest.warns(UserWarning, match=r"strength=2.* For the same picture use model/guidance=none\."):
        said(capsys, *typed, "model.guidance=2")
    said(capsys, *typed, "model/guidance=none")  # as advised, without a warning


def test_a_way_between_two_pictures(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, f"run={run}", "image=[a.png,b.png]", "n=4", "steps=2", "label=[1,2]", "out=x.gif")
    assert lines[-1].startswith("4 of interpolate")
    with Image.open("x.gif") as video:
        assert video.n_frames == 6  # and back
        assert video.info["duration"] == 100


def test_pictures_are_restored(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for method in ("ddrm",):
        lines = said(capsys, f"run={run}", "image=c.png", "super_resolution=4", f"method={method}", "n=2", "out=x.npz")
        assert lines[:2] == [
            "the small picture is 4x4, and results are 16x16.",
            "c.png is 60x40: its centered 40x40 are resized to 4x4.",
        ]
        small_one = read(Path("c.png"), (1, 4, 4), 8).pixels[0].numpy()
        means = np.load("x.npz")["images"][0, :, :, 0].reshape(4, 4, 4, 4).mean(axis=(1, 3))
        inside = (small_one > 60) & (small_one < 190)  # where few pixels of a mean are clamped
        assert np.abs(means - small_one)[inside].mean() < 40
        said(capsys, f"run={run}", "image=a.png", "mask=upper.png", f"method={method}", "out=x.npz")
        assert (np.load("x.npz")["images"][:, 8:, :, 0] == pixels("a.png")[8:]).all()
    said(capsys, f"run={run}", "image=a.png", "deblur=1", "noise=4", "n=1", "out=x.npz")


def test_a_picture_is_extended(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, f"run={run}", "image=c.png", "extend=[4,0,4,0]", "n=1", "out=x.npz")
    assert lines[0] == "c.png is shrunk to 8x16, inside the 16x16 of the model."
    inner = read(Path("c.png"), (1, SIDE, 8), 8).pixels[0].numpy()
    assert (np.load("x.npz")["images"][0, :, 4:12, 0] == inner).all()
    with pytest.raises(ConfigError, match=r"leaves nothing .* such as extend=\[4,0,4,0\]"):
        extended(Path("c.png"), [8, 0, 8, 0], (1, SIDE, SIDE), 8)


def test_a_mask_is_cropped_with_its_picture() -> None:
    assert kept_box((40, 60), (16, 16)) == (0.0, 10.0, 40.0, 50.0)
    assert kept_box((60, 40), (16, 8)) == (0.0, 5.0, 60.0, 35.0)
    white = torch.zeros(40, 60, dtype=torch.bool)
    white[20, 30] = white[0, 5] = True  # in the middle, and where it is cut off
    found = seen(white, (1, 8, 8))
    assert found.nonzero().tolist() == [[0, 4, 4]]
    assert torch.equal(box_mask([30, 20, 31, 21], (40, 60), (1, 8, 8)), found)
    assert seen(torch.eye(2, dtype=torch.bool), (1, 4, 4)).sum() == 8
    for box in ([0, 0, 61, 1], [3, 0, 3, 9], [-1, 0, 3, 3]):
        with pytest.raises(ConfigError, match=r"which is 60x40\. Use box=\[0,0,60,40\] for all"):
            box_mask(box, (40, 60), (1, 8, 8))


REFUSED = (
    (("image=a.png", "mask=odd.png"), r"odd\.png is 9x9, .* 16x16\. Name a mask .* box=\[0,0,8,16\]$"),
    (("image=a.png", "super_resolution=3"), r"which is no multiple\. .* super_resolution=2"),
    (("image=c.png", "mask=odd.png"), r"of 60x40, or of 16x16, as the model sees it; .* box=\[0,0,30,40\]$"),
    (("image=broken.png", "strength=1"), "image=broken.png is not a picture that can be read"),
    (("image=a.png", "mask=nowhere.png"), "mask=nowhere.png is not a picture that can be read: no such file"),
    (("image=a.png", "colorize=true"), "are not RGB"),
    (("image=a.png", "strength=0.5", "prompt=x"), "takes no prompt"),
    (("image=a.png", "strength=0.5", "label=12"), "label=12"),
    (("image=a.png", "mask=upper.png", "out=x.jpg"), r"Use out=x\.png"),
    (
        ("image=a.png", "method=invert", "model/sampler=consistency", "model/objective=consistency"),
        "the end of the ODE",
    ),
)


@pytest.mark.parametrize(
    ("typed", "line"),
    [pytest.param(*row, marks=[pytest.mark.matrix] if i > 1 else []) for i, row in enumerate(REFUSED)],
)
def test_what_is_refused(run: Path, typed: tuple[str, ...], line: str) -> None:
    assert re.search(line, refusal(f"run={run}", *typed))


def chosen(**typed: Any) -> str:
    options = {name: default for name, (default, _) in OPTIONS["edit"].items()}
    return edited(options | {"run": "x", "image": ["a.png"]} | typed)


def test_the_method_follows_from_the_options() -> None:
    for typed, method in (
        ({"mask": "m.png"}, "inpaint"),
        ({"box": [0, 0, 1, 1]}, "inpaint"),
        ({"extend": [1, 0, 1, 0], "resamplings": 3}, "inpaint"),
        ({"strength": 0.5}, "sdedit"),
        ({"strength": 0.0}, "sdedit"),
        ({"mask": "m.png", "strength": 0.5}, "inpaint"),
        ({"source_label": [1], "strength": 0.5}, "invert"),
        ({"source_label": [1], "mask": "m.png"}, "invert"),
        ({"source_label": [1], "label": [2]}, "invert"),
        ({"image": ["a.png", "b.png"]}, "interpolate"),
        ({"super_resolution": 2}, "ddrm"),
        ({"colorize": True}, "ddrm"),
        ({"deblur": 1.0, "noise": 2.0}, "ddrm"),
        ({"mask": "m.png", "method": "dps", "strength": 2.0}, "dps"),
        ({"method": "invert"}, "invert"),
    ):
        assert chosen(**typed) == method
    for typed, line in (
        ({}, r"edit needs to know what should change\. Name it, such as mask=mask\.png"),
        ({"mask": "m.png", "box": [0, 0, 1, 1]}, r"mask and box is given\. Name one: mask=mask\.png"),
        ({"method": "invert", "mask": "m.png", "box": [0, 0, 1, 1]}, r"both are given\. Leave box= out"),
        ({"source_label": [1], "extend": [1, 0, 1, 0]}, r"extend=\[1, 0, 1, 0\] is of method=inpaint"),
        ({"method": "inpaint"}, r"nothing of that is given\. Name one"),
        ({"method": "ddrm"}, r"or super_resolution=4, colorize=true or deblur=1\.5"),
        ({"method": "sdedit"}, r"how much may change\. Say it: strength=0\.5"),
        ({"strength": 1.5}, r"Use strength=1 or less"),
        ({"mask": "m.png", "strength": 1.5}, r"Use strength=1 or less"),
        ({"extend": [1, 0, 1, 0], "strength": 0.5}, r"adds what is not there\. Leave strength= out"),
        ({"strength": 0.5, "steps": 3}, r"steps=3 is of method=inpaint or method=invert .*Leave steps= out of"),
        ({"image": ["a.png", "b.png"], "n": 1}, r"Use n=2 or more"),
        ({"image": ["a.png", "b.png"], "method": "sdedit", "strength": 1.0}, "takes one picture"),
        ({"method": "interpolate"}, r"takes two pictures\. Write image=\[a\.png,b\.png\]"),
        ({"strength": 0.5, "out": "x.gif"}, r"Use out=edited\.png"),
        ({"image": ["a.png", "b.png"], "fps": 5}, r"Name one: out=way\.gif"),
    ):
        with pytest.raises(ConfigError, match=line):
            chosen(**typed)


def test_values_of_another_kind() -> None:
    for typed, line in (
        ("method=magic", "method must be inpaint, sdedit, invert, interpolate, ddrm or dps"),
        ("box=[1,2,3]", r"box must be four whole numbers, \[x0,y0,x1,y1\]"),
        ("extend=[1,2,3,4.5]", r"\[left,top,right,bottom\]"),
        ("strength=-1", "strength must be a number >= 0"),
        ("deblur=x", "deblur must be a number >= 0"),
        ("super_resolution=1", "super_resolution must be a whole number >= 2"),
        ("resamplings=0", "resamplings must be a whole number >= 1"),
        ("source_label=[]", "source_label must be a class"),
    ):
        assert re.search(line, refusal("run=x", "image=a.png", typed)), typed
    assert "image has no value. Set it: image=picture.png" in refusal("run=x")
    with pytest.raises(DataError, match=r"image=odd\.txt is not a picture"):
        read(Path("odd.txt"), (1, 8, 8), 8)


@pytest.mark.matrix
def test_a_model_that_always_knows_its_class_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(*small("model=gan"), outputs=tmp_path)
    typed = (f"run={run}", "image=a.png", "mask=upper.png", "steps=2", "n=1", "out=x.npz")
    assert refusal(*typed).endswith("Name the one of the picture: label=...")
    lines = said(capsys, *typed, "label=3")
    assert lines[-1] == "1 of inpaint, 3 evaluations of the network for each: x.npz"
    assert (np.load("x.npz")["images"][:, 8:, :, 0] == pixels("a.png")[8:]).all()
    assert "method=sdedit needs a denoiser, and a GAN has none" in refusal(f"run={run}", "image=a.png", "strength=0.5")

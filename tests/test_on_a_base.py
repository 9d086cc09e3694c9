"""Families that are put on a run of another keep the contract too: they train, save, are stopped and go on bit-exactly,
alone and in pairs, and what they are put on stays as it was."""

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from genlab.checkpoint import read
from genlab.cli import run as command_line
from genlab.command.train import Interrupted
from genlab.errors import ConfigError, DataError
from genlab.model.control import Control
from genlab.run import run_folder
from genlab.run.load import load_run
from genlab.sampling.draw import sample_images
from test_contract import STOPS, TRAIN_ALL, state
from test_ddp import finish
from tiny_run import CAPTIONS, UNET, SignalAt, only_run, popen, resume, same, small, train

DIT = ("model/network=dit", "model.network.width=16", "model.network.num_heads=2", "model.network.depth=2")
OF_SCENES = (*CAPTIONS, "data.layout=true")
BASES = {
    "digits": small("model=diffusion", *UNET, "model/optimizer=adamw"),
    "scenes": small("model=diffusion", *DIT, *CAPTIONS, "model.conditions=[caption]", "model/optimizer=adamw"),
}
PRIOR = ("model/adapter=lora", "model.adapter.rank=2", "model.prior_weight=1", "model.prior_samples=4",
         "model.prior_prompt=a circle")  # fmt: skip
RUNS: dict[str, tuple[str, tuple[str, ...]]] = {  # the base, and what is put on it
    "edges": ("digits", ("model=control", "model.optimizer.lr=0.1")),
    "mask": ("digits", ("model=control", "model/hint=mask", "model.condition_dropout=0.5")),
    "layout": ("scenes", ("model=control", "model/hint=layout", "model.optimizer.lr=0.1", *OF_SCENES)),
    "word": ("scenes", ("model=concept", *CAPTIONS, "model.prompts=[a sks]")),
    "personal": ("scenes", ("model=concept", *CAPTIONS, "model.prompts=[a sks]", *PRIOR)),
}
QUICK = ("word",)  # of `make test`
EACH = [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.matrix]) for name in RUNS]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @cache
    def run(name: str) -> Path:
        return train(*BASES[name], "budget.value=40", outputs=tmp_path_factory.mktemp(name))

    return run


@pytest.fixture(scope="module")
def never_stopped(base: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    @cache
    def run(name: str) -> Path:
        return train(*choices(name, base), outputs=tmp_path_factory.mktemp(name))

    return run


def choices(name: str, base: Any) -> tuple[str, ...]:
    below, given = RUNS[name]
    return (*small(*given), f"model.base={base(below)}")


def own(run: Path) -> Any:
    return load_run(OmegaConf.create(run_folder.read_config(run)), run)[0]


@pytest.mark.parametrize("name", EACH)
def test_the_base_stays_as_it_was_and_is_not_in_checkpoints(name: str, base: Any, never_stopped: Any) -> None:
    run = never_stopped(name)
    model, below = own(run), own(base(RUNS[name][0]))
    weights = below.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in model.base.state_dict().items())
    last = read.newest(run)
    trained = {key for key, p in model.named_parameters() if p.requires_grad}
    assert {*last.content["ema"]} == trained
    assert {*last.state} == trained | {"is_copied" if isinstance(model, Control) else "has_begun"}
    images = sample_images(model, range(3), seed=1)
    assert images.shape == (3, *model.shape)
    assert torch.equal(sample_images(model, range(1, 3), seed=1), images[1:])
    spent = json.loads((run / "summary.json").read_text())
    assert model.progress.flops > 0
    assert spent["metrics"] == {}


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize("stop", [pytest.param(s, marks=pytest.mark.matrix) for s in STOPS.values()])
def test_stopped_and_continued(name: str, stop: int, base: Any, never_stopped: Any, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(*choices(name, base), SignalAt.override(stop), outputs=tmp_path)
    run = only_run(tmp_path)
    assert read.newest(run).progress.examples == stop + 8
    resume(run)
    assert same(state(run), state(never_stopped(name)))


@pytest.mark.matrix
def test_two_processes(base: Any, never_stopped: Any, tmp_path: Path) -> None:
    """They train through the same examples; without noise of their own, to the same weights."""
    (tmp_path / "train_all.py").write_text(TRAIN_ALL)
    (tmp_path / "runs.json").write_text(json.dumps({name: choices(name, base) for name in RUNS}))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
               str(tmp_path / "train_all.py"), str(tmp_path / "runs.json"), str(tmp_path)]  # fmt: skip
    finish(popen(command), seconds=400)
    for name in RUNS:
        together, alone = read.newest(only_run(tmp_path / name)), read.newest(never_stopped(name))
        assert together.progress.examples == alone.progress.examples == 104
        assert {k: v.shape for k, v in together.state.items()} == {k: v.shape for k, v in alone.state.items()}
        assert all(torch.isfinite(value).all() for value in together.state.values())


@pytest.mark.matrix
@pytest.mark.parametrize("name", RUNS)
def test_a_whole_run_with_grids_and_an_evaluation(name: str, base: Any, tmp_path: Path) -> None:
    measured = ("metrics=[fid]", "metrics/extractor=random", "callbacks.evaluation.num_samples=4",
                "callbacks.samples.times=1")  # fmt: skip
    run = train(*choices(name, base), *measured, "data.limit=16", "budget.value=16", outputs=tmp_path)
    assert json.loads((run / "summary.json").read_text())["metrics"]
    hints = [*(run / "samples").glob("hints-*.png")]
    assert bool(hints) == ("control" in RUNS[name][1][0])


def sampled(run: Path, *options: str) -> np.ndarray:
    out = run / "drawn.npz"
    command_line(["sample", f"run={run}", "n=2", f"out={out}", *options])
    with np.load(out) as arrays:
        images: np.ndarray = arrays["images"]
    return images


@pytest.mark.matrix
def test_hints_are_read_from_pictures(base: Any, never_stopped: Any, tmp_path: Path) -> None:
    picture, layout, color = (tmp_path / f"{name}.png" for name in ("picture", "layout", "color"))
    Image.fromarray((np.eye(24) * 255).astype(np.uint8)).save(picture)
    Image.fromarray(np.eye(16, dtype=np.uint8) * 6).save(layout)
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(color)
    run, scenes = never_stopped("edges"), never_stopped("layout")
    plain = sampled(run, "label=3")
    assert np.array_equal(plain, sampled(base("digits"), "label=3"))  # without a hint it is the base
    assert not np.array_equal(sampled(run, "label=3", f"hint={picture}"), plain)
    assert np.array_equal(sampled(run, "label=3", f"hint={picture}", "model.strength=0"), plain)
    assert not np.array_equal(sampled(scenes, "prompt=a circle", f"hint={layout}"), sampled(scenes, "prompt=a circle"))
    with pytest.raises(DataError, match=r"a layout is a gray picture of 16x16 pixels .* this one is 16x16 of mode RGB"):
        sampled(scenes, f"hint={color}")
    Image.fromarray(np.full((16, 16), 7, np.uint8)).save(layout)
    with pytest.raises(ConfigError, match=r"a layout has the class 7, and those of the data are 0 to 6"):
        sampled(scenes, f"hint={layout}")
    with pytest.raises(ConfigError, match=r"takes no hint\. It takes label="):
        sampled(base("digits"), f"hint={picture}")


@pytest.mark.matrix
def test_adapters_of_several_runs(base: Any, never_stopped: Any, tmp_path: Path) -> None:
    """Each is what its own run has; of weight 0, nothing; and the sum of two is that of their weights."""
    from genlab.run.adapters import add_adapters

    below = base("scenes")
    given = (*BASES["scenes"], "model/adapter=lora", "model.adapter.rank=2", f"start={below}", "budget.value=40",
             "model.optimizer.lr=1e-2")  # fmt: skip
    runs = [train(*given, f"seed={seed}", outputs=tmp_path / str(seed)) for seed in (1, 2)]
    first, second = map(str, runs)
    fresh = str(train(*given, "model.optimizer.lr=0", outputs=tmp_path / "fresh"))

    def weights(*adapters: str, factors: Any = None) -> dict[str, torch.Tensor]:
        model = own(below)
        add_adapters(model, below, adapters, factors)
        return dict(model.state_dict())

    before = own(below).state_dict()
    assert same(weights(fresh), dict(before))
    assert same(weights(first, second, factors=[0.0, 0.0]), dict(before))
    one, other, both = weights(first), weights(second), weights(first, second, factors=[1.0, -0.5])
    assert any(not torch.equal(one[name], before[name]) for name in before)
    for name, value in both.items():
        expected = before[name] + (one[name] - before[name]) - 0.5 * (other[name] - before[name])
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-5)
    x, sigma = torch.randn(2, 3, 16, 16), torch.tensor([0.5, 3.0])
    model = own(below)
    add_adapters(model, below, [first], None)
    with torch.no_grad():
        torch.testing.assert_close(model.denoiser(None)(x, sigma), own(runs[0]).denoiser(None)(x, sigma))
    personal, word = (str(never_stopped(name)) for name in ("personal", "word"))
    drawn = sampled(below, "prompt=a sks", f"adapters=[{personal}]")
    assert np.abs(drawn.astype(int) - sampled(Path(personal), "prompt=a sks")).max() <= 1
    assert sampled(Path(personal), "prompt=a sks", f"adapters=[{first}]", "adapter_weights=0.5").shape == drawn.shape
    refused = {
        f"adapters=[{below}]": "it has no adapter. Name a run of model/adapter=lora, or of model=concept",
        f"adapters=[{first},{second}] adapter_weights=[1]": "there are 1, and of adapters 2. Give one to each",
        f"adapters=[{personal},{word}]": "the model knows the word sks already. Leave it out",
        f"adapters=[{first}] adapter_weights=[x]": "adapter_weights must be a number for each",
    }
    for options, message in refused.items():
        with pytest.raises(ConfigError) as error:
            sampled(below, *options.split())
        assert message in str(error.value)
    with pytest.raises(ConfigError, match=r"has not the network that it was trained on"):
        sampled(base("digits"), f"adapters=[{first}]")
    resume(below, "budget.value=80")  # it goes on: other weights
    with pytest.raises(
        ConfigError, match=r"it was trained on other weights than those of .* Name the run that it began"
    ):
        sampled(below, f"adapters=[{first}]")


@pytest.mark.matrix
@pytest.mark.parametrize("family", ["control", "concept"])
def test_what_is_no_base_is_refused(family: str, base: Any, tmp_path: Path) -> None:
    other = train(*small("model=vae"), "budget.value=8", outputs=tmp_path)
    with pytest.raises(ConfigError, match=r"model\.base=.*: a VAE is not a diffusion model\. Name a run of model=diff"):
        command_line(["train", f"model={family}", f"model.base={other}", "data=digits"])
    with pytest.raises(ConfigError, match=r"model\.base has no value"):
        command_line(["train", f"model={family}", "data=digits"])
    below = base("digits")
    with pytest.raises(ConfigError, match=r"trained on images of shape \(1, 16, 16\), the data have \(3, 32, 32\)"):
        command_line(["train", f"model={family}", f"model.base={below}", "data=shapes"])

"""Sampling and measuring a trained run: the same seed, the same pictures, whatever the batch size."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image

from genlab import cli
from genlab.cli import main
from genlab.command import sample as sample_command
from genlab.errors import ConfigError
from genlab.model.condition import Conditions
from genlab.model.condition_kind import Label
from genlab.run import run_folder
from genlab.run.load import load_run
from genlab.sampling.asked import read_typed
from genlab.sampling.draw import asked_of
from tiny_run import MLP, train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(*MLP, outputs=tmp_path_factory.mktemp("outputs"))


def config_of(run: Path) -> DictConfig:
    return DictConfig(run_folder.read_config(run))


def sample(run: Path, out: Path, *overrides: str) -> np.ndarray:
    main(["sample", f"run={run}", f"out={out}", *overrides])
    return np.load(out)["images"]


def test_same_seed_same_images_on_any_batch_size(run: Path, tmp_path: Path) -> None:
    first = sample(run, tmp_path / "a.npz", "n=20", "seed=3", "batch_size=1")
    assert first.shape == (20, 16, 16, 1)
    assert first.dtype == np.uint8
    for batch_size in (7, 64):
        again = sample(run, tmp_path / "b.npz", "n=20", "seed=3", f"batch_size={batch_size}")
        assert np.array_equal(first, again)
    assert not np.array_equal(first, sample(run, tmp_path / "c.npz", "n=20", "seed=4"))
    assert np.array_equal(first[:5], sample(run, tmp_path / "d.npz", "n=5", "seed=3"))


def test_names_of_classes_do_not_steer_the_terminal(monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    steers = "\x1b]0;owned\x07\x1b[2J\x9b31m\nerror"

    class Named(torch.nn.Module):
        conditions = Conditions({"label": Label(2, (f"cat{steers}", steers))})

    def ask(_: list[str]) -> None:
        read_typed(Named(), {"label": ["cats"]}, Path("run"))  # type: ignore[arg-type]

    monkeypatch.setattr(cli, "run", ask)
    with pytest.raises(SystemExit):
        main(["sample"])
    said = capfd.readouterr()
    assert len((said.out + said.err).splitlines()) == 1
    assert "owned" in said.err
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", said.out + said.err)


def test_float_samples_agree(run: Path) -> None:
    from genlab.seeding import RandomStream

    model, weights = load_run(config_of(run), run)
    assert weights == "ema"
    label = torch.arange(7)
    together = model.sample(7, {"label": label}, RandomStream.for_samples(1, range(7)))
    alone = torch.cat(
        [model.sample(1, {"label": label[i : i + 1]}, RandomStream.for_samples(1, [i])) for i in range(7)]
    )
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-5)


def test_label(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from genlab.model.diffusion import Diffusion

    asked: list[int] = []
    original = Diffusion.sample

    def spy(self: Any, num_samples: int, condition: Any = None, generator: Any = None) -> Any:
        asked.extend(condition["label"].tolist())
        return original(self, num_samples, condition, generator)

    monkeypatch.setattr(Diffusion, "sample", spy)
    sample(run, tmp_path / "a.npz", "n=12", "label=3")
    assert asked == [3] * 12
    asked.clear()
    sample(run, tmp_path / "a.npz", "n=12")
    assert asked == [i % 10 for i in range(12)]


@pytest.mark.parametrize("label", [-1, 10])
def test_a_label_that_is_not_there(label: int, run: Path) -> None:
    with pytest.raises(ConfigError, match="must be a class from 0 to 9"):
        sample_command.sample(
            config_of(run), run, n=1, seed=0, label=[label], prompt=None, image=None, batch_size=1, out=None
        )


def test_another_sampler_and_guidance(run: Path, tmp_path: Path) -> None:
    usual = sample(run, tmp_path / "a.npz", "n=4")
    heun = sample(run, tmp_path / "b.npz", "n=4", "model/sampler=heun", "model.sampler.num_steps=4")
    guided = sample(run, tmp_path / "c.npz", "n=4", "model.guidance=5")
    assert not np.array_equal(usual, heun)
    assert not np.array_equal(usual, guided)
    assert np.array_equal(usual, sample(run, tmp_path / "d.npz", "n=4")), "the run itself is as it was"


def test_where_samples_go(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["sample", f"run={run}", "n=6", f"out={tmp_path / 'folder'}"])
    assert [path.name for path in sorted((tmp_path / "folder").iterdir())] == [f"{i:06d}.png" for i in range(6)]
    with Image.open(tmp_path / "folder" / "000002.png") as picture:
        assert np.array_equal(np.array(picture), sample(run, tmp_path / "a.npz", "n=6")[2, ..., 0])
    main(["sample", f"run={run}", "n=6", f"out={tmp_path / 'grid.png'}"])
    assert (tmp_path / "grid.png").exists()
    capsys.readouterr()
    main(["sample", f"run={run}", "n=6", "seed=2", "label=1"])
    assert capsys.readouterr().out == f"6 samples: {run / 'samples' / 'seed=2-n=6-label=1.png'}\n"
    assert (run / "samples" / "seed=2-n=6-label=1.png").exists()


def test_classes_are_asked_for_by_number_and_name_in_turn(run: Path) -> None:
    model, _ = load_run(config_of(run), run)
    model.conditions = Conditions({"label": Label(10, [f"class {i}" for i in range(10)])})
    found = read_typed(model, {"label": [3, "class 7"]}, run)  # type: ignore[arg-type]
    assert found["label"].tolist() == [3, 7]
    asked = asked_of(model, range(5), found)  # type: ignore[arg-type]
    assert asked is not None
    assert asked["label"].tolist() == [3, 7, 3, 7, 3]
    with pytest.raises(ConfigError, match=r"label=clas 7: there is no class 'clas 7'\. Did you mean 'class 7'\?"):
        read_typed(model, {"label": ["clas 7"]}, run)  # type: ignore[arg-type]

"""What evaluations and grids need is checked before the first step; what fails on the way costs a number, no run."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate

from genlab.checkpoint import read
from genlab.errors import ConfigError, DataError, GenlabError
from genlab.metrics.fid import FID
from genlab.model.sampler.grid import LogUniform
from genlab.seeding import RandomStream
from tiny_run import MLP, compose, only_run, resume, same, train

LONE = ("metrics=[intra_fid]", "evaluation.reference=train")  # of which a class has one image
EVALUATED = (
    "metrics=[fid]",
    "metrics/extractor=random",
    "callbacks.evaluation.times=2",
    "callbacks.evaluation.num_samples=4",
)


def images(folder: Path, labels: Any) -> tuple[str, ...]:
    np.savez(folder / "x.npz", images=np.random.default_rng(0).integers(0, 256, (60, 8, 8), np.uint8), labels=labels)
    return ("data=array", f"data.path={folder / 'x.npz'}", f"data.cache_dir={folder / 'cache'}")


ONCE = ("callbacks.samples.times=1", "callbacks.evaluation.times=1")


@pytest.mark.parametrize(
    ("overrides", "error", "said"),
    [
        ((*ONCE, "callbacks.samples.rows=0"), ConfigError, "rows=0, columns=2 and count=None must be at least 1"),
        ((*ONCE, "callbacks.evaluation.num_samples=0"), ConfigError, "num_samples=0 must be at least 2"),
        (("model.sampler.num_steps=0",), ConfigError, "num_steps=0 must be at least 1"),
        (("model.sampler.grid.sigma_min=90",), ConfigError, "does not fall from sigma_max to 0"),
        (("metrics=[kid]", "metrics/extractor=random", "evaluation.num_samples=2"), DataError, "KID needs at least 3"),
        ((*LONE, "metrics/extractor=random"), DataError, "intra_fid needs at least 2 examples of each"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_refused_before_there_is_a_folder(
    overrides: tuple[str, ...], error: type[GenlabError], said: str, tmp_path: Path
) -> None:
    data = images(tmp_path, np.r_[1, np.zeros(59, int)]) if "intra_fid" in overrides[0] else ()
    with pytest.raises(error, match=said) as refused:
        train(*MLP, *data, *overrides, outputs=tmp_path / "outputs")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("sampler", ["heun", "euler", "ddim", "ancestral", "dpm_solver"])
def test_one_step_ends_where_the_denoiser_says(sampler: str, tmp_path: Path) -> None:
    """From the highest level to 0 in one go, every sampler gives D(x; sigma_max) itself."""
    chosen = (f"model/sampler={sampler}", "model.sampler.num_steps=1")
    sample = instantiate(compose("model/network=mlp", *chosen, outputs=tmp_path).model.sampler)
    noise = torch.randn(3, 1, 2, 2)
    given = sample(lambda x, sigma: torch.full_like(x, 0.25), noise, RandomStream.for_samples(0, range(3)))
    torch.testing.assert_close(given, torch.full_like(noise, 0.25), rtol=0, atol=1e-4)


def test_grids_of_one_step() -> None:
    assert LogUniform()(1).tolist() == pytest.approx([80, 0])


def test_a_metric_that_fails_is_a_gap_on_the_way_and_an_error_after_all_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compute(self: FID) -> Any:
        raise ZeroDivisionError("of nothing")

    monkeypatch.setattr(FID, "compute", compute)
    given = (*MLP, "metrics=[fid,kid]", *EVALUATED[1:])
    of_it = r"metrics=fid could not be computed: ZeroDivisionError: of nothing\. All others are in .*summary\.json\."
    gap = r"metrics=fid was not computed in this evaluation: ZeroDivisionError: of nothing\."
    with pytest.warns(UserWarning, match=gap), pytest.raises(DataError, match=of_it):
        train(*given, outputs=tmp_path)
    run = only_run(tmp_path)
    assert "kid_random256_4" in json.loads((run / "summary.json").read_text())["metrics"]
    with (run / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["val/loss"]]
    assert len(rows) == 2
    assert all(row["val/kid_random256_4"] and "val/fid_random256_4" not in row for row in rows)


@pytest.mark.parametrize(
    "times", ["callbacks.samples.times=0", pytest.param("callbacks.samples.times=2", marks=pytest.mark.matrix)]
)
def test_an_evaluation_that_is_killed_leaves_what_came_before(
    times: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saved before it, the run goes on with the evaluation, to the same end."""
    from genlab.evaluation.evaluation import Evaluation

    straight = train(*MLP, *EVALUATED, times, outputs=tmp_path / "straight")
    with monkeypatch.context() as patched:
        patched.setattr(Evaluation, "run", _killed)
        with pytest.raises(Killed):
            train(*MLP, *EVALUATED, times, outputs=tmp_path / "killed")
    run = only_run(tmp_path / "killed")
    assert read.newest(run).progress.examples == 56
    resume(run)
    ours, theirs = read.newest(run).content, read.newest(straight).content
    assert all(same(ours[part], theirs[part]) for part in ("state_dict", "ema", "optimizer_states"))
    assert rows_of(run) == rows_of(straight)


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    clocks = ("progress/seconds", "speed/data_wait", "speed/mfu")
    return [{k: v for k, v in row.items() if k not in clocks} for row in table]


class Killed(BaseException):
    pass


def _killed(*_: Any, **__: Any) -> None:
    raise Killed


def test_one_class_has_variety(tmp_path: Path) -> None:
    given = (*images(tmp_path, np.zeros(60, int)), "metrics=[class_variety]", "metrics/extractor=random")
    run = train(*MLP, *given, "budget.value=8", outputs=tmp_path / "outputs")
    assert 0 <= json.loads((run / "summary.json").read_text())["metrics"]["class_variety_4"] <= 1


def test_a_cache_that_cannot_be_written_costs_no_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run = train(
        *MLP, *EVALUATED, f"evaluation.cache_dir={tmp_path / 'file' / 'x'}", "budget.value=8", outputs=tmp_path / "o"
    )
    assert json.loads((run / "summary.json").read_text())["metrics"]

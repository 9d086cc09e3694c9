"""``start=``: what a run begins with, what it leaves as it is, and what is said where the weights do not fit."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from genlab.checkpoint import read
from genlab.cli import run as command_line
from genlab.command.train import Interrupted
from genlab.errors import ConfigError
from genlab.report.names import differences
from genlab.report.runs import read_run
from genlab.run import run_folder
from genlab.run.load import load_run
from genlab.run.start import _patterns
from tiny_run import BARE, MLP, SignalAt, only_run, resume, same, small, train

VAE = small("model=vae", "model.latent_shape=[2,4,4]")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(*VAE, outputs=tmp_path_factory.mktemp("source"))


def averaged(run: Path) -> dict[str, torch.Tensor]:
    last = read.newest(run)
    return {**last.state, **last.content["ema"]}


def test_it_begins_with_the_averaged_weights(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At a learning rate of 0 they are what the run ends with; in the config is where they were, and their hash."""
    run = train(*VAE, f"start={source}", "model.optimizer.lr=0", "budget.value=8", outputs=tmp_path)
    assert same(averaged(run), averaged(source))
    assert re.search(rf"^start: +averaged weights of {source}, (\d+) of \1 tensors$", capsys.readouterr().out, re.M)
    saved = run_folder.read_config(run)["start"]
    assert saved["where"] == str(source)
    assert re.fullmatch("[0-9a-f]{64}", saved["sha256"])
    spent = read.newest(source).progress
    assert (saved["examples"], saved["flops"]) == (spent.examples, spent.flops)
    assert read_run(run).pretraining == {"examples": spent.examples, "flops": spent.flops}


@pytest.mark.matrix
def test_what_was_spent_before_is_the_sum_of_all_that_came_before(source: Path, tmp_path: Path) -> None:
    """Unless nobody knows of one of them: a run of an older version does not say."""
    first = train(*VAE, f"start={source}", "budget.value=8", outputs=tmp_path / "first")
    then = train(*VAE, f"start={first}", "budget.value=8", outputs=tmp_path / "then")
    spent = read.newest(source).progress.examples + read.newest(first).progress.examples
    assert run_folder.read_config(then)["start"]["examples"] == spent
    assert read_run(then).num_train == run_folder.read_config(then)["data"]["limit"]
    config = first / "config.yaml"
    config.write_text(re.sub(r"(?m)^  (examples|flops): .*\n", "", config.read_text()))
    last = train(*VAE, f"start={first}", "budget.value=8", outputs=tmp_path / "last")
    assert "examples" not in run_folder.read_config(last)["start"]
    assert read_run(last).pretraining is None


@pytest.mark.matrix
def test_some_of_the_weights(source: Path, tmp_path: Path) -> None:
    still = ("model.optimizer.lr=0", "budget.value=8")
    fresh = averaged(train(*VAE, *still, outputs=tmp_path / "fresh"))
    run = train(*VAE, *still, f"start={source}", "start.only=[decoder.*,*.bias]", outputs=tmp_path / "run")
    theirs = averaged(source)
    for name, value in averaged(run).items():
        taken = name.startswith("decoder.") or name.endswith(".bias")
        assert torch.equal(value, theirs[name] if taken else fresh[name]), name


FAMILIES = {
    "vae": (VAE, "encoder.*"),
    "gan": (small("model=gan"), "discriminator.blocks.0.*"),
    "transformer": (small("model=transformer", "model/optimizer=muon"), "network.blocks.0.*"),
}


@pytest.mark.matrix
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_frozen_stays_in_checkpoints_and_is_not_trained(family: str, tmp_path: Path) -> None:
    choices, pattern = FAMILIES[family]
    source = train(*choices, "budget.value=8", outputs=tmp_path / "source")
    run = train(*choices, f"start={source}", f"start.freeze=[{pattern}]", "budget.value=24", outputs=tmp_path / "new")
    last, theirs = read.newest(run), averaged(source)
    model, _ = load_run(OmegaConf.create(run_folder.read_config(run)), run)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert frozen
    assert not frozen & set(last.content["ema"])
    moments = [state for optimizer in last.content["optimizer_states"] for state in optimizer["state"].values()]
    assert len(moments) <= len(trained)
    assert all(torch.equal(last.state[name], theirs[name]) for name in frozen)
    assert any(not torch.equal(last.state[name], theirs[name]) for name in trained)


def test_a_run_that_goes_on_needs_no_other_and_ends_the_same(source: Path, tmp_path: Path) -> None:
    given = (*VAE, "start.freeze=[encoder.*]", "budget.value=32")
    straight = train(*given, f"start={source}", outputs=tmp_path / "straight")
    copy = shutil.copytree(source, tmp_path / "copy")
    with pytest.raises(Interrupted):
        train(*given, f"start={copy}", SignalAt.override(8), outputs=tmp_path / "stopped")
    shutil.rmtree(copy)
    run = only_run(tmp_path / "stopped")
    resume(run)
    assert same(dict(read.newest(run).state), dict(read.newest(straight).state))
    (ours, theirs) = (run_folder.read_config(folder)["start"]["sha256"] for folder in (run, straight))
    assert ours == theirs


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("start.freeze=[encodr.*]",), r"start\.freeze: no parameter is called encodr\.\*\..* Names are like encoder"),
        (("start.freeze=['*']",), r"start\.freeze names every parameter, so there is nothing to train"),
        (("start.only=[nothing]",), r"start\.only: nothing of the model is called nothing\."),
        (("start.only=encoder",), r"start\.only must be a list of text"),
        (("start.onyl=[a]",), r"unknown option 'start\.onyl'\. Did you mean 'start\.only'"),
    ],
)
def test_patterns_that_match_nothing_are_refused(
    more: tuple[str, ...], message: str, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(*VAE, f"start={source}", *more, outputs=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.matrix
def test_weights_that_do_not_fit_come_with_a_remedy_that_works(source: Path, tmp_path: Path) -> None:
    other = ("model.latent_shape=[3,4,4]", "budget.value=8")
    with pytest.raises(ConfigError, match=r"its weights are not those of this model \(encoder\.\S+ is ") as refused:
        train(*VAE, *other, f"start={source}", outputs=tmp_path)
    (remedy,) = re.findall(r"Take over what fits: (start\.only=\[.*\])$", str(refused.value))
    run = train(*VAE, *other, f"start={source}", remedy, "model.optimizer.lr=0", outputs=tmp_path)
    theirs, ours = averaged(source), averaged(run)
    fitting = [name for name in ours if name in theirs and ours[name].shape == theirs[name].shape]
    assert all(torch.equal(ours[name], theirs[name]) for name in fitting)
    with pytest.raises(ConfigError, match=r"None of them fits: name a run of the same model="):
        train("data=digits", "model=diffusion", *MLP, f"start={source}", outputs=tmp_path)


def test_few_patterns_name_what_fits() -> None:
    own = ["a.x", "a.y", "b.0.w", "b.0.v", "b.1.w", "c"]
    assert list(_patterns({"a.x", "a.y", "b.0.w", "c"}, own, "")) == ["a.*", "b.0.w", "c"]
    assert list(_patterns(set(own), own, "")) == ["*"]


def test_what_is_no_run_and_what_goes_on(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"there is no run here .* Its newest is start={source}\.$"):
        train(*VAE, f"start={source.parent}", outputs=tmp_path)
    with pytest.raises(ConfigError, match=r"start\.only=\[x\] needs start=outputs/"):
        train(*VAE, "start.only=[x]", outputs=tmp_path)
    for typed in (f"start={source}", "start.freeze=[x]"):
        with pytest.raises(ConfigError, match=r"a continued run uses its own weights\. Leave it out"):
            command_line(["train", f"run={source}", typed])


def test_trying_out_leaves_nothing_behind(source: Path, outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command_line(["train", *BARE, *VAE, f"start={source}", "start.freeze=[encoder.*]", "dry_run=true",
                  f"outputs={outputs}"])  # fmt: skip
    assert "dry run passed" in capsys.readouterr().out
    assert not outputs.exists()


@pytest.mark.matrix
def test_tables_tell_runs_apart_by_what_they_began_with(source: Path, tmp_path: Path) -> None:
    run = train(*VAE, f"start={source}", "budget.value=8", outputs=tmp_path)
    found = differences([read_run(source).config, read_run(run).config])
    (started,) = [difference for difference in found if difference.path == "start"]
    sha256 = run_folder.read_config(run)["start"]["sha256"]
    assert started.values[0] == ""
    assert started.values[1].startswith(f"{sha256[:6]}-{source.name[:8]}")
    assert not {"portable", "sha256"} & {d.name for d in found}

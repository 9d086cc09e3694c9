"""What trackers really received, decoded from their own files."""

import json
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml
from PIL import Image
from pytorch_lightning.loggers import Logger

from genlab.callbacks.evaluation import PeriodicEvaluation
from genlab.command.sample import sample
from genlab.command.train import train
from genlab.config.build import check
from genlab.config.tree import ConfigTree
from genlab.errors import ConfigError
from genlab.logger import tracking
from genlab.logger.isolated import IsolatedLogger
from genlab.logger.tracking import better, check_passed_on
from genlab.run.revision import revision
from tiny_run import MLP, command, compose
from wandb_file import Received

EVALUATED = ("metrics=[fid]", "metrics/extractor=digits", "evaluation.num_samples=16", "callbacks.evaluation.times=2",
             "callbacks.evaluation.num_samples=8", "callbacks.samples.times=1", "data.limit=40")  # fmt: skip


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Somebody who has not logged in, and says some things by the environment."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_ENTITY", "WANDB_DIR", "WANDB_NAME", "WANDB_RUN_GROUP"):
        monkeypatch.setenv(name, "")  # so that what is set meanwhile is undone
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "no-config"))
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.setenv("WANDB_TAGS", "a,b")
    monkeypatch.setenv("WANDB_NOTES", "as asked")
    monkeypatch.setattr("sys.argv", ["train.py"])
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.mark.usefixtures("user")
def test_what_trackers_receive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(IsolatedLogger, "patience", 100.0)  # a machine may be slow; nothing may be missing
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    (sweep / "trials.json").write_text("{}")
    asked = (*MLP, *EVALUATED, "logger=[wandb,tensorboard]", "logger.wandb.log_model=true")
    config = compose(*asked, outputs=tmp_path)
    train(config, command(*asked, outputs=tmp_path), folder=(run := sweep / "trial"))
    wandb.finish()
    wandb.teardown()  # its service has then written all of the file

    (file,) = run.glob("wandb/offline-run-*/*.wandb")
    received = Received(file)
    told = received.run
    assert (told.run_id, told.display_name) == (config.run_id, f"diffusion-digits-{config.run_id}")
    assert (told.project, list(told.tags), told.notes) == ("mine", ["a", "b"], "as asked"), "the user's come first"
    assert (told.run_group, told.job_type) == ("sweep", "train")
    written = yaml.safe_load((run / "config.yaml").read_text())
    assert {key: received.config[key] for key in written} == written
    assert received.config["overrides"] == command(*asked, outputs=tmp_path)
    assert received.config["revision"] == revision()

    assert received.x_axes["*"] == "progress/examples"
    assert [x for x, _ in received.curve("train/loss")] == [*range(8, 105, 8)]
    summary = json.loads((run / "summary.json").read_text())
    fid = received.curve("val/fid")
    assert [x for x, _ in fid] == [56, 104], "one curve, of 8 samples and of 16"
    assert fid[-1][1] == pytest.approx(summary["metrics"]["fid_digits64_16"])
    assert [count for _, count in received.curve("val/num_samples")] == [8, 16]
    assert received.summary["val/fid"] == fid[-1][1], "the last"
    assert received.summary["best/val/fid"] == min(y for _, y in fid)
    assert received.summary["best/val/loss"] == min(y for _, y in received.curve("val/loss"))
    assert received.summary["metrics"] == pytest.approx(summary["metrics"]), "by their full names, with protocols"
    assert received.summary["protocol_id"] == summary["protocol_id"]

    (shown,) = (row for row in received.history if "samples.filenames" in row)
    caption = "after 104 examples: samples 0 to 1 of seed 0; column c: class c (modulo 10)"
    assert (shown["progress/examples"], shown["samples.captions"]) == (104, [caption])
    media = Image.open(file.parent / "files" / shown["samples.filenames"][0])
    (grid,) = (run / "samples").glob("examples=*.png")
    assert media.tobytes() == Image.open(grid).tobytes()

    (artifact,) = received.artifacts
    assert artifact.type == "model"
    again = tmp_path / "downloaded"
    for entry in artifact.manifest.contents:
        (again / entry.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(entry.local_path, again / entry.path)
    sample(
        ConfigTree().change(written, [], []),
        again,
        n=1,
        seed=0,
        label=None,
        prompt=None,
        image=None,
        batch_size=1,
        out=None,
    )

    events = reader.EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert [e.step for e in events.Scalars("train/loss")] == [*range(8, 105, 8)]
    assert {e.step: e.value for e in events.Scalars("val/fid")} == pytest.approx(dict(fid))
    assert [image.step for image in events.Images("samples")] == [104]
    (text,) = events.Tensors("samples/caption/text_summary")
    assert text.tensor_proto.string_val[0].decode() == caption
    hparams = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"model.network.width" in hparams
    assert b"val/fid" in events.SummaryMetadata("_hparams_/experiment").plugin_data.content
    kept = yaml.safe_load((run / "tensorboard" / "hparams.yaml").read_text())
    assert {key: kept[key] for key in written} == written
    assert kept["overrides"] == received.config["overrides"]


def test_the_best_so_far() -> None:
    directions = {"fid": "lower", "recall": "higher", "ratio": "one", "spread": None}
    best: dict[str, float] = {}
    for fid, recall, ratio, spread in ((3.0, 0.1, 4.0, 1.0), (float("nan"), 0.3, 0.9, 0.5), (5.0, 0.2, 1.2, 2.0)):
        values = {"fid": fid, "recall": recall, "ratio": ratio, "spread": spread}
        best = better(best, values, directions)  # type: ignore[arg-type]
    assert best == {"fid": 3.0, "recall": 0.3, "ratio": 0.9}


def test_the_best_is_kept_when_a_run_goes_on() -> None:
    callback = PeriodicEvaluation(None)  # type: ignore[arg-type]
    callback.best = {"val/fid": 3.0}
    again = PeriodicEvaluation(None)  # type: ignore[arg-type]
    again.load_state_dict({"owed": False})  # of an earlier version
    assert again.best == {}
    again.load_state_dict(callback.state_dict())
    assert again.best == {"val/fid": 3.0}


@pytest.mark.usefixtures("user")
def test_what_is_typed_comes_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("WANDB_RUN_GROUP", "theirs")
    monkeypatch.setenv("WANDB_NAME", "called")
    environments = tracking.named({"project": None, "name": None, "id": "x"}, "vae-digits-x", tmp_path)
    assert (environments["project"], environments["name"], environments["group"]) == ("mine", "called", "theirs")
    assert environments["save_dir"] == str(tmp_path / "elsewhere")
    typed = {"project": "p", "name": "n", "group": "g", "job_type": "j", "save_dir": "s"}
    assert tracking.named(typed, "vae-digits-x", tmp_path) == typed
    wandb.teardown()
    for name in ("DIR", "RUN_GROUP", "NAME", "PROJECT"):
        monkeypatch.delenv(f"WANDB_{name}")
    ours = {"project": "genlab", "name": "vae-digits-x", "group": None, "job_type": "train", "save_dir": str(tmp_path)}
    assert tracking.named({}, "vae-digits-x", tmp_path) == ours


OURS, LIGHTNINGS = "genlab.logger.tracking.Wandb", "pytorch_lightning.loggers.WandbLogger"


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"_target_": OURS, "grop": "x"}, "unknown option 'logger.x.grop': .* Did you mean 'logger.x.group'"),
        ({"_target_": LIGHTNINGS, "grop": "x"}, "unknown option 'logger.x.grop': .* Did you mean 'logger.x.group'"),
        ({"_target_": "pytorch_lightning.loggers.TensorBoardLogger", "save_dir": "x", "max_que": 1}, "x.max_queue'"),
        ({"_target_": OURS, "mode": "of"}, "logger.x.mode must be"),
        ({"_target_": OURS, "tags": 1}, "logger.x.tags must be"),
        ({"_target_": LIGHTNINGS, "project": "genlab", "group": "g", "tags": ["a"]}, None),  # as earlier runs have it
    ],
)
def test_a_misspelt_option_is_said_at_the_start(node: dict[str, Any], said: str | None) -> None:
    with nullcontext() if said is None else pytest.raises(ConfigError, match=said):
        check(node, Logger, "logger.x")
        check_passed_on(node, "logger.x")


def test_a_revision_without_a_clone(tmp_path: Path) -> None:
    """As pip installs it."""
    package = tmp_path / "site-packages" / "genlab"
    package.mkdir(parents=True)
    (package / "a.py").write_text("a = 1\n")
    before = revision(package)
    assert before.startswith("sha256:")
    assert revision(package) == before
    (package / "a.py").write_text("a = 2\n")
    assert revision(package) != before

"""The loop over batches is Lightning's: the same hooks in the same order, and the same run to the last bit."""

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop

from genlab.command import train as train_command
from genlab.model.diffusion import Diffusion
from genlab.run.training_loop import TrainingLoop
from test_ddp import finish
from tiny_run import BARE, BARE_TEXT, MLP, only_run, popen, train

TEXT = ("model=transformer", "model.network.width=8", "model.network.depth=1", "model.network.num_heads=1")
GAN = ("model=gan", "model.generator.channels=8", "model.discriminator.channels=8", "model.latent_dim=8")


class Recorder(Callback):
    """What callbacks are asked, in which order, and what has been logged by then."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.loop = type(trainer.fit_loop.epoch_loop)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.is_quick = getattr(trainer.fit_loop.epoch_loop, "_hooks", None) is not None


def _note(hook: str) -> Any:
    def note(self: Recorder, trainer: Trainer, pl_module: LightningModule, *given: Any) -> None:
        self.asked.append((hook, trainer.global_step, pl_module._current_fx_name))

    return note


for _hook in ("on_train_batch_start", "on_before_zero_grad", "on_before_backward", "on_after_backward",
              "on_before_optimizer_step", "on_train_batch_end", "on_train_epoch_end"):  # fmt: skip
    setattr(Recorder, _hook, _note(_hook))


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    found: list[Recorder] = []
    build = train_command.build_callbacks

    def with_recorder(*given: Any) -> list[Callback]:
        found.append(Recorder())
        return [*build(*given), found[-1]]

    monkeypatch.setattr(train_command, "build_callbacks", with_recorder)
    return found


def rows(run: Path) -> list[dict[str, str]]:
    """What was logged, without the clock."""
    with (run / "metrics.csv").open(newline="") as file:
        return [
            {k: v for k, v in sorted(row.items()) if "seconds" not in k and "speed" not in k}
            for row in csv.DictReader(file)
        ]


def state(run: Path) -> dict[str, Any]:
    newest = run / "checkpoints" / (run / "checkpoints" / "newest").read_text().strip()
    content: dict[str, Any] = torch.load(newest, weights_only=True)
    return content


RUNS = {
    "accumulating": (*BARE, *MLP, "trainer.accumulate_grad_batches=3", "trainer.gradient_clip_val=0.1",
                     "trainer.log_every_n_steps=4"),
    "of two optimizers": (*BARE, *GAN, "trainer.log_every_n_steps=3"),
    "text in bf16": ("data=python_docs", *BARE_TEXT, *TEXT, "trainer.precision=bf16-mixed",
                     "trainer.log_every_n_steps=5"),
}  # fmt: skip


@pytest.mark.parametrize("chosen", RUNS.values(), ids=RUNS)
def test_a_run_is_lightnings_to_the_last_bit(
    chosen: Sequence[str], recorders: list[Recorder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = train(*chosen, outputs=tmp_path / "ours")
    monkeypatch.setattr(TrainingLoop, "into", classmethod(lambda cls, trainer: None))
    theirs = train(*chosen, outputs=tmp_path / "theirs")
    ran = [recorder for recorder in recorders if recorder.asked]
    assert [recorder.loop for recorder in ran] == [TrainingLoop, _TrainingEpochLoop]
    assert ran[0].asked == ran[1].asked
    check_same(ours, theirs)


def check_same(ours: Path, theirs: Path) -> None:
    """What was logged, when, and the last checkpoint."""
    assert rows(ours) == rows(theirs)
    logged = [int(row["step"]) for row in rows(ours) if any(k.startswith("train/") and v for k, v in row.items())]
    assert len(logged) > 1
    assert max(logged) == int(rows(theirs)[-1]["step"]) - 1, "the last step's too: the last row is the evaluation"
    a, b = state(ours), state(theirs)
    assert json.dumps(a["loops"], sort_keys=True, default=str) == json.dumps(b["loops"], sort_keys=True, default=str)
    for key in ("state_dict", "ema"):
        assert a[key].keys() == b[key].keys()
        assert all(torch.equal(a[key][name], b[key][name]) for name in a[key])


def test_what_is_monitored_is_logged_at_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A callback of the user's may wait for a number in a step that no logger looks at."""
    seen: list[float] = []

    class Waits(Callback):
        monitor = "train/loss"

        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            seen.append(float(trainer.callback_metrics["train/loss"]))

    build = train_command.build_callbacks
    monkeypatch.setattr(train_command, "build_callbacks", lambda *given: [*build(*given), Waits()])
    train(*BARE, *MLP, "trainer.log_every_n_steps=100", outputs=tmp_path)
    assert len(set(seen)) == 13


def test_a_schedule_of_lightnings_finds_its_number_at_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[torch.optim.lr_scheduler.ReduceLROnPlateau] = []

    def with_schedule(self: Diffusion) -> Any:
        optimizer = torch.optim.AdamW(self.parameters())
        made.append(torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer))
        schedule = {"scheduler": made[-1], "monitor": "train/loss", "interval": "step", "strict": True}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    monkeypatch.setattr(Diffusion, "configure_optimizers", with_schedule)
    train(*BARE, *MLP, "trainer.log_every_n_steps=100", outputs=tmp_path)
    assert made[-1].last_epoch == 13


BOTH_LOOPS = """
import genlab
import json, os, sys
from pathlib import Path
import test_training_loop, tiny_run
from genlab.command import train as train_command
from genlab.run.training_loop import TrainingLoop

folder = Path(sys.argv[1])
build, into = train_command.build_callbacks, TrainingLoop.into
for name, chosen in json.loads((folder / "chosen.json").read_text()).items():
    for loop, put in (("ours", into), ("theirs", lambda trainer: None)):
        recorder = test_training_loop.Recorder()
        train_command.build_callbacks = lambda *given: [*build(*given), recorder]
        TrainingLoop.into = put
        tiny_run.train(*chosen, "trainer=ddp_cpu", outputs=folder / name / loop)
        said = [recorder.loop.__name__, recorder.is_quick, recorder.asked]
        (folder / name / f"{loop}.{os.environ['RANK']}.json").write_text(json.dumps(said))
"""


@pytest.mark.matrix  # two processes that start anew
def test_on_two_processes_too(tmp_path: Path) -> None:
    """With gradients of several batches, which the processes send each other once, and steps of the model's own."""
    chosen = {name: list(values) for name, values in RUNS.items()}
    (tmp_path / "chosen.json").write_text(json.dumps(chosen))
    (tmp_path / "both.py").write_text(BOTH_LOOPS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    finish(popen([*command, str(tmp_path / "both.py"), str(tmp_path)]), seconds=300)
    for name in chosen:
        for rank in (0, 1):
            ours, theirs = (
                json.loads((tmp_path / name / f"{loop}.{rank}.json").read_text()) for loop in ("ours", "theirs")
            )
            assert (ours[:2], theirs[:2]) == (["TrainingLoop", True], ["_TrainingEpochLoop", False])
            assert ours[2] == theirs[2]
        check_same(only_run(tmp_path / name / "ours"), only_run(tmp_path / name / "theirs"))

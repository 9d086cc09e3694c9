"""A run that was stopped and continued is, to the last bit, the run that was never stopped."""

import csv
import signal
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from chats import chats
from genlab.callbacks.stop import SIGNALS
from genlab.checkpoint import read
from genlab.command import train as train_command
from genlab.command.train import Interrupted
from genlab.errors import CheckpointError, ConfigError, StorageError
from genlab.run import run_folder
from text import text_file
from tiny_run import MLP, REPOSITORY, Order, SignalAt, only_run, popen, resume, same, start, train

VARIANTS = {
    "plain": MLP,
    "dropout": (*MLP, "model.network.dropout=0.3", "data.flip=true", "model/schedule=cosine_decay"),
    "accumulation": (*MLP, "trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=0.1"),
    "workers": (*MLP, "data.num_workers=2", "data.flip=true"),
    "vae": ("model=vae", "model/encoder=mlp", "model/decoder=mlp", "model.kl_warmup=0.7"),
    "vq_vae": ("model=vq_vae", "model/encoder=mlp", "model/decoder=mlp"),  # buffers, and chance in them
    "text": ("model=transformer", "model.network.width=8", "model.network.depth=1", "model.network.num_heads=1",
             "model.network.dropout=0.3", "model.optimizer.lr=0.1"),  # windows that each epoch cuts elsewhere
    "masked": ("model=masked", "model/optimizer=muon", "model.network.width=8", "model.network.depth=1",
               "model.network.num_heads=1", "model.optimizer.lr=0.1"),
}  # fmt: skip
VARIANTS["conversations"] = (*VARIANTS["text"], "trainer.accumulate_grad_batches=2")
OF_TEXT = ("text", "masked")
VARIANTS["captions"] = (*MLP, "data=shapes", "data.image_size=16", "data.max_objects=1", "data.num_val=4",
                        "model.conditions=[label,caption]", "model.guidance=2.0")  # fmt: skip
STOPS = {"first step": 0, "second": 8, "mid-epoch": 16, "last of an epoch": 32, "first of the next": 40, "later": 88}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Any:
    text = text_file(tmp_path_factory.mktemp("data"))
    of_variants = {**dict.fromkeys(OF_TEXT, text), "conversations": chats(tmp_path_factory.mktemp("chats"), 60)}
    return lambda variant: (*of_variants.get(variant, ()), *VARIANTS[variant], Order.OVERRIDE)


@pytest.fixture(scope="module")
def never_stopped(given: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    @cache
    def run(variant: str) -> Path:
        return train(*given(variant), outputs=tmp_path_factory.mktemp(variant))

    return run


def state(run: Path) -> dict[str, Any]:
    """All that must be equal: everything in the newest checkpoint but the clock."""
    content = dict(read.newest(run).content)
    content["progress"] = content["progress"] | {"seconds": None}
    kept = {
        "state_dict",
        "ema",
        "optimizer_states",
        "progress",
        "Digits",
        "Shapes",
        "TextFile",
        "global_step",
        "Conversations",
    }
    return {key: value for key, value in content.items() if key in kept}


def metrics(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    clocks = ("progress/seconds", "speed/data_wait", "speed/mfu")
    return [{k: v for k, v in row.items() if k not in clocks} for row in table]


PAIRS = [
    *(("plain", stop) for stop in STOPS),
    *(("dropout", stop) for stop in ("mid-epoch", "last of an epoch")),
    *(("accumulation", stop) for stop in STOPS),
    *((variant, stop) for variant in ("workers", "vae", "vq_vae") for stop in ("mid-epoch", "last of an epoch")),
    *((variant, "mid-epoch") for variant in (*OF_TEXT, "captions", "conversations")),
]
# `make test` stops one variant everywhere, one where steps are put together, the others once; `make matrix` has all.
QUICK = [("plain", stop) for stop in STOPS] + [("accumulation", "second"), ("accumulation", "last of an epoch")]
QUICK += [("workers", "last of an epoch"), ("vae", "last of an epoch")]
QUICK += [(variant, "mid-epoch") for variant in ("dropout", "vq_vae", *OF_TEXT, "captions", "conversations")]


@pytest.mark.parametrize(
    ("variant", "stop"),
    [pytest.param(*pair, marks=[] if pair in QUICK else [pytest.mark.matrix]) for pair in PAIRS],
)
def test_bit_identical(variant: str, stop: str, given: Any, never_stopped: Any, tmp_path: Path) -> None:
    reference = never_stopped(variant)
    with pytest.raises(Interrupted, match=r"SIGINT; saved. Continue with: genlab train run="):
        train(*given(variant), SignalAt.override(STOPS[stop]), outputs=tmp_path)
    run = only_run(tmp_path)
    assert read.newest(run).progress.examples in (STOPS[stop] + 8, STOPS[stop] + 16)
    assert not (run / "summary.json").exists()
    resume(run)
    assert same(state(run), state(reference))
    assert state(run).keys() > {"state_dict", "ema", "optimizer_states", "progress", "global_step"}
    assert (run / "order.0.txt").read_text() == (reference / "order.0.txt").read_text()
    assert metrics(run) == metrics(reference)
    assert (run / "summary.json").exists()


def test_stopped_again_and_again(never_stopped: Any, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(*MLP, SignalAt.override(16), outputs=tmp_path)
    run = only_run(tmp_path)
    for examples in (24, 32, 40, 72):  # right after the last stop, at an epoch's end, at its start
        with pytest.raises(Interrupted):
            resume(run, f"callbacks.signal.examples={examples}")
    resume(run)
    assert same(state(run), state(never_stopped("plain")))
    assert metrics(run) == metrics(never_stopped("plain"))


@pytest.mark.matrix  # processes that start anew
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_from_outside(number: int, tmp_path: Path, never_stopped: Any) -> None:
    process = start(*MLP, "model/schedule=constant", "budget.value=80000000", outputs=tmp_path)
    assert process.stdout is not None
    assert process.stderr is not None
    while "run folder" not in process.stdout.readline():
        pass
    run = only_run(tmp_path)
    csv_file = run / "metrics.csv"
    while not (csv_file.exists() and csv_file.read_text().count("\n") > 2):
        assert process.poll() is None, process.stderr.read()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    said = [line for line in errors.splitlines() if not line.startswith("training")]
    assert said == [
        f"stopped by {signal.Signals(number).name}; saved. Continue with: python {REPOSITORY / 'train.py'} run={run}"
    ]
    last = read.newest(run)
    target = (last.progress.examples // 8 + 3) * 8
    resume(run, f"budget.value={target}")
    straight = train(*MLP, "model/schedule=constant", f"budget.value={target}", outputs=tmp_path / "straight")
    assert same(state(run)["state_dict"], state(straight)["state_dict"])
    assert same(state(run)["ema"], state(straight)["ema"])


@pytest.mark.matrix  # a process that starts anew; the tests below have the signal in this one
def test_signal_before_the_first_step(tmp_path: Path) -> None:
    process = popen([sys.executable, "-c", _SIGNALLED_EARLY, str(tmp_path)])
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert errors.splitlines() == ["stopped by SIGTERM; nothing had been saved yet."]


@pytest.mark.parametrize("error", [KeyError("names"), ConfigError("config.yaml is not as it should be.")])
def test_a_signal_is_a_signal_whatever_a_library_makes_of_it(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OmegaConf, caught in the middle of a list, once stumbled over what was not in it yet."""

    def stumble(*_: Any) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            raise error

    monkeypatch.setattr(train_command, "build_data", stumble)
    with pytest.raises(Interrupted, match=r"^stopped by SIGTERM; nothing had been saved yet\.$") as stopped:
        train(*MLP, outputs=tmp_path)
    assert stopped.value.exit_code == 143


def test_a_full_disk_is_told_whatever_it_came_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(*_: Any) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            raise StorageError("the disk is full.")

    monkeypatch.setattr(train_command, "build_data", stumble)
    with pytest.raises(StorageError, match="the disk is full"):
        train(*MLP, outputs=tmp_path)


_SIGNALLED_EARLY = """
import os, signal, sys
import genlab
from pathlib import Path
from tiny_run import BARE, MLP
from genlab import cli
from genlab.command import train
def build_model(config, **options):
    os.kill(os.getpid(), signal.SIGTERM)
train.build_model = build_model
cli.main(["train", *BARE, *MLP, f"outputs={sys.argv[1]}"])
"""


def test_signal_in_the_final_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from genlab.evaluation.evaluation import Evaluation

    monkeypatch.setattr(Evaluation, "run", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(Interrupted, match=r"not evaluated. Evaluate with: genlab train run=") as caught:
        train(*MLP, outputs=tmp_path)
    assert caught.value.exit_code == 143
    assert read.newest(only_run(tmp_path)).progress.fraction == 1


def test_second_ctrl_c_leaves_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from genlab.callbacks.samples import SampleGrid

    def long(*_: Any, **__: Any) -> None:
        signal.raise_signal(signal.SIGINT)  # a wish
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("it went on")

    monkeypatch.setattr(SampleGrid, "show", long)
    with pytest.raises(Interrupted, match=r"saved\. Continue with"):
        train(*MLP, "callbacks.samples.times=4", outputs=tmp_path)


@pytest.mark.parametrize("number", [SIGNALS[0], *(pytest.param(n, marks=pytest.mark.matrix) for n in SIGNALS[1:])])
def test_signal_in_an_evaluation_on_the_way(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is cut short, twice, and made when the run goes on."""
    from genlab.evaluation.evaluation import Evaluation

    evaluated = (*MLP, "callbacks.evaluation.times=2")
    reference = train(*evaluated, outputs=tmp_path / "reference")
    with monkeypatch.context() as patched:
        patched.setattr(Evaluation, "run", lambda *_, **__: signal.raise_signal(number))
        with pytest.raises(Interrupted, match=r"saved\. Continue with"):
            train(*evaluated, outputs=tmp_path / "outputs")
        run = only_run(tmp_path / "outputs")
        for _ in range(2):
            assert read.newest(run).progress.examples == 56
            with pytest.raises(Interrupted, match=r"saved\. Continue with"):
                resume(run)
    resume(run)
    assert same(state(run), state(reference))
    assert metrics(run) == metrics(reference)


def test_killed_in_the_final_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, never_stopped: Any) -> None:
    """Trained, its last rows only in the checkpoint: it goes on with the evaluation, and makes no step."""
    from genlab.callbacks.evaluation import PeriodicEvaluation
    from genlab.logger.metrics_file import MetricsFile

    reference = never_stopped("plain")
    with monkeypatch.context() as patched:
        patched.setattr(PeriodicEvaluation, "on_train_end", _killed)
        patched.setattr(MetricsFile, "finalize", lambda *_: None)
        with pytest.raises(Killed):
            train(*MLP, Order.OVERRIDE, outputs=tmp_path)
    run = only_run(tmp_path)
    assert len(metrics(run)) == 12
    resume(run)
    assert same(state(run), state(reference))
    assert metrics(run) == metrics(reference)
    assert (run / "order.0.txt").read_text() == (reference / "order.0.txt").read_text()
    assert (run / "summary.json").exists()


class Killed(BaseException):
    pass


def _killed(*_: Any) -> None:
    raise Killed


def test_handlers_are_put_back(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    train(*MLP, "budget.value=8", outputs=tmp_path)
    assert [signal.getsignal(number) for number in SIGNALS] == before


# --- what is refused, and what is passed over -------------------------------------------------------------------------


def test_finished_run_is_not_silently_done_again(tmp_path: Path) -> None:
    run = train(*MLP, outputs=tmp_path)
    with pytest.raises(ConfigError) as caught:
        resume(run)
    assert str(caught.value) == (
        f"run folder {run} already holds a finished run. Continue with a larger budget (budget.value=...), "
        "or start a new run."
    )
    resume(run, "budget.value=120")
    assert read.newest(run).progress.examples == 120
    assert run_folder.read_config(run)["budget"]["value"] == 120


def test_epoch_limit_ends_a_run(tmp_path: Path) -> None:
    run = train(*MLP, "trainer.max_epochs=2", "budget.value=10000", outputs=tmp_path)
    last = read.newest(run)
    assert last.progress.examples == 80
    assert last.epochs == 2
    assert (run / "summary.json").exists()
    with pytest.raises(ConfigError, match=r"Continue with a larger limit of epochs \(trainer.max_epochs="):
        resume(run)
    resume(run, "trainer.max_epochs=3")
    assert read.newest(run).progress.examples == 120


def test_another_model_is_refused(tmp_path: Path) -> None:
    run = train(*MLP, "budget.value=8", outputs=tmp_path)
    with pytest.raises(CheckpointError, match="was made by another model") as caught:
        resume(run, "budget.value=16", "model.network.width=16")
    assert caught.value.exit_code == 3


def test_another_budget_goes_on(tmp_path: Path) -> None:
    run = train(*MLP, outputs=tmp_path)
    flops = read.newest(run).progress.flops
    resume(run, "budget=flops", f"budget.value={2 * flops}")
    assert read.newest(run).progress.examples == 208


def test_damaged_checkpoint_is_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], never_stopped: Any
) -> None:
    run = train(*MLP, "callbacks.checkpoint.every_minutes=0", "callbacks.checkpoint.keep=3", outputs=tmp_path)
    newest, middle, oldest = read.saved(run)
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    middle.write_bytes(b"")
    resume(run, "callbacks.checkpoint.keep=1")
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert warnings == [
        f"warning: checkpoint {newest} is damaged ({len(content)} bytes). Using {middle.name} instead.",
        f"warning: checkpoint {middle} is damaged (0 bytes). Using {oldest.name} instead.",
    ]
    assert same(state(run), state(never_stopped("plain")))
    assert read.saved(run) == [newest]


def test_missing_checkpoint_is_missed(tmp_path: Path, capsys: pytest.CaptureFixture[str], never_stopped: Any) -> None:
    run = train(*MLP, "callbacks.checkpoint.every_minutes=0", outputs=tmp_path)
    newest, older = read.saved(run)
    newest.unlink()
    (run / "summary.json").unlink()
    resume(run)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert said == [f"warning: checkpoint {newest} is missing. Using {older.name} instead."]
    assert same(state(run), state(never_stopped("plain")))


def test_nothing_left_to_continue_from(tmp_path: Path) -> None:
    run = train(*MLP, "budget.value=8", outputs=tmp_path)
    (only,) = read.saved(run)
    only.write_bytes(only.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged") as caught:
        resume(run, "budget.value=16")
    assert caught.value.exit_code == 3
    only.unlink()
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        resume(run, "budget.value=16")

"""Several processes are one run: the same batches, the same weights, one folder, one summary."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from genlab.checkpoint import read
from genlab.command import train as train_command
from genlab.errors import ConfigError
from genlab.run import run_folder
from genlab.run.load import load_run
from tiny_run import BARE, MLP, REPOSITORY, Order, SignalAt, compose, only_run, popen, resume, start, train

# A model without noise or dropout, so that only rounding tells ranks apart.
NOISELESS = (*MLP, "model.objective._target_=toy_objective.NoNoise", "~model.objective.p_mean",
             "~model.objective.p_std", "~model.objective.sigma_data", "model.condition_dropout=0",
             "model.optimizer.fused=false")  # fmt: skip
DDP = "trainer=ddp_cpu"


def finish(process: "subprocess.Popen[str]", seconds: float = 100) -> tuple[str, str]:
    out, errors = process.communicate(timeout=seconds)
    assert process.returncode == 0, errors
    return out, errors


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A finished run of two processes, and what it printed."""
    outputs = tmp_path_factory.mktemp("ddp")
    out, errors = finish(start(*NOISELESS, DDP, Order.OVERRIDE, "metrics=[kid]", "metrics.kid.subset_size=5",
                               "metrics.kid.num_subsets=2", "evaluation.num_samples=21",
                               "callbacks.samples.times=2", "callbacks.evaluation.times=2",
                               "callbacks.evaluation.num_samples=7", outputs=outputs))  # fmt: skip
    return only_run(outputs), out, errors


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(*NOISELESS, Order.OVERRIDE, outputs=tmp_path_factory.mktemp("single"))


def test_one_folder_one_summary_one_voice(two_ranks: tuple[Path, str, str]) -> None:
    run, out, errors = two_ranks
    assert out.count("run folder:") == 2  # at the start, and in the closing lines
    assert out.count("finished:") == 1
    assert all(line.startswith("training") for line in errors.splitlines())
    assert len((run / "command.txt").read_text().splitlines()) == 1
    assert json.loads((run / "summary.json").read_text())["examples"] == 104


def test_global_batches_are_those_of_one_process(two_ranks: tuple[Path, str, str], one_rank: Path) -> None:
    run = two_ranks[0]
    ranks = [[line.split() for line in (run / f"order.{rank}.txt").read_text().splitlines()] for rank in (0, 1)]
    single = [line.split() for line in (one_rank / "order.0.txt").read_text().splitlines()]
    assert [sorted(a + b) for a, b in zip(*ranks, strict=True)] == [sorted(batch) for batch in single]


def test_weights_are_those_of_one_process(two_ranks: tuple[Path, str, str], one_rank: Path) -> None:
    together, alone = read.newest(two_ranks[0]), read.newest(one_rank)
    assert together.progress.examples == alone.progress.examples
    assert together.progress.flops == alone.progress.flops
    for name, weight in alone.state.items():
        torch.testing.assert_close(together.state[name], weight, rtol=0, atol=1e-6)
        torch.testing.assert_close(together.content["ema"][name], alone.content["ema"][name], rtol=0, atol=1e-6)


def test_evaluation_counts_every_sample_once(two_ranks: tuple[Path, str, str]) -> None:
    run = two_ranks[0]
    summary = json.loads((run / "summary.json").read_text())
    assert summary["protocol"]["num_samples"] == 21  # odd: nothing is padded
    assert set(summary["metrics"]) == {"kid_digits64_21", "kid_std_digits64_21", "kid_se_digits64_21"}
    assert "val/kid_digits64_7" in (run / "metrics.csv").read_text()


@pytest.mark.matrix  # two more processes that start anew
def test_stop_and_resume(tmp_path: Path, two_ranks: tuple[Path, str, str]) -> None:
    """Only the first process hears the signal; all stop, and the run goes on from there to the same end."""
    process = start(*NOISELESS, DDP, SignalAt.override(32), outputs=tmp_path)
    _, errors = process.communicate(timeout=100)
    run = only_run(tmp_path)
    assert process.returncode == 130
    said = [line for line in errors.splitlines() if not line.startswith("training")]
    assert said == [f"stopped by SIGINT; saved. Continue with: python {REPOSITORY / 'train.py'} run={run}"]
    assert read.newest(run).progress.examples == 40
    resume(run, "trainer=cpu")  # on another number of devices, even
    for name, weight in read.newest(two_ranks[0]).state.items():
        torch.testing.assert_close(read.newest(run).state[name], weight, rtol=0, atol=1e-6)


def test_batch_that_cannot_be_shared(tmp_path: Path) -> None:
    config = compose(*MLP, DDP, "data.batch_size=7", outputs=tmp_path)
    with pytest.raises(ConfigError, match=r"data.batch_size=7 cannot be divided among 2 devices"):
        train_command.train(config, [])
    assert not list(tmp_path.iterdir())


@pytest.mark.matrix  # three processes that start anew
def test_processes_started_by_torchrun_share_a_folder(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("from genlab.cli import main\nimport sys\nmain(['train', *sys.argv[1:]])\n")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    out, _ = finish(popen([*command, *BARE, *NOISELESS, DDP, f"outputs={tmp_path / 'outputs'}"]))
    run = only_run(tmp_path / "outputs")
    assert out.count("finished:") == 1
    assert read.newest(run).progress.examples == 104


FSDP = ("trainer=fsdp", "trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.gradient_clip_val=1.0",
        "trainer.strategy.process_group_backend=gloo")  # fmt: skip
DIT = ("model/network=dit", "model.network.width=16", "model.network.depth=2", "model.network.num_heads=1",
       "model.sampler.num_steps=2")  # fmt: skip
TOKENS = ("model=transformer", "model/optimizer=muon", "model.network.width=16", "model.network.depth=2",
          "model.network.num_heads=1", "model/schedule=constant")  # fmt: skip


@pytest.mark.matrix  # two processes that start anew, or twice two; test_sharded has what they write
@pytest.mark.parametrize("choices", [DIT, TOKENS], ids=["dit", "transformer"])
def test_shared_out_weights(choices: tuple[str, ...], tmp_path: Path) -> None:
    """FSDP2: saved as one file or as shards, which any number of devices reads, averages included; it goes on."""
    if choices is DIT:
        one_file = "trainer.strategy.save_distributed_checkpoint=false"
        finish(start(*FSDP, *choices, one_file, "callbacks.samples.times=13", outputs=tmp_path))
        run = only_run(tmp_path)
    else:
        process = start(*FSDP, *choices, SignalAt.override(32), "callbacks.samples.times=2", outputs=tmp_path)
        _, errors = process.communicate(timeout=100)
        run = only_run(tmp_path)
        assert process.returncode == 130, errors
        finish(popen([sys.executable, str(REPOSITORY / "train.py"), f"run={run}"]))
    assert read.saved(run)[0].is_dir() == (choices is TOKENS)
    last = read.newest(run)
    straight = train(*choices, "budget.value=8", outputs=tmp_path / "one")
    assert last.progress.examples == 104
    assert {name: w.shape for name, w in last.state.items()} == {
        name: w.shape for name, w in read.newest(straight).state.items()
    }
    assert any(not torch.equal(last.content["ema"][name], w) for name, w in last.state.items())
    model, weights = load_run(OmegaConf.create(run_folder.read_config(run)), run)
    assert weights == "ema"
    assert torch.isfinite(model.sample(2, {"label": torch.tensor([1, 2])})).all()

"""What a budget counts, and that it ends a run where it should."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from genlab.budget import Examples, Flops, Seconds
from genlab.callbacks.cadence import Cadence
from genlab.callbacks.evaluation import PeriodicEvaluation
from genlab.checkpoint import read
from genlab.errors import ConfigError
from genlab.machine.quick_cpu import quick_cpu
from genlab.model.base import Progress
from genlab.model.network.unet import PixelAttention
from genlab.model.schedule import LinearDecay
from genlab.run import assemble
from tiny_run import MLP, UNET, compose, plain, resume, train


@pytest.mark.parametrize("budget", [Examples, Flops, Seconds])
def test_of_nothing_is_refused(budget: type) -> None:
    with pytest.raises(ConfigError, match="above 0"):
        budget(value=0)


def test_examples_end_at_the_step_that_reaches_them(tmp_path: Path) -> None:
    progress = read.newest(train(*MLP, "budget.value=20", outputs=tmp_path)).progress
    assert progress.examples == 24
    assert progress.fraction == 1


def test_accumulation_ends_at_an_optimizer_step(tmp_path: Path) -> None:
    last = read.newest(train(*MLP, "budget.value=20", "trainer.accumulate_grad_batches=2", outputs=tmp_path))
    assert last.progress.examples == 24  # the last step is of the one batch that was left
    assert last.content["global_step"] == 2


@pytest.mark.parametrize("network", [MLP, UNET], ids=["mlp", "unet"])
def test_flops_are_those_of_a_step_done_by_hand(network: tuple[str, ...], tmp_path: Path) -> None:
    config = compose(*network, outputs=tmp_path)
    data = assemble.build_data(config)
    config.run_dir, config.run_id = "", ""
    model = assemble.build_model(plain(config))
    model.configure_model()
    image, label = torch.zeros(8, *data.spec.shape), torch.zeros(8, dtype=torch.long)
    attentions = sum(isinstance(module, PixelAttention) for module in model.modules())
    assert attentions == (4 if network is UNET else 0)
    with quick_cpu(on_cpu=True), FlopCounterMode(display=False) as counter:
        model.losses({"image": image, "label": label})["loss"].backward()
    # The counter's table leaves out attention by torch's own kernel on the CPU: two products forward and four backward,
    # of 64 pixels with 64, in 16 channels, of 8 examples.
    step = counter.get_total_flops() + attentions * 6 * 2 * 64 * 64 * 16 * 8
    run = train(*network, "budget=flops", f"budget.value={3 * step}", outputs=tmp_path)
    progress = read.newest(run).progress
    assert step > 0
    assert progress.flops == 3 * step
    assert (progress.examples, progress.fraction) == (24, 1)


def test_seconds_leave_evaluation_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated = []

    def slow(*_: Any, **__: Any) -> None:
        evaluated.append(1)
        time.sleep(0.5)

    monkeypatch.setattr(PeriodicEvaluation, "evaluate", slow)
    began = time.perf_counter()
    run = train(*MLP, "budget=seconds", "budget.value=0.4", "callbacks.evaluation.times=4", outputs=tmp_path)
    wall = time.perf_counter() - began
    progress = read.newest(run).progress
    assert len(evaluated) == 4  # three on the way, one at the end
    assert 0.4 <= progress.seconds < 0.7
    assert wall > 2.4
    assert progress.fraction == 1


def test_another_kind_of_budget_continues_a_run(tmp_path: Path) -> None:
    run = train(*MLP, "budget.value=40", outputs=tmp_path)
    before = read.newest(run).progress
    resume(run, "budget=seconds", f"budget.value={before.seconds + 0.2}")
    after = read.newest(run).progress
    assert after.seconds >= before.seconds + 0.2
    assert after.flops / after.examples == before.flops / before.examples


def test_another_batch_size_is_counted_anew(tmp_path: Path) -> None:
    """As on another number of devices, which share the batch otherwise."""
    run = train(*MLP, "budget.value=40", outputs=tmp_path)
    before = read.newest(run).progress
    resume(run, "data.batch_size=4", "budget.value=80", allow_changes=True)
    after = read.newest(run).progress
    assert (before.examples, after.examples) == (40, 80)
    assert after.flops == pytest.approx(2 * before.flops, rel=1e-3)


def test_learning_rate_follows_progress(tmp_path: Path) -> None:
    """The rate of a step is that of the progress before it, also when the run is continued with a larger budget."""

    def rates(run: Path) -> float:
        (group,) = read.newest(run).content["optimizer_states"][0]["param_groups"]
        return group["lr"] / group["initial_lr"]

    schedule = LinearDecay(warmup=16)
    run = train(*MLP, "model/schedule=linear_decay", "model.schedule.warmup=16", "budget.value=80", outputs=tmp_path)
    assert rates(run) == pytest.approx(schedule.scale(examples=72, fraction=0.9))
    resume(run, "budget.value=160")
    assert rates(run) == pytest.approx(schedule.scale(examples=152, fraction=0.95))


def test_milestones_are_spread_evenly() -> None:
    milestones = Cadence(4)
    milestones.start(0)
    assert [step for step in range(1, 101) if milestones.reached(step / 100)] == [25, 50, 75, 100]


def test_milestones_may_have_others_between() -> None:
    milestones = Cadence(2, also_at=[0.25, 0.05, 0.5])
    milestones.start(0)
    assert [step for step in range(1, 101) if milestones.reached(step / 100)] == [5, 25, 50, 100]
    only = Cadence(0, also_at=[0.05])
    only.start(0)
    assert [step for step in range(1, 101) if only.reached(step / 100)] == [5]
    with pytest.raises(ValueError, match="between 0 and 1"):
        Cadence(4, also_at=[5])


@pytest.mark.parametrize("times", [1, 3, 7, 10, 100])
def test_milestones_are_not_repeated_after_a_resume(times: int) -> None:
    straight, value = Cadence(times, also_at=[0.05]), 300
    straight.start(0)
    expected = [step for step in range(1, value + 1) if straight.reached(step / value)]
    for stop in range(value):
        continued = Cadence(times, also_at=[0.05])
        continued.start(stop / value)
        found = [step for step in range(stop + 1, value + 1) if continued.reached(step / value)]
        assert found == [step for step in expected if step > stop]


def test_no_milestones() -> None:
    never = Cadence(0)
    never.start(0)
    assert not never.reached(1.0)
    with pytest.raises(ValueError, match="0 or more"):
        Cadence(-1)


def test_finished_is_about_what_was_used() -> None:
    progress = Progress(examples=100, flops=5.0, seconds=2.0, fraction=1.0)
    assert Examples(100).finished(progress)
    assert not Examples(101).finished(progress)
    assert Flops(5.0).finished(progress)
    assert not Seconds(2.1).finished(progress)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_half_precision_trains(precision: str, tmp_path: Path) -> None:
    run = train(*UNET, f"trainer.precision={precision}", "trainer.gradient_clip_val=0.5", outputs=tmp_path)
    last = read.newest(run)
    assert last.progress.fraction == 1
    assert all(torch.isfinite(w).all() for w in last.state.values())
    assert all(average.dtype == torch.float32 for average in last.content["ema"].values())

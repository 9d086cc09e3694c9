"""What a run says it will take: counted in closed form, and without a trace in its weights."""

from pathlib import Path

import pytest
import torch

from genlab.callbacks.cadence import Cadence
from genlab.callbacks.forecast import in_words
from tiny_run import MLP, train


def test_the_forecast_counts_all_samples_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watched = (*MLP, "metrics=[sharpness]", "callbacks.samples.times=2", "callbacks.evaluation.times=2",
               "callbacks.evaluation.num_samples=3")  # fmt: skip
    silent = train(*watched, outputs=tmp_path / "silent")
    assert "expected:" not in capsys.readouterr().out
    run = train(*watched, "callbacks.forecast.seconds=1e-9", outputs=tmp_path / "said")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("expected:")]
    # said after 32 of 104 examples: two grids of two samples, one judgment on the way of three, the last one of four
    assert "of training" in line
    assert "to draw 11 samples" in line
    one, other = (torch.load(next(folder.glob("checkpoints/*.ckpt")), weights_only=True) for folder in (silent, run))
    assert all(torch.equal(one["ema"][name], other["ema"][name]) for name in one["ema"])


def test_points_ahead() -> None:
    milestones = Cadence(4, also_at=[0.1])
    assert [milestones.ahead(fraction) for fraction in (0.0, 0.1, 0.25, 0.6, 1.0)] == [5, 4, 3, 2, 0]


@pytest.mark.parametrize(("seconds", "words"), [(59.4, "59 s"), (200, "3 min 20 s"), (8000, "2 h 13 min")])
def test_durations_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words

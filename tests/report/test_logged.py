"""metrics.csv is thinned while it is read: few points are all kept, of many the extremes; the file is opened once."""

from pathlib import Path

import numpy as np
import pytest
from run_folders import make_run

from genlab.files import regular_file
from genlab.report import thinned
from genlab.report.comparison import compare
from genlab.report.logged import read_logged
from genlab.report.thinned import MOST, MOST_OF_RUN, MOST_SPENT, Thinned

HEAD = "step,progress/examples,progress/flops,progress/seconds,train/loss,val/fid\n"


def _write(run: Path, values: np.ndarray, every: int = 10) -> None:
    """A row a step; progress every few, and fid with it."""
    run.mkdir(parents=True, exist_ok=True)
    lines = [f"{i},{64 * (i + 1)},{1e6 * (i + 1)},{0.5 * (i + 1)},{value!r},{value / 2!r}\n" if i % every == every - 1
             else f"{i},,,,{value!r},\n" for i, value in enumerate(values.tolist())]  # fmt: skip
    (run / "metrics.csv").write_text(HEAD + "".join(lines))


def test_few_points_are_all_kept(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=MOST // 2 - 1)
    _write(tmp_path, values, every=1)
    curve = read_logged(tmp_path).curves["train/loss"]
    steps = np.arange(len(values)) + 1
    assert np.array_equal(curve, np.column_stack([64 * steps, 1e6 * steps, 0.5 * steps, values]))


def test_of_many_the_lowest_and_the_highest_of_each_stretch(tmp_path: Path) -> None:
    count = 30_000
    values = np.random.default_rng(0).normal(size=count)
    values[[12_345, 23_456]] = 50, -50
    _write(tmp_path, values)
    found = read_logged(tmp_path)
    assert (found.rows, found.points["train/loss"], found.points["val/fid"]) == (count, count, count // 10)
    curve = found.curves["train/loss"]
    assert MOST / 4 < len(curve) <= MOST + 4
    assert len(found.spent) <= MOST_SPENT
    steps = np.rint(curve[:, 0] / 64).astype(int) - 1
    assert (np.diff(steps) > 0).all()
    assert np.array_equal(values[steps], curve[:, 3])  # each is a point of the file, in its place
    assert np.allclose(curve[:, 1] / 1e6, steps + 1)  # interpolated between rows of progress
    assert (steps[0], steps[-1]) == (0, count - 1)
    assert {12_345, 23_456} <= set(steps)
    assert found.latest == {"examples": 64.0 * count, "flops": 1e6 * count, "seconds": 0.5 * count}
    for start in range(0, count, 256):  # no stretch of twice the longest is without its extremes
        part = values[start : start + 256]
        kept = curve[(steps >= start) & (steps < start + 256), 3]
        assert {part.min(), part.max()} & set(kept)


@pytest.mark.parametrize("blocks", [1, 7, 1000])
def test_what_is_kept_does_not_depend_on_how_it_came(blocks: int) -> None:
    values = np.random.default_rng(1).normal(size=5000)
    whole, parts = Thinned(128), Thinned(128)
    whole.add(np.arange(5000.0), values)
    for part in np.array_split(np.arange(5000), blocks):
        parts.add(part.astype(float), values[part])
    assert np.array_equal(np.array(whole.points()), np.array(parts.points()))
    assert len(whole.points()[0]) <= 128 + 4
    assert {values.min(), values.max()} <= set(whole.points()[1])


def test_memory_depends_on_columns_not_on_rows(tmp_path: Path) -> None:
    names = [f"train/{i}" for i in range(600)]
    rows = "".join(f"{i}{',1.5' * len(names)}\n" for i in range(200))
    (tmp_path / "metrics.csv").write_text(",".join(["step", *names]) + "\n" + rows)
    found = read_logged(tmp_path)
    assert found.rows == 200
    assert sum(map(len, found.curves.values())) <= 1.2 * MOST_OF_RUN


def test_progress_beyond_its_room_is_thinned_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thinned, "_MOST_PROGRESS", 100)
    monkeypatch.setattr(thinned, "_BLOCK", 1 << 12)
    _write(tmp_path, np.arange(3000.0), every=1)
    curve = read_logged(tmp_path).curves["train/loss"]
    assert np.allclose(curve[:, 0] / 64 - 1, curve[:, 3], atol=1e-6)  # straight progress stays straight


def test_steps_that_were_made_again(tmp_path: Path) -> None:
    """A run that went on from an earlier step than it had logged: the later rows are right about progress."""
    (tmp_path / "metrics.csv").write_text(HEAD + "9,100,1e6,1,5,\n19,200,2e6,2,4,\n9,110,1e6,1,6,\n19,220,2e6,2,3,\n")
    curve = read_logged(tmp_path).curves["train/loss"]
    assert curve[:, [0, 3]].tolist() == [[110, 5], [220, 4], [110, 6], [220, 3]]


def test_a_comparison_opens_each_table_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(3):
        run = make_run(tmp_path / "runs" / str(i), finished=i > 0, color=None, seed=i)
        _write(run, np.arange(50.0))
    opened: list[str] = []
    real = regular_file.open_regular
    monkeypatch.setattr(
        regular_file, "open_regular", lambda path, *a, **k: opened.append(path.name) or real(path, *a, **k)
    )
    compare([str(tmp_path / "runs")], out=str(tmp_path / "out"), plots=False)
    assert opened.count("metrics.csv") == 3
    assert opened.count("config.yaml") == 3


def test_no_rows_and_no_file(tmp_path: Path) -> None:
    assert read_logged(tmp_path).curves == {}
    for content in ("", "\n", HEAD, HEAD + "half of", "a,b\n1,2\n"):
        (tmp_path / "metrics.csv").write_text(content)
        found = read_logged(tmp_path)
        assert (found.curves, found.problem, found.latest) == ({}, "", {})

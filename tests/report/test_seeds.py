"""Runs that differ in their seed alone: one row, a mean and an interval; each seed in the CSV; who is the best."""

import csv
import re
from pathlib import Path
from typing import Any

import pytest
from run_folders import make_run

from genlab.report.comparison import compare
from genlab.report.configurations import configurations
from genlab.report.runs import read_runs

DIT = {"_target_": "genlab.model.network.dit.DiT", "depth": 6}


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    monkeypatch.setattr("genlab.report.plots.draw", lambda *_: [])


def seeded(folder: Path, seed: int, **more: Any) -> Path:
    return make_run(folder, seed=seed, model__seed=seed, data__seed=seed, **more)


def grouped(*folders: Path) -> list[list[str]]:
    runs = read_runs([str(folder) for folder in folders])
    return [[runs[i].folder.name for i in group] for group in configurations(runs)]


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Three seeds of a U-Net, three of a DiT that is no better nor worse, three of one that is far worse."""
    for seed, (unet, dit, small) in enumerate([(1.0, 1.1, 5.0), (1.2, 1.3, 5.1), (1.1, 1.0, 5.2)]):
        seeded(tmp_path / f"unet{seed}", seed, metrics={"fid_digits64_1k": unet})
        seeded(tmp_path / f"dit{seed}", seed, metrics={"fid_digits64_1k": dit}, model__network=DIT)
        seeded(tmp_path / f"small{seed}", seed, metrics={"fid_digits64_1k": small}, model__network=DIT | {"depth": 2})
    return tmp_path


def test_runs_that_differ_in_their_seed_alone_are_one_configuration(tmp_path: Path) -> None:
    b, a = seeded(tmp_path / "b", 1), seeded(tmp_path / "a", 0)
    other = seeded(tmp_path / "c", 0, model__optimizer__lr=0.1)
    assert grouped(b, other, a) == [["a", "b"], ["c"]]  # by seed


def test_a_seed_that_goes_its_own_way_is_a_setting(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"{seed}{own}", seed=seed, model__seed=seed, data__seed=own)
            for own in (7, 8) for seed in (0, 1)]  # fmt: skip
    assert sorted(grouped(*runs)) == [["07", "17"], ["08", "18"]]


def test_data_of_a_fixed_seed_are_no_setting(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / str(seed), seed=seed, model__seed=seed, data__seed=0) for seed in (0, 1)]
    assert grouped(*runs) == [["0", "1"]]


def test_a_repeated_seed_is_no_other_draw(tmp_path: Path) -> None:
    runs = [seeded(tmp_path / name, seed) for name, seed in (("a", 0), ("b", 1), ("c", 0))]
    assert grouped(*runs) == [["a", "b"], ["c"]]


def test_the_terminal(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare([str(outputs)], out=str(outputs / "x"))
    shown = capsys.readouterr().out
    cells = [re.split(r"\s{2,}", line)[:3] for line in shown.splitlines() if line.startswith("diffusion")][:3]
    assert cells == [
        ["diffusion network=unet", "3", "1.100 ±0.248 ◂"],
        ["diffusion network=dit depth=6", "3", "1.133 ±0.379 ≈"],
        ["diffusion network=dit depth=2", "3", "5.100 ±0.248 †"],
    ]
    assert "±: 95 % t-interval of the mean over seeds" in shown
    assert "p = 0.1 at best, before it is corrected for 3 pairs: it could tell with 5 seeds each" in shown
    assert "\x1b" not in shown


def test_bold_where_a_terminal_is(
    outputs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genlab.report.comparison._shows_bold", lambda: True)
    compare([str(outputs)], out=str(outputs / "x"))
    shown = capsys.readouterr().out
    assert re.findall("\x1b\\[1m([^\x1b]*)\x1b\\[0m", shown)[0].strip() == "1.100 ±0.248"
    assert "◂" not in shown


def test_each_seed_is_in_the_csv(outputs: Path) -> None:
    compare([str(outputs)], out=str(outputs / "x"))
    with (outputs / "x" / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    first = rows[:5]
    assert [row["kind"] for row in first] == ["configuration", "interval", "run", "run", "run"]
    assert [float(row["fid_digits64_1k"]) for row in first] == pytest.approx([1.1, 0.2484, 1.0, 1.2, 1.1], abs=1e-4)
    assert [row["seed"] for row in first] == ["", "", "0", "1", "2"]
    assert [Path(row["folder"]).name for row in first[2:]] == ["unet0", "unet1", "unet2"]
    judged = {row["name"]: (row["best"], row["not_told_apart"], row["apart_if_normal"])
              for row in rows if row["kind"] == "configuration"}  # fmt: skip
    assert judged == {
        "diffusion network=unet": ("fid_digits64_1k", "", ""),
        "diffusion network=dit depth=6": ("", "fid_digits64_1k", ""),
        "diffusion network=dit depth=2": ("", "", "fid_digits64_1k"),
    }


def test_the_matrix(outputs: Path) -> None:
    compare([str(outputs)], out=str(outputs / "x"))
    written = (outputs / "x" / "comparison.md").read_text()
    assert "| diffusion network=unet | 3 | **1.100 ±0.248** |" in written
    part = written[written.index("### fid") :]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in part.splitlines()[2:7]]
    assert lines[0][1:] == ["diffusion network=unet", "diffusion network=dit depth=6", "diffusion network=dit depth=2"]
    assert lines[2][1] == ""
    assert lines[2][2].startswith("-0.0333 ±")
    assert lines[2][3].startswith("**-4 ±")
    assert lines[4][1].startswith("**+4 ±")
    with (outputs / "x" / "differences.csv").open(newline="") as file:
        pairs = [row for row in csv.DictReader(file) if row["column"] == "fid_digits64_1k"]
    assert [row["verdict"] for row in pairs].count("apart if normal") == 2
    assert [float(row["lowest_p"]) for row in pairs] == pytest.approx([0.3] * 3)


def test_higher_is_better_keeps_its_sign(tmp_path: Path) -> None:
    for seed in range(3):
        seeded(tmp_path / f"a{seed}", seed, metrics={"precision_digits64_1k": 0.8 + seed / 100})
        seeded(tmp_path / f"b{seed}", seed, metrics={"precision_digits64_1k": 0.5 + seed / 100}, model__network=DIT)
    compare([str(tmp_path)], out=str(tmp_path / "x"), sort="precision")
    written = (tmp_path / "x" / "comparison.md").read_text()
    part = written[written.index("### precision") :]
    assert re.search(r"\| diffusion network=unet \|  \| \*\*\+0.3 ", part)


def test_a_seed_without_a_number_leaves_the_mean_of_the_others(tmp_path: Path) -> None:
    seeded(tmp_path / "a", 0)
    seeded(tmp_path / "b", 1, protocol_id=None)
    compare([str(tmp_path)], out=str(tmp_path / "x"))
    with (tmp_path / "x" / "comparison.csv").open(newline="") as file:
        assert [row["fid_digits64_1k"] for row in csv.DictReader(file)] == ["1.25", "", "1.25", ""]


def test_numbers_that_were_measured_otherwise_are_best_of_nothing(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", {"fid_digits64_1k": 0.5}, {"num_samples": 500}, "bbbb2222", model__network=DIT)
    make_run(tmp_path / "c", {"fid_digits64_1k": 9.5}, model__network=DIT | {"depth": 2})
    compare([str(tmp_path)], out=str(tmp_path / "x"), allow_unequal=True)
    with (tmp_path / "x" / "comparison.csv").open(newline="") as file:
        best = {row["folder"].rpartition("/")[2]: row["best"].split() for row in csv.DictReader(file)}
    assert "fid" in best["a"]
    assert "fid" not in best["b"]


def test_nobody_is_best_at_what_all_were_given(tmp_path: Path) -> None:
    for name, seconds, rate in (("a", 300.1, 0.1), ("b", 300.4, 0.2)):
        budget = {"_target_": "genlab.budget.Seconds", "value": 300}
        make_run(tmp_path / name, costs={"seconds": seconds}, budget=budget, model__optimizer__lr=rate)
    compare([str(tmp_path)], out=str(tmp_path / "x"))
    assert "**300" not in (tmp_path / "x" / "comparison.md").read_text()

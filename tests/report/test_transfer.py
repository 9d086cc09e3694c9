"""What beginning with other weights gains: ``compare transfer=true`` of runs that differ in ``start=`` alone."""

import csv
import io
import re
from pathlib import Path
from typing import Any

import pytest
from run_folders import make_run, write
from scipy import stats

from genlab.errors import ConfigError
from genlab.report import transfer as module
from genlab.report.columns import columns, over_seeds
from genlab.report.comparison import compare
from genlab.report.configurations import configurations
from genlab.report.protocol import choose
from genlab.report.runs import read_runs
from genlab.report.transfer import RANDOM, Transfer

FLOPS = 1e6  # of an example
HEAD = "step,progress/examples,progress/flops,progress/seconds,val/fid_digits64_1k\n"
SEEDS = (0, 1, 2)


def begun(where: str, before: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    node: dict[str, Any] = {
        "where": f"runs/sources/{where}",
        "only": None,
        "freeze": [],
        "adapter": None,
        "sha256": where * 8,
    }
    return node | ({"examples": 400, "flops": 400 * FLOPS} if before is None else before) | more


def trained(folder: Path, final: float, seed: int, start: dict[str, Any] | None = None, **more: Any) -> Path:
    """A run whose FID falls straight from 100, at 0 examples, to ``final``, at 1,000, measured at every hundredth."""
    amount = more.pop("num_train", 5_000)
    made = make_run(folder, {"fid_digits64_1k": final}, costs={"num_train": amount}, color=None, seed=seed,
                    model__seed=seed, data__seed=seed, start=start, **more)  # fmt: skip
    rows = [(n, 100 + (final - 100) * n / 1000) for n in range(100, 1001, 100)]
    write(made / "metrics.csv", HEAD + "".join(f"{n},{n},{n * FLOPS},{n},{fid}\n" for n, fid in rows))
    return made


def found(runs: Path) -> Transfer:
    read = read_runs([str(runs)])
    chosen = choose(read, [str(run.folder) for run in read], None, False)
    groups = configurations(read)
    column = next(column for column in columns(read, chosen, {})[0] if column.name == "fid")
    return module.transfer(read, groups, over_seeds(column, groups))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Few and many pictures; random weights, those of another run, which help, and a control, which does not."""
    for count, worse in ((5, 10.0), (50, 0.0)):
        for seed in SEEDS:
            more: dict[str, Any] = {"data__per_class": count, "num_train": 10 * count}
            trained(tmp_path / f"{count}-scratch{seed}", 40 + worse + seed, seed, **more)
            trained(tmp_path / f"{count}-ssl{seed}", 20 + seed, seed, begun("ssl"), **more)
            trained(tmp_path / f"{count}-shuffled{seed}", 41 + worse - seed, seed, begun("shuffled"), **more)
    return tmp_path


def test_gains_are_differences_of_means_with_the_intervals_of_welch(runs: Path) -> None:
    few, many = found(runs).tasks
    assert (few.num_train, many.num_train) == (50, 500)
    assert few.kind == many.kind
    assert "per_class=5" in few.name
    assert [each.name for each in few.beginnings] == [RANDOM, "ssl", "shuffled"]  # random weights, then the best first
    table = {row["begins_with"]: row for row in csv.DictReader(io.StringIO(found(runs).csv())) if "=50" in row["task"]}
    test = stats.ttest_ind([20.0, 21, 22], [40.0, 41, 42], equal_var=False)
    low, high = test.confidence_interval()
    assert float(table["ssl"]["gain"]) == pytest.approx(20)
    assert float(table["ssl"]["gain_half_width"]) == pytest.approx((high - low) / 2)
    assert float(table["shuffled"]["gain"]) == pytest.approx(1)
    assert table[RANDOM]["gain"] == ""


def test_a_control_gains_nothing_and_is_said_to(runs: Path) -> None:
    said = found(runs).lines()
    of = {line.partition(",")[0]: line for line in said if "per_class=50:" in line}
    assert "gains 20 ±" in of["ssl"]
    assert re.search(r"gains nothing that is more than luck \(\+1 ±[\d.]+, corrected p 0\.\d+\)", of["shuffled"])
    assert "fid 21 ±2.5, with random weights 41 ±2.5" in of["ssl"]


def test_examples_and_flops_to_the_same_end_are_where_the_lines_cross(runs: Path) -> None:
    """On a straight line from 100 to 21, 41 is there after 59 / 79 of 1,000 examples; and 400 came before."""
    table = {row["begins_with"]: row for row in csv.DictReader(io.StringIO(found(runs).csv())) if "=50" in row["task"]}
    assert float(table["ssl"]["examples_to_random"]) == pytest.approx(1000 * 59 / 79)
    assert float(table["ssl"]["flops_to_random"]) == pytest.approx((400 + 1000 * 59 / 79) * FLOPS)
    assert float(table[RANDOM]["examples_to_random"]) == pytest.approx(1000)
    assert float(table["ssl"]["pretraining_examples"]) == 400
    line = next(line for line in found(runs).lines() if line.startswith("ssl") and "per_class=50:" in line)
    assert "after 1,000 examples is reached after 747, and after 1.1 times the FLOPs, pretraining counted" in line


def test_what_is_worse_loses_and_never_gets_there(tmp_path: Path) -> None:
    for seed in SEEDS:
        trained(tmp_path / f"scratch{seed}", 20 + seed, seed)
        trained(tmp_path / f"ssl{seed}", 60 + seed, seed, begun("ssl"))
    (line,) = found(tmp_path).lines()
    assert "loses 40 ±" in line
    assert line.endswith("what random weights end with is not reached")


def test_where_nobody_knows_what_was_spent_before_it_is_said(tmp_path: Path) -> None:
    """Of an older run, or of weights that another library made."""
    for seed in SEEDS:
        trained(tmp_path / f"scratch{seed}", 40 + seed, seed)
        trained(tmp_path / f"ssl{seed}", 20 + seed, seed, begun("ssl", {}))
    (line,) = found(tmp_path).lines()
    assert line.endswith("is reached after 747, and what it began with cost nobody knows how much")


def test_beginnings_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for seed in SEEDS:
        trained(tmp_path / f"scratch{seed}", 40 + seed, seed)
        for name, more in (("a", {}), ("b", {"freeze": ["network.*"]}), ("c", {"sha256": "f" * 64})):
            trained(tmp_path / f"{name}{seed}", 20 + seed, seed, begun("ssl", None, **more))
    (task,) = found(tmp_path).tasks
    names = {each.name for each in task.beginnings[1:]}
    assert names == {"ssl, network.* frozen", "ssl (sslssl)", "ssl (ffffff)"}


def test_one_seed_says_nothing_of_luck(tmp_path: Path) -> None:
    trained(tmp_path / "scratch", 40, 0)
    trained(tmp_path / "ssl", 20, 0, begun("ssl"))
    assert "one seed cannot say whether that is more than luck" in found(tmp_path).lines()[0]


def test_the_command_writes_all_of_it(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    compare([str(runs)], out=str(out), transfer=True)
    said = capsys.readouterr().out
    assert "What they began with:\n  ssl, Diffusion of Digits, per_class=5: fid 21 ±2.5" in said
    assert "transfer.csv and" in said
    assert (out / "transfer.csv").read_text() == found(runs).csv()
    drawn = {path.name for path in (out / "plots").glob("transfer*.svg")}
    assert drawn == {"transfer-fid.svg", "transfer-amounts-fid.svg"}
    text = (out / "comparison.md").read_text()
    assert "## What they began with" in text
    assert "![transfer-amounts-fid](plots/transfer-amounts-fid.svg)" in text
    assert "gains nothing that is more than luck" in (out / "report.html").read_text()


def test_runs_without_a_beginning_to_compare_with_are_refused(tmp_path: Path) -> None:
    for seed in SEEDS:
        trained(tmp_path / f"ssl{seed}", 20 + seed, seed, begun("ssl"))
    message = "transfer=true: there are no runs that differ in start= alone, one of them without it. Leave it out."
    with pytest.raises(ConfigError, match=re.escape(message)):
        compare([str(tmp_path)], transfer=True, plots=False)
    compare([str(tmp_path)], out=str(tmp_path / "out"), plots=False)


@pytest.mark.parametrize("hostile", ["\x1b[2J", "</script><script>alert(1)", "=cmd|' /C calc'!A0", "日本 ✓" * 99])
def test_names_of_strangers_are_shown_as_text(hostile: str, tmp_path: Path) -> None:
    for seed in SEEDS:
        trained(tmp_path / "runs" / f"scratch{seed}", 40 + seed, seed)
        trained(tmp_path / "runs" / f"ssl{seed}", 20 + seed, seed, begun(hostile))
    compare([str(tmp_path / "runs")], out=str(tmp_path / "out"), transfer=True)
    for path in (tmp_path / "out").glob("*.*"):
        assert b"\x1b" not in path.read_bytes() or path.suffix == ".png"
    assert "<script>alert(1)" not in (tmp_path / "out" / "report.html").read_text()
    assert not re.search(r"(?m)(^|,)=cmd", (tmp_path / "out" / "transfer.csv").read_text())


@pytest.mark.parametrize("start", [{"examples": "many", "flops": 1}, {"examples": [1], "flops": {}}])
def test_a_run_that_says_nonsense_is_left_out(start: dict[str, Any], tmp_path: Path) -> None:
    for seed in SEEDS:
        trained(tmp_path / f"scratch{seed}", 40 + seed, seed)
        trained(tmp_path / f"ssl{seed}", 20 + seed, seed, begun("ssl"))
    trained(tmp_path / "bad", 20, 7, begun("ssl", start))
    with pytest.raises(ConfigError, match=r"bad/config\.yaml: examples is not a number"):
        found(tmp_path)

"""Curves: each number where it was measured, in all three currencies, of a file that may still be written to."""

from pathlib import Path

import pytest
from run_folders import write

from genlab.report.curve_plots import average, value
from genlab.report.curves import Point, read_curves

HEAD = "step,progress/examples,progress/flops,progress/seconds,train/loss,val/fid,val/loss\n"


def test_each_number_is_where_it_was_measured(tmp_path: Path) -> None:
    """Of a batch of 10: progress is logged after 10, 20 and 25 steps, evaluations come after 5, 20 and at the end."""
    write(tmp_path / "metrics.csv", HEAD + "4,,,,,9.0,3.0\n9,100,1e6,2.0,1.0,,\n19,200,2e6,6.0,0.9,8.0,\n"
          "24,250,2.5e6,7,0.8,,\n25,,,,,7.0,")  # fmt: skip
    assert read_curves(tmp_path) == {"fid": [Point(50, 5e5, 1.0, 9.0), Point(200, 2e6, 6.0, 8.0)],
                                     "loss": [Point(50, 5e5, 1.0, 3.0)]}  # fmt: skip
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("\n")  # half a line is none
    assert read_curves(tmp_path)["fid"][-1] == Point(250, 2.5e6, 7.0, 7.0)


def test_what_is_no_number_is_left_out(tmp_path: Path) -> None:
    write(tmp_path / "metrics.csv", HEAD + "9,100,1e6,2.0,1.0,nan,abc\n19,200,2e6,4.0,1.0,inf,2\nx,,,,,5,5\n")
    assert read_curves(tmp_path) == {"loss": [Point(200, 2e6, 4.0, 2.0)]}
    assert read_curves(tmp_path / "nowhere") == {}


def test_other_columns_by_their_prefix(tmp_path: Path) -> None:
    write(tmp_path / "metrics.csv", HEAD + "9,100,1e6,2.0,1.5,,\n")
    assert read_curves(tmp_path, "train/") == {"loss": [Point(100, 1e6, 2.0, 1.5)]}


def test_the_mean_of_seeds_where_all_are_known() -> None:
    seeds = [[(0.0, 0.0), (2.0, 4.0)], [(1.0, 4.0), (3.0, 8.0)]]
    assert average(seeds) == ([1.0, 2.0], [3.0, 5.0], [2.0, 4.0], [4.0, 6.0])
    assert value(seeds[0], 0.5) == pytest.approx(1.0)

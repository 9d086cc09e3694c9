"""No cell of a CSV file is a formula to a spreadsheet, and numbers stay numbers."""

import csv
import io
from pathlib import Path

import pytest

from genlab.errors import StorageError
from genlab.files.spreadsheet import Writer, as_written, safe
from genlab.logger.metrics_file import MetricsFile

FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1+1", '=HYPERLINK("http://x")']


@pytest.mark.parametrize("cell", FORMULAS)
def test_formulas_become_text_and_are_read_back(cell: str) -> None:
    assert safe(cell) == f"'{cell}"
    assert as_written(safe(cell)) == cell


@pytest.mark.parametrize("cell", ["-1.5", "+2e-3", "-inf", "", "val/fid", "'tis", "a=b", -1.5, None])
def test_all_else_is_as_it_was(cell: object) -> None:
    assert safe(cell) == cell
    assert not isinstance(cell, str) or as_written(cell) == cell


def test_rows_of_a_writer() -> None:
    file = io.StringIO()
    Writer(file).writerow(["=1", -0.5, "a,b"])
    assert file.getvalue() == '\'=1,-0.5,"a,b"\n'


def test_names_of_metrics_in_metrics_csv(tmp_path: Path) -> None:
    first = MetricsFile(tmp_path)
    first.log_metrics({"=cmd": 1.0, "val/x": -2.0}, 1)
    first.finalize("")
    header = next(csv.reader((tmp_path / "metrics.csv").open()))
    assert header == ["step", "'=cmd", "val/x"]
    again = MetricsFile(tmp_path)
    again.log_metrics({"=cmd": 3.0}, 2)
    again.finalize("")
    rows = list(csv.reader((tmp_path / "metrics.csv").open()))
    assert rows == [header, ["1", "1.0", "-2.0"], ["2", "3.0", ""]]


def test_a_formula_in_a_strangers_metrics_csv_is_damage(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,x\n1,=1+1\n")
    with pytest.raises(StorageError, match="damaged"):
        MetricsFile(tmp_path)

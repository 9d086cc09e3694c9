"""Folders of runs with names that act: neither the terminal nor the files of a comparison hold them as they are."""

import csv
import re
from pathlib import Path

import pytest
from run_folders import make_run

from genlab.report.comparison import compare

ACTS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def test_escapes_and_formulas_in_names_of_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("=cmd()", "@a\x1b]0;owned\x07\x1b[2J", "-b\x9b2J\r"):
        make_run(Path(name))
    compare(["=cmd()", "@a\x1b]0;owned\x07\x1b[2J", "-b\x9b2J\r"], out="out", plots=False)
    said = capfd.readouterr()
    assert not ACTS.search(said.out + said.err)
    for file in ("comparison.md", "comparison.csv", "comparison.tex", "report.html"):
        assert not ACTS.search((tmp_path / "out" / file).read_text()), file
    cells = [cell for row in csv.reader((tmp_path / "out" / "comparison.csv").open()) for cell in row]
    assert "'=cmd()" in cells
    assert not [cell for cell in cells if cell.startswith(("=", "@", "+")) or re.match(r"-[^\d]", cell)]

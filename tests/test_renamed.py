"""Runs that were saved before a class moved still find it, and compare with those saved after."""

from pathlib import Path

import pytest
import yaml

from genlab.config.build import resolve
from genlab.config.renamed import RENAMED, with_current_names
from genlab.report.runs import read_run
from genlab.run.run_folder import read_config

SAVED = (
    (Path(__file__).parent / "unchanged/targets.txt").read_text().split()
)  # of all times: lines are added, none leave


@pytest.mark.parametrize("name", SAVED)
def test_every_name_that_was_ever_saved_is_found(name: str) -> None:
    assert isinstance(resolve(name, "x"), type)


def test_a_name_that_moved_is_listed_once_and_leads_to_one_that_did_not() -> None:
    assert set(RENAMED) <= set(SAVED)
    assert not set(RENAMED) & set(RENAMED.values())


def test_names_are_put_right_at_any_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RENAMED, "genlab.old.Old", "genlab.new.New")
    node = {"_target_": "genlab.old.Old", "a": [{"b": {"_target_": "genlab.old.Old"}}], "name": "genlab.old.Old"}
    assert with_current_names(node) == {
        "_target_": "genlab.new.New", "a": [{"b": {"_target_": "genlab.new.New"}}], "name": "genlab.old.Old",
    }  # fmt: skip
    assert with_current_names({"_target_": None, "a": (1,)}) == {"_target_": None, "a": (1,)}


def test_a_run_of_before_reads_as_one_of_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RENAMED, "genlab.old.Old", "genlab.new.New")
    config = {part: {} for part in ("trainer", "budget", "evaluation", "metrics", "spec", "pretrained")}
    for name in ("genlab.old.Old", "genlab.new.New"):
        folder = tmp_path / name
        folder.mkdir()
        parts = {part: {"_target_": name} for part in ("model", "data")}
        (folder / "config.yaml").write_text(yaml.safe_dump(config | parts))
    before, after = tmp_path / "genlab.old.Old", tmp_path / "genlab.new.New"
    assert read_run(before).config == read_run(after).config
    assert read_config(before) == read_config(after)
    assert read_config(before)["model"] == {"_target_": "genlab.new.New"}

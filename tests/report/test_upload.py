"""The table to W&B: offline into a folder that can be sent later; a failure costs a line, not the comparison."""

from pathlib import Path

import pytest
from run_folders import BASELINES, add_evaluation, make_run

from genlab.report import comparison, upload
from genlab.report.comparison import compare


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for seed in (0, 1):
        made = make_run(tmp_path / "runs" / f"a{seed}", {"fid_digits64_1k": 1.0 + seed}, seed=seed)
    make_run(tmp_path / "runs" / "b", {"fid_digits64_1k": float("nan")}, model__optimizer__lr=0.1)
    add_evaluation(made, {"fid_digits64_1k": 2.0}, baselines=BASELINES)
    return tmp_path / "runs"


def test_offline(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wandb = pytest.importorskip("wandb")
    del wandb
    compare([str(runs)], out=str(tmp_path / "c"), plots=False, wandb=True)
    *_, last = capsys.readouterr().out.splitlines()
    (folder,) = (tmp_path / "c" / "wandb").glob("offline-run-*")
    assert last == f"W&B: offline; send it with: wandb sync {folder}"
    (table,) = folder.rglob("comparison_*.table.json")
    assert '"mean of seeds"' in table.read_text()
    assert list(folder.rglob("*.png"))
    compare([str(tmp_path)], out=str(tmp_path / "d"), plots=False)  # what W&B leaves there is no run


def test_the_rows(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = []
    monkeypatch.setattr(upload, "upload", lambda table, *_: tables.append(table) or "sent")
    compare([str(runs)], out=str(tmp_path / "c"), plots=False, wandb=True)
    names, rows = upload.rows_of(tables[0])
    fid = names.index("fid_digits64_1k")
    assert [(row[1], row[2], row[fid]) for row in rows] == [
        ("mean of seeds", None, 1.5), ("run", 0, 1.0), ("run", 1, 2.0), ("run", 0, None), ("baseline", None, 0.76),
        ("baseline", None, 185.75),
    ]  # fmt: skip
    assert {len(row) for row in rows} == {len(names)}


def test_a_service_that_fails_costs_a_line(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> str:
        raise ConnectionResetError("gone\nwith api_key=abcdefgh")

    monkeypatch.setattr(upload, "_send", fails)
    compare([str(runs)], out=str(tmp_path / "c"), plots=False, wandb=True)
    *_, last = capsys.readouterr().out.splitlines()
    assert last.startswith("W&B: not sent (gone with api_key=***); the comparison is complete in ")
    assert (tmp_path / "c" / "comparison.md").exists()
    assert comparison.UNFINISHED not in (tmp_path / "c" / "comparison.md").read_text()

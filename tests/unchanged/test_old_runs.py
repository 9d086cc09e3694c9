"""Run folders that an earlier version wrote and left half way: they are still sampled from, measured, compared, and go
on to the end that the run without a stop had.

``runs/`` has each folder; beside it a JSON of how that version ended the run when nothing stopped it, and the files of
that finished run that a comparison reads. Only commands and what they write are used here: names of options, of classes
and of tensors are free to change.
"""

import csv
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from genlab import cli

KEPT = Path(__file__).parent / "runs"
NAMES = ("diffusion-digits", "transformer-text")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Copies of the kept folders, in a current folder from which their relative paths hold."""
    here, folder = Path.cwd(), tmp_path_factory.mktemp("kept")
    shutil.copytree(KEPT, folder / "runs")
    os.chdir(folder)
    yield Path("runs")
    os.chdir(here)


@pytest.fixture(scope="module")
def continued(runs: Path) -> Path:
    """Copies that have gone on to the end."""
    for name in NAMES:
        shutil.copytree(KEPT / name, runs / f"{name}-continued")
        command("train", f"run={runs / name}-continued")
    return runs


def command(*words: str) -> None:
    """Raises RuntimeError if it fails."""
    try:
        cli.main(list(words))
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"genlab {' '.join(words)} left with {end.code}") from None


def losses(run: Path) -> list[float]:
    with (run / "metrics.csv").open(newline="") as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def state(run: Path) -> dict[str, Any]:
    newest = run / "checkpoints" / (run / "checkpoints" / "newest").read_text().strip()
    content: dict[str, Any] = torch.load(newest, weights_only=True)
    return content


def norms(tensors: dict[str, torch.Tensor]) -> list[tuple[list[int], float]]:
    """The shape and the length of each tensor, in an order that does not depend on their names."""
    return sorted((list(tensor.shape), float(tensor.double().norm())) for tensor in tensors.values())


@pytest.mark.parametrize("name", NAMES)
def test_goes_on_to_the_end_of_the_run_without_a_stop(name: str, continued: Path) -> None:
    ended, run = json.loads((KEPT / f"{name}.json").read_text()), continued / f"{name}-continued"
    assert len(losses(KEPT / name)) < len(ended["losses"])
    assert losses(run) == pytest.approx(ended["losses"], rel=1e-5)
    for kind, key in (("weights", "state_dict"), ("averages", "ema")):
        found = norms(state(run)[key])
        assert [shape for shape, _ in found] == [shape for shape, _ in ended[kind]]
        assert [norm for _, norm in found] == pytest.approx([norm for _, norm in ended[kind]], rel=1e-5)
    found_metrics = json.loads((run / "summary.json").read_text())["metrics"].values()
    assert list(found_metrics) == pytest.approx(ended["metrics"], rel=1e-3)


def test_is_sampled_from(runs: Path) -> None:
    command("sample", f"run={runs / NAMES[0]}", "n=3", "label=[3,7]", "out=digits.png")
    command("sample", f"run={runs / NAMES[1]}", "n=2", "prompt=Who said ", "out=texts.txt")
    assert Path("digits.png").read_bytes().startswith(b"\x89PNG")
    assert Path("texts.txt").read_text(encoding="utf-8", errors="replace").count("Who said ") == 2


@pytest.mark.parametrize("name", NAMES)
def test_is_measured_as_it_was(name: str, runs: Path) -> None:
    """An evaluation of what was saved gives the numbers that the earlier version wrote."""
    run = runs / f"{name}-measured"
    shutil.copytree(KEPT / name, run)
    (written,) = run.glob("evaluation-*.json")
    before = json.loads(written.read_text())
    written.unlink()
    command("evaluate", f"run={run}")
    (found,) = run.glob("evaluation-*.json")
    now = json.loads(found.read_text())
    assert list(now["metrics"].values()) == pytest.approx(list(before["metrics"].values()), rel=1e-3)
    assert list(now["ids"].values()) == list(before["ids"].values()), (
        "whatever metrics are called, their numbers compare"
    )
    assert now["protocol_id"] == before["protocol_id"]


@pytest.mark.parametrize("name", NAMES)
def test_is_compared_with_a_run_of_today(name: str, continued: Path) -> None:
    """The numbers that the earlier version measured at its run's end stand beside those of today, and are not refused
    as measured otherwise."""
    finished = continued / f"{name}-finished"  # without its checkpoint
    command("compare", f"runs=[{finished},{continued / name}-continued]", f"out={name}-compared", "plots=false")
    with (Path(f"{name}-compared") / "comparison.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 2
    measured = json.loads((finished / "summary.json").read_text())["metrics"].values()
    numbers = [[float(value) for value in row.values() if is_number(value)] for row in table]
    for value in measured:
        assert all(any(number == pytest.approx(value, rel=1e-3) for number in row) for row in numbers)


def is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True

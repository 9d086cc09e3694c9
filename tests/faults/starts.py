"""Runs that start together get a folder each."""

import os
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import yaml

from faults.life import KILLED
from faults.runs import Place
from faults.trial import Trial
from genlab.command import train
from genlab.run import run_folder

PROMISE = "simultaneous starts: a folder each"


def trials(scale: float) -> Iterator[Trial]:
    count = max(2, round(50 * scale))
    yield Trial(f"starts/{count}", partial(start_together, count), tried=count)


def start_together(count: int, place: Place) -> None:
    outputs = place.outputs()
    overrides = place.runs.overrides("diffusion")
    lives = [place.begin(outputs, *overrides, prepare=partial(_alike, number)) for number in range(count)]
    codes = [life.end() for life in lives]
    assert codes == [KILLED] * count, codes
    folders = [path.parent for path in outputs.glob("*/*/config.yaml")]
    assert len(folders) == count, f"{len(folders)} folders"
    assert all(yaml.safe_load((path / "config.yaml").read_text())["run_dir"] == str(path) for path in folders)


def _alike(number: int) -> None:
    """In a child: names that are the same, but for every other one that is tried; and an end before the first step."""
    tried = iter(range(1000))
    run_folder.secrets = SimpleNamespace(token_hex=lambda _: f"{next(tried) // 2}")  # type: ignore[attr-defined]
    moment = SimpleNamespace(now=lambda: SimpleNamespace(strftime=lambda _: "now"))
    run_folder.datetime = SimpleNamespace(datetime=moment)  # type: ignore[attr-defined]

    def end(*_: Any) -> None:
        os._exit(KILLED)

    train.fit = end  # type: ignore[assignment]

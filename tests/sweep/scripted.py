"""Trials that follow a script instead of training: no process, the files of a run, and an end."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from genlab.sweep import loop
from genlab.sweep.loop import Sweep
from genlab.sweep.plan import read_plan

BUDGET = {"budget": {"_target_": "genlab.budget.Examples", "value": 100}}


class Scripted:
    """``script`` says what a trial does, by one of its overrides: the name of an act for each attempt in turn, the last
    of them for all that follow."""

    def __init__(self, script: Mapping[str, Sequence[str]] | None = None, slots: int = 1):
        self.script, self.slots = script or {}, slots
        self.started: list[tuple[list[str], Path]] = []  # the words of each command, and its folder
        self.most_at_once = 0
        self.at_once: set[int] = set()
        self.begun: Counter[Path] = Counter()
        self.curves: dict[str, Sequence[float]] = {}  # of the metric, by override

    def start(self, command: Sequence[str], env: Mapping[str, str], log: Path, slot: int) -> "ScriptedJob":
        assert slot not in self.at_once
        assert 0 <= slot < self.slots
        self.at_once.add(slot)
        self.most_at_once = max(self.most_at_once, len(self.at_once))
        words, folder = list(command[4:]), log.parent
        assert words[-1] in (f"folder={folder}", f"run={folder}")
        typed = words if "folder=" in words[-1] else (folder / "overrides.txt").read_text().split("\n")
        (folder / "overrides.txt").write_text("\n".join(typed))
        self.started.append((words, folder))
        acts = next((acts for override, acts in self.script.items() if override in typed), ["finish"])
        act = acts[min(self.begun[folder], len(acts) - 1)]
        self.begun[folder] += 1
        curve = next((curve for override, curve in self.curves.items() if override in typed), [1.0])
        return ScriptedJob(folder, act, curve, lambda: self.at_once.discard(slot))


class ScriptedJob:
    is_queued = was_taken = False

    def __init__(self, folder: Path, act: str, curve: Sequence[float], leave: Callable[[], Any]):
        self.folder, self.leave, self.signal = folder, leave, ""
        (folder / "config.yaml").write_text("")
        self.act: Iterator[int | None] = getattr(self, f"_{act}")(curve)

    def poll(self) -> int | None:
        code = next(self.act)
        if code is not None:
            self.leave()
        return code

    def stop(self) -> None:
        self.signal = self.signal or "stop"

    def kill(self) -> None:
        self.signal = "kill"

    def _write_metrics(self, curve: Sequence[float], whole: int) -> None:
        rows = [f"{i},{100 * i / whole},{value}" for i, value in enumerate(curve, 1)]
        (self.folder / "metrics.csv").write_text("\n".join(["step,progress/examples,val/fid_x_8", *rows, ""]))

    def _say(self, line: str) -> None:
        with (self.folder / "trial.log").open("a") as log:
            log.write(f"something\n{line}\n")

    def _save(self) -> None:
        (self.folder / "checkpoints").mkdir(exist_ok=True)
        (self.folder / "checkpoints/examples=000000000008.ckpt").touch()

    def _finish(self, curve: Sequence[float]) -> Iterator[int | None]:
        for reached in range(1, len(curve) + 1):
            self._write_metrics(curve[:reached], len(curve))
            yield None
            if self.signal:
                self._save()
                yield 143
        summary = {"metrics": {"fid_x_1k": curve[-1]}, "directions": {"fid_x_1k": "lower"}}
        (self.folder / "summary.json").write_text(json.dumps(summary))
        yield 0

    def _raise(self, curve: Sequence[float]) -> Iterator[int | None]:
        self._say("error: a bad day")
        yield 1

    def _refuse(self, curve: Sequence[float]) -> Iterator[int | None]:
        (self.folder / "config.yaml").unlink()
        self._say("error: that cannot be")
        yield 2

    def _die(self, curve: Sequence[float]) -> Iterator[int | None]:
        yield None
        yield -9

    def _save_and_die(self, curve: Sequence[float]) -> Iterator[int | None]:
        self._save()
        yield None
        yield -9

    def _lose_its_machine(self, curve: Sequence[float]) -> Iterator[int | None]:
        self.was_taken = True
        yield -9

    def _save_and_lose_its_machine(self, curve: Sequence[float]) -> Iterator[int | None]:
        (self.folder / "checkpoints").mkdir(exist_ok=True)
        count = len(list((self.folder / "checkpoints").iterdir()))
        (self.folder / f"checkpoints/examples={count + 1:012}.ckpt").touch()
        self.was_taken = True
        yield 143

    def _queue(self, curve: Sequence[float]) -> Iterator[int | None]:
        self.is_queued = True
        until = time.monotonic() + 1.2
        while time.monotonic() < until:
            yield -9 if self.signal else None
        self.is_queued = False
        yield from self._finish(curve)

    def _hang(self, curve: Sequence[float]) -> Iterator[int | None]:
        while self.signal != "kill":
            yield None
        yield -9

    def _wait(self, curve: Sequence[float]) -> Iterator[int | None]:
        while not self.signal:
            yield None
        self._save()
        yield 143


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses, and no composing of configs."""
    monkeypatch.setattr(loop, "TICK", 0.0)
    monkeypatch.setattr(loop, "_LOOK", 0.0)
    monkeypatch.setattr(Sweep, "_legal", lambda self, trial: OmegaConf.create(BUDGET))


def run(launcher: Scripted, *overrides: str, outputs: Path) -> Sweep:
    """A sweep called ``s``. -> it, ended; raises what it raises."""
    typed = [f"outputs={outputs}", "sweep.name=s", *overrides]
    swept = Sweep(replace(read_plan(typed, None), launcher=launcher))
    swept.run()
    return swept


def ledger(outputs: Path) -> list[dict[str, Any]]:
    return json.loads((outputs / "s/trials.json").read_text())["trials"]


def states(outputs: Path) -> list[str]:
    return [trial["state"] for trial in ledger(outputs)]

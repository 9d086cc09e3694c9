"""Overhead of a sweep with many trials, measured with trials that do nothing.

A trial writes the files of a run and ends; no process is started for it. Configs are composed and the ledger is
written as always.
"""

import contextlib
import io
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from genlab.sweep import loop
from genlab.sweep.loop import Sweep
from genlab.sweep.plan import read_plan

SWEPT = ("model=vae,gan", "data=digits", "trainer=cpu", "logger=[none]")


class Ended:
    """A trial that was over as soon as it began."""

    is_queued = was_taken = False

    def poll(self) -> int:
        return 0

    def stop(self) -> None:
        """There is nothing to stop."""

    kill = stop


class AtOnce:
    """A launcher of such trials."""

    slots = 2

    def start(self, command: Sequence[str], env: Mapping[str, str], log: Path, slot: int) -> Ended:
        (log.parent / "config.yaml").write_text("")
        (log.parent / "metrics.csv").write_text("step,progress/examples,val/fid_x_8\n1,64,2.5\n")
        (log.parent / "summary.json").write_text(json.dumps({"metrics": {"fid_x_1k": 2.5}}))
        return Ended()


def seconds_a_trial(count: int) -> float:
    """Of a processor, a trial of ``count``; how long the disk takes does not count."""
    tick, loop.TICK = loop.TICK, 0.0  # there is nothing to wait for
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        typed = [
            *SWEPT,
            f"seed=range(0,{count // 2})",
            f"outputs={folder}",
            "sweep.metric=fid",
            "sweep.direction=lower",
        ]
        plan = read_plan(typed, None)
        began = time.process_time()
        Sweep(replace(plan, launcher=AtOnce())).run()
        used = time.process_time() - began
        ran = json.loads((plan.folder / "trials.json").read_text())["trials"]
    loop.TICK = tick
    assert [trial["state"] for trial in ran] == ["finished"] * count
    return used / count

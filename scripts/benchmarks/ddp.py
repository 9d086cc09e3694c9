"""Two processes beside one, on the same global batch: DDP, and FSDP2."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.options import Options
from benchmarks.row import Row, Skipped, row
from benchmarks.timing import Measured, Spent

PROGRAM = Path(__file__).with_name("ddp_worker.py")
ONE = {"cpu": "trainer=cpu", "cuda": "trainer=gpu"}
TWO = {
    "DDP": {"cpu": ("trainer=ddp_cpu",), "cuda": ("trainer=ddp",)},
    "FSDP2": {
        "cpu": (
            "trainer=fsdp",
            "trainer.accelerator=cpu",
            "trainer.precision=32-true",
            "trainer.strategy.process_group_backend=gloo",
        ),
        "cuda": ("trainer=fsdp",),
    },
}
WORK = {
    "U-Net of digits, batch 64": ("data=digits",),
    "transformer 128x4, context 256, batch 16": ("data=python_docs", "model=transformer", "data.context=256", "data.batch_size=16"),
}
TINY = {"U-Net of digits, tiny": ("data=digits", "model.network.channels=8", "data.batch_size=4", "data.limit=64")}


def rows(options: Options) -> Iterator[Row | Skipped]:
    """A step of two processes beside one of one process that does all of it: processes of their own, in turns."""
    if options.device == "cuda":
        import torch

        if torch.cuda.device_count() < 2:
            yield Skipped("ddp", "two GPUs beside one", "this machine has one GPU")
            return
    steps = options.size(20, 2)
    for work, overrides in (TINY if options.quick else WORK).items():
        sides = {"one process": (ONE[options.device],), **{name: given[options.device] for name, given in TWO.items()}}
        measured: Measured = {side: [] for side in sides}
        totals: dict[str, list[float]] = {side: [] for side in sides}
        for number in range(options.rounds):
            for side in list(sides) if number % 2 == 0 else list(reversed(sides)):
                ranks = in_processes((*overrides, *sides[side]), steps, options)
                measured[side].append(Spent(max(r.cpu for r in ranks), max(r.wall for r in ranks)))
                totals[side].append(sum(r.cpu for r in ranks))
        for name in TWO:
            cpu = sorted(totals[name])[len(totals[name]) // 2]
            yield row(
                "ddp",
                f"{work}: {name} of two processes",
                measured,
                "one process",
                "a test shows the weights of one process",
                ours=name,
                aim=1.8 if name == "DDP" else None,
                device=options.device,
                cpu_of_both=cpu,
            )


def in_processes(overrides: tuple[str, ...], steps: int, options: Options) -> list[Spent]:
    """Of a step, by rank."""
    with tempfile.TemporaryDirectory() as folder:
        told: dict[str, Any] = {"folder": folder, "steps": steps, "warm_up": options.size(5, 1)}
        told |= {"device": options.device, "overrides": overrides}
        subprocess.run([sys.executable, str(PROGRAM), json.dumps(told)], check=True)
        return [Spent(**json.loads(path.read_text())) for path in sorted(Path(folder).glob("*.json"))]

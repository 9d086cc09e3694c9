"""Two processes beside one, on the same global batch: DDP, FSDP2, and two that do half the work without a word."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.options import Options
from benchmarks.row import Row, Skipped, row
from benchmarks.timing import Measured, Spent

PROGRAM = Path(__file__).with_name("ddp_worker.py")
ONE, APART = "one process", "two apart"
FP32 = "trainer.precision=32-true"  # where each side would choose by a timing of its own
TRAINERS = {  # by side and device
    ONE: {"cpu": ("trainer=cpu", FP32), "cuda": ("trainer=gpu",)},
    "DDP": {"cpu": ("trainer=ddp_cpu", FP32), "cuda": ("trainer=ddp",)},
    "FSDP2": {
        "cpu": (
            "trainer=fsdp",
            "trainer.accelerator=cpu",
            FP32,
            "trainer.strategy.process_group_backend=gloo",
        ),
        "cuda": ("trainer=fsdp",),
    },
}
WORK: dict[str, tuple[tuple[str, ...], int]] = {  # what is trained, and its global batch
    "U-Net of digits": (("data=digits",), 64),
    "transformer 128x4, context 256": (("data=python_docs", "model=transformer", "data.context=256"), 16),
}
TINY = {"U-Net of digits, tiny": (("data=digits", "model.network.channels=8", "data.limit=64"), 4)}


def rows(options: Options) -> Iterator[Row | Skipped]:
    """A step, in processes of their own, in turns. Of two processes that do half of the batch each and share nothing
    the time says what the machine allows: they meet in its memory, and whatever else runs."""
    if options.device == "cuda":
        import torch

        if torch.cuda.device_count() < 2:
            yield Skipped("ddp", "two GPUs beside one", "this machine has one GPU")
            return
    for work, (overrides, batch) in (TINY if options.quick else WORK).items():
        sides = (*TRAINERS, APART) if options.device == "cpu" else tuple(TRAINERS)
        measured = Measured({side: [] for side in sides})
        for number in range(options.rounds):
            for side in sides if number % 2 == 0 else reversed(sides):
                ranks = spent_by(side, overrides, batch, options)
                # The slower of two is what both wait for; its processor time is the longer without the waiting.
                measured[side].append(Spent(max(r.cpu for r in ranks), max(r.wall for r in ranks)))
        for side in sides[1:]:
            agreement = "the weights of one process, as a test shows" if side == "DDP" else ""
            aim = 1.8 if side == "DDP" else None
            yield row(
                "ddp", f"{work}, batch {batch}: {side}", measured, ONE, agreement, ours=side, aim=aim,
                device=options.device,
            )  # fmt: skip


def spent_by(side: str, overrides: tuple[str, ...], batch: int, options: Options) -> list[Spent]:
    """Of a step, by process."""
    if side != APART:
        return train((*overrides, *TRAINERS[side][options.device], f"data.batch_size={batch}"), options)
    half = (*overrides, *TRAINERS[ONE][options.device], f"data.batch_size={batch // 2}")
    with ThreadPoolExecutor(2) as pool:
        return [spent for ranks in pool.map(lambda _: train(half, options), range(2)) for spent in ranks]


def train(overrides: tuple[str, ...], options: Options) -> list[Spent]:
    """Of a step, by rank."""
    with tempfile.TemporaryDirectory() as folder:
        told: dict[str, Any] = {"folder": folder, "steps": options.size(20, 2), "warm_up": options.size(5, 1)}
        told |= {"device": options.device, "overrides": overrides}
        subprocess.run([sys.executable, str(PROGRAM), json.dumps(told)], check=True)
        return [Spent(**json.loads(path.read_text())) for path in sorted(Path(folder).glob("*.json"))]

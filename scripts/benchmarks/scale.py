"""What a training step costs as images, widths and contexts grow, without and with activation checkpointing."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.options import Options
from benchmarks.row import Row, Skipped
from benchmarks.timing import paired_ratio

PROGRAM = Path(__file__).with_name("scale_worker.py")
CHECKPOINTED = "checkpointed"
UNET = ("model=diffusion", "model/network=unet", "data=shapes", "data.num_train=100", "model.conditions=[]")
DIT = ("model=diffusion", "model/network=dit", "model.network.depth=4", *UNET[2:])
GPT = ("model=transformer", "data=python_docs")
CASES: dict[str, tuple[tuple[str, ...], int]] = {  # what is made, and of how many examples a step is
    **{f"U-Net, {side} px": ((*UNET, f"data.image_size={side}"), 8) for side in (16, 32, 64, 128)},
    **{
        f"U-Net of {channels} channels, 32 px": ((*UNET, "data.image_size=32", f"model.network.channels={channels}"), 8)
        for channels in (64, 128)
    },
    **{f"DiT 384x4, {side} px": ((*DIT, f"data.image_size={side}"), 2) for side in (16, 32, 64, 128)},
    **{f"transformer 128x4, context {length}": ((*GPT, f"data.context={length}"), 4) for length in (256, 1024, 4096)},
    **{
        f"transformer {width}x4, context 256": ((*GPT, "data.context=256", f"model.network.width={width}"), 4)
        for width in (256, 512, 1024)
    },
}
TINY = {
    "U-Net, 16 px": ((*UNET, "data.image_size=16", "model.network.channels=8"), 2),
    "transformer 8x4, context 32": ((*GPT, "data.context=32", "model.network.width=8"), 2),
}


def rows(options: Options) -> Iterator[Row | Skipped]:
    """Each case in a process of its own: seconds, and memory beside that of the weights."""
    for name, (overrides, batch) in (TINY if options.quick else CASES).items():
        plain, checkpointed = (in_a_process(overrides, batch, on, options) for on in (False, True))
        work = f"{name}, batch {batch}"
        facts = {key: plain[key] for key in ("parameters", "flops")}
        clock = "cpu" if options.device == "cpu" else "wall"
        yield beside(work, "s", plain[clock], checkpointed[clock], facts)
        yield beside(f"{work}: memory", "MB", plain["memory"] / 1e6, checkpointed["memory"] / 1e6, facts)


def beside(work: str, unit: str, plain: float, checkpointed: float, facts: dict[str, Any]) -> Row:
    ratio = paired_ratio([checkpointed], [plain])
    agreement = "the same gradients to the last bit"  # which a test shows of every network
    return Row("scale", work, CHECKPOINTED, unit, plain, 1, agreement, checkpointed, ratio, facts=facts)


def in_a_process(overrides: tuple[str, ...], batch: int, checkpointed: bool, options: Options) -> dict[str, float]:
    told = {"overrides": overrides, "batch": batch, "checkpointed": checkpointed, "device": options.device}
    command = [sys.executable, str(PROGRAM), json.dumps(told)]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    measured: dict[str, float] = json.loads(found.stdout.splitlines()[-1])
    return measured

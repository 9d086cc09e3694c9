"""Trains by genlab's train command, in as many processes as it is told, and says how long a step took in each."""

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import genlab  # noqa: F401  before torchvision, which it mends beside a CPU build of torch


def train(folder: str, steps: int, warm_up: int, device: str, overrides: list[str]) -> None:
    """Writes ``<rank>.json`` into ``folder``: seconds of ``steps`` steps, by the processor and by the wall's clock."""
    import pytorch_lightning as pl
    import torch

    from benchmarks.product import TRAINS, silence
    from benchmarks.timing import clock
    from genlab import cli
    from genlab.command import train

    class Clock(pl.Callback):
        begun = 0

        def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
            if self.begun == warm_up:
                self.began = clock(device)
            if self.begun == warm_up + steps:
                spent = (clock(device) - self.began) / steps
                Path(folder, f"{trainer.global_rank}.json").write_text(json.dumps(vars(spent)))
                trainer.should_stop = True
            self.begun += 1

    torch.set_num_threads(1)
    build_callbacks = train.build_callbacks
    train.build_callbacks = lambda *given: [Clock(), *build_callbacks(*given)]
    with silence():
        cli.run(["train", *TRAINS, f"outputs={folder}/runs", *overrides])


if __name__ == "__main__":
    train(**json.loads(sys.argv[1]))

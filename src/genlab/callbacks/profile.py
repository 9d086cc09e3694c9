"""``profile=true``: a trace of some training steps by torch's profiler."""

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch.profiler import ProfilerActivity, profile

TRACE = "profile.json.gz"  # in the run folder
_WARM_UP, _STEPS, _ROWS = 10, 5, 15


class Profile(Callback):
    """Writes steps 11 to 15 of a training to ``profile.json.gz`` in the run folder, to be opened in ui.perfetto.dev or
    chrome://tracing, and prints which operations took longest. A shorter training leaves no trace. Results are the same
    without it."""

    def __init__(self, run_dir: Path):
        self.path = run_dir / TRACE
        self._steps = 0
        self._profiler: profile | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._steps += 1
        if self._steps == _WARM_UP + 1 and trainer.is_global_zero:
            on_gpu = pl_module.device.type == "cuda"
            self._profiler = profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * on_gpu])
            self._profiler.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._profiler is not None and self._steps == _WARM_UP + _STEPS:
            self._profiler.stop()
            self._profiler.export_chrome_trace(str(self.path))
            order = f"self_{'cuda' if torch.device(pl_module.device).type == 'cuda' else 'cpu'}_time_total"
            print(self._profiler.key_averages().table(sort_by=order, row_limit=_ROWS, max_name_column_width=40))
            print(f"profile:    {self.path}", flush=True)
            self._profiler = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self._profiler is not None:
            self._profiler.stop()
            self._profiler = None

"""How well a training uses its device: what share of its steps waits for data, and model FLOPs utilization."""

import time
from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from genlab.model.base import Model

_SIDES = {"cpu": 512, "cuda": 8192}  # of the matrices that are multiplied
_SECONDS = 0.02  # that they are multiplied for


class Speed(Callback):
    """Logs, whenever the loggers are written to, what happened since the last time:

    * ``speed/data_wait`` in [0, 1]: the share of training time between the end of a step and the start of the next,
      which is waiting for the batch and moving it to the device.
    * ``speed/mfu``, 0 or more: operations of training a second (forward, backward, optimizer, by their shapes), as a
      share of what a plain product of matrices reaches on this device in this precision, which is measured in 20 ms
      when training starts. It is near 1 for the largest networks, and may be above where many threads are busy
      elsewhere during the measurement. (Chowdhery et al. 2022, arXiv:2204.02311, appendix B, relate it to what the
      maker of a chip promises.)

    Training is the same without it. On several devices these are those of the first.
    """

    def __init__(self) -> None:
        self._rate = 0.0  # operations a second of a plain product
        self._waited = 0.0  # seconds since the last time
        self._before = (0.0, 0.0)  # seconds and operations of training at the last time

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Model)
        self._rate = matmul_rate(pl_module.device, _dtype(trainer))
        self._before = pl_module.progress.seconds, pl_module.progress.flops
        self._waited = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        assert isinstance(pl_module, Model)
        self._waited += time.perf_counter() - pl_module.step_began

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Model)
        if not trainer._logger_connector.should_update_logs:
            return
        now = pl_module.progress.seconds, pl_module.progress.flops
        seconds, operations = now[0] - self._before[0], now[1] - self._before[1]
        if seconds > 0:
            mine = operations / trainer.world_size / seconds
            values = {"speed/data_wait": min(1.0, self._waited / seconds), "speed/mfu": mine / self._rate}
            pl_module.log_dict({name: torch.tensor(value) for name, value in values.items()})
        self._before, self._waited = now, 0.0


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a product of square matrices on ``device``."""
    side = _SIDES.get(device.type, 512)
    with torch.no_grad():
        a = torch.full((side, side), 0.5, dtype=dtype, device=device)
        made = torch.empty_like(a)
        _timed(device, lambda: torch.mm(a, a, out=made))  # the first one makes a kernel
        began, count = time.perf_counter(), 0
        while not count or time.perf_counter() - began < _SECONDS:  # a busy machine may take them for others
            _timed(device, lambda: torch.mm(a, a, out=made))
            count += 1
        return count * 2 * side**3 / (time.perf_counter() - began)


def _timed(device: torch.device, work: Callable[[], Any]) -> None:
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _dtype(trainer: Trainer) -> torch.dtype:
    precision = str(trainer.precision)
    if precision.startswith("bf16"):
        return torch.bfloat16
    return torch.float16 if precision.startswith("16") else torch.float64 if precision == "64-true" else torch.float32

"""Progress bar of a run, in the unit of its budget."""

import sys
import time
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar as LightningProgressBar
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from genlab.callbacks.cadence import Cadence
from genlab.model.base import Model
from genlab.progress import hide_bar, show_bar


class ProgressBar(LightningProgressBar):
    """A bar over the budget on a terminal; ten lines over a run where output goes to a file."""

    def __init__(self, refresh_seconds: float = 0.5):
        super().__init__()
        self.refresh_seconds = refresh_seconds
        self._console = Console(file=sys.stderr)
        self._bar: Progress | None = None
        self._lines = Cadence(10)
        self._began = (0.0, 0)  # seconds and examples of training when this process took over
        self._shown_at = 0.0

    def disable(self) -> None:
        self._console.quiet = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Model)
        self._began = (pl_module.progress.seconds, pl_module.progress.examples)
        self._lines.start(pl_module.progress.fraction)
        if self._console.is_terminal and not self._console.quiet:
            columns = TextColumn("training"), BarColumn(), TaskProgressColumn(), TextColumn("{task.description}")
            self._bar = Progress(*columns, TimeRemainingColumn(), console=self._console)
            self._bar.add_task("", total=1.0)
            self._bar.update(self._bar.task_ids[0], completed=pl_module.progress.fraction)
            show_bar(self._bar)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Model)
        fraction, now = pl_module.progress.fraction, time.monotonic()
        if self._bar is not None:
            if now - self._shown_at > self.refresh_seconds:
                self._bar.update(self._bar.task_ids[0], completed=fraction, description=self._text(trainer, pl_module))
                self._shown_at = now
        elif self._lines.reached(fraction):
            self._console.print(
                f"training {fraction:4.0%}  {self._text(trainer, pl_module)}", highlight=False, soft_wrap=True
            )

    def _text(self, trainer: Trainer, model: Model) -> str:
        seconds, examples = self._began
        rate = (model.progress.examples - examples) / max(model.progress.seconds - seconds, 1e-9)
        losses = {
            name.removeprefix("train/").replace("_", " "): float(value)
            for name, value in model.latest().items()
            if name.startswith("train/") and name.endswith("loss")
        }
        text = "".join(f"  {name} {value:.4f}" for name, value in losses.items())
        return f"{model.progress.examples:,} examples  {rate:,.0f}/s{text}"

    def _close(self) -> None:
        if self._bar is not None:
            hide_bar(self._bar)
            self._bar = None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

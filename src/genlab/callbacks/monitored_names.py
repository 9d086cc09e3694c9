"""Finds callbacks that monitor a name which nothing logs."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from genlab.errors import ConfigError, did_you_mean


class MonitoredNames(Callback):
    """Looks at what callbacks monitor (Lightning's EarlyStopping and ModelCheckpoint do) after the first step, and
    raises ConfigError for a name that nothing logs: some would ignore it, others end the run after an epoch."""

    def __init__(self) -> None:
        self._looked = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._looked or trainer.global_step == 0:  # 0: gradients are still accumulated
            return
        self._looked = True
        logged = sorted(map(str, trainer.callback_metrics))
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            name = getattr(callback, "monitor", None)
            if isinstance(name, str) and name not in (*logged, "epoch", "step"):
                guess = did_you_mean(name, logged) or f" There are: {', '.join(logged)}."
                raise ConfigError(
                    f"the callback {type(callback).__name__} monitors '{name}', which nothing logs.{guess}"
                )

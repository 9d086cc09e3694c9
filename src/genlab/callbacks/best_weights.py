"""The weights with the lowest held-out loss: early stopping's choice, in place of an average."""

from typing import Any, ClassVar

from pytorch_lightning import LightningModule, Trainer

from genlab.callbacks.ema import EMA
from genlab.callbacks.evaluation import validation_losses
from genlab.callbacks.finite_guard import settle
from genlab.model.base import Model
from genlab.model.float32 import exact_float32


class BestWeights(EMA):
    """Keeps the weights whose ``loss`` on the held-out split is lowest, measured every ``every`` examples.

    Sampling, grids and evaluations use them, as they use an average elsewhere. The noise of the loss is the same every
    time, so that two measurements differ by the weights alone. Set ``callbacks.ema=null`` too: a run keeps an
    average or its best weights. The weights and their loss are saved in checkpoints, so a continued run chooses like
    one that was never stopped.
    """

    kind: ClassVar[str] = "best"

    def __init__(self, every: int = 50_000):
        """``every``: examples between two measurements; ValueError if there are fewer than 1."""
        super().__init__()
        if every < 1:
            raise ValueError(f"every must be 1 example or more, got {every}.")
        self.every = every
        self.lowest = float("inf")  # loss so far, as ``val/loss`` is logged
        self.found_at = 0  # examples
        self._measured = 0  # times

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        assert isinstance(pl_module, Model)
        self._measured = pl_module.progress.examples // self.every

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Model)
        if pl_module.at_optimizer_step(batch_idx):
            self.note_step(trainer, pl_module)

    def note_step(self, trainer: Trainer, model: Model) -> None:
        """Measure, if it is due: also before the run is saved for a sample grid of the same step."""
        examples = model.progress.examples
        if examples // self.every == self._measured and model.progress.fraction < 1:
            return
        self._measured = examples // self.every
        settle(trainer)
        with exact_float32(model.device):
            loss = validation_losses(trainer, model)["loss"]
        if loss < self.lowest:
            self.lowest, self.found_at = loss, examples
            self.averages = {name: p.detach().float().clone() for name, p in model.averaged()}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        checkpoint["best"] = {"loss": self.lowest, "examples": self.found_at}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
        if "best" in checkpoint:
            self.lowest, self.found_at = checkpoint["best"]["loss"], checkpoint["best"]["examples"]

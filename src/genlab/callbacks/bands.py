"""Ends a run early if a metric leaves the band of its recipe."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from genlab.callbacks.evaluation import PeriodicEvaluation
from genlab.errors import ConfigError
from genlab.milestones import Bands
from genlab.model.base import Model
from genlab.redaction import for_terminal


class StopOutside(Callback):
    """Raises OutsideBand where an evaluation at 5 or 25 % of the budget gives a value outside its band.

    It needs an evaluation at these points (``callbacks.evaluation.also_at``) and must come after that callback. The
    full evaluation at the end is judged when the run is over.
    """

    def __init__(self, bands: Bands):
        self.bands = bands
        self._passed = 0.0  # share of the budget up to which everything was judged

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Model)
        self._passed = pl_module.progress.fraction

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Model)
        fraction = pl_module.progress.fraction
        reached = [point for point in self.bands.early if self._passed < point / 100 <= fraction + 1e-9]
        if not reached:
            return
        self._passed = fraction
        evaluations = (c for c in trainer.callbacks if isinstance(c, PeriodicEvaluation))  # type: ignore[attr-defined]
        values = next((c.latest for c in evaluations if c.latest_at == pl_module.progress.examples), {})
        judgement = self.bands.judge(reached[-1], values)
        if judgement.value is None:
            raise ConfigError(
                f"milestones.metric={judgement.metric} was not measured at {judgement.point} % of the "
                f"budget. The evaluation gives: {', '.join(values) or 'nothing'}."
            )
        judgement.check()
        if trainer.is_global_zero:
            print(for_terminal(str(judgement)), flush=True)

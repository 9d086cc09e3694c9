"""Cheap periodic evaluations during training: validation losses, and metrics of a few samples."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from genlab.callbacks.cadence import Cadence
from genlab.callbacks.checkpoint import save_before
from genlab.callbacks.ema import averaged_weights
from genlab.callbacks.stop import done_unless_stopped, stop_requested
from genlab.evaluation.evaluation import Evaluation, Result
from genlab.evaluation.failures import in_words
from genlab.logger.isolated import IsolatedLogger
from genlab.logger.tracking import better
from genlab.machine.memory import enough_memory
from genlab.machine.rank import rank
from genlab.metrics.base import Direction
from genlab.model.base import COUNTED, Model, in_eval_mode
from genlab.seeding import derive_seed


class PeriodicEvaluation(Callback):
    """Logs ``val/loss`` and metrics of ``num_samples`` samples; the names of the metrics include that number.

    An evaluation cut short by a signal is repeated first when the run is continued.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        times: int = 4,  # spread evenly over the budget, the last one at its end
        num_samples: int = 500,
        also_at: Sequence[float] = (),  # shares of the budget, e.g. 0.05: early, to see whether a run is any good
    ):
        if num_samples < 2 and (times or also_at):
            raise ValueError(
                f"num_samples={num_samples} must be at least 2. For no evaluation during training: "
                "callbacks.evaluation.times=0."
            )
        self.evaluation, self.num_samples = evaluation, num_samples
        self.milestones = Cadence(times, also_at)
        self._owed = False
        self._model: Model | None = None
        self._told: set[str] = set()  # metrics that could not be computed
        self.final: Result | None = None  # of the full evaluation, once the run has ended
        self.latest: dict[str, float] = {}  # what was logged last, and after how many examples
        self.latest_at = -1
        self.best: dict[str, float] = {}  # best value of each number so far, by its name in logging services

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Model)
        self._model = pl_module
        self.milestones.start(pl_module.progress.fraction)
        if self._owed:
            self._evaluate_or_owe(trainer, pl_module)
            trainer.should_stop = self._owed  # stopped again: no step, since the evaluation is of these weights

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Model)
        fraction = pl_module.progress.fraction
        if not pl_module.at_optimizer_step(batch_idx):
            return  # a state that can be saved, and the weights that go on from it
        if self.milestones.reached(fraction) and fraction < 1:  # the full evaluation follows at once
            self._owed = True  # a run continued from the state saved now evaluates first
            save_before(trainer, pl_module, again=True)
            self._evaluate_or_owe(trainer, pl_module)

    def _evaluate_or_owe(self, trainer: Trainer, model: Model) -> None:
        self._owed = not done_unless_stopped(trainer, lambda: self.evaluate(trainer, model, self.num_samples))

    def state_dict(self) -> dict[str, Any]:
        """If saved before its turn in a step, that step's evaluation is still due too."""
        fraction = 0.0 if self._model is None else self._model.progress.fraction
        owed = self._owed or (fraction < 1 and self.milestones.is_due(fraction))
        return {"owed": owed, "best": dict(self.best)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._owed = state_dict["owed"]
        self.best = dict(state_dict.get("best", {}))  # runs of earlier versions have none

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Model)
        if not stop_requested(trainer):  # a stopped run is evaluated after it was continued
            self.final = self.evaluate(trainer, pl_module, num_samples=None)

    def evaluate(self, trainer: Trainer, model: Model, num_samples: int | None) -> Result:
        """Validation losses and metrics of the averaged weights. ``num_samples`` None: the full evaluation."""
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        remedy = f"evaluation.batch_size={max(1, self.evaluation.batch_size // 2)}"
        with averaged_weights(trainer, model) as weights, enough_memory("in the evaluation", remedy):
            losses = validation_losses(trainer, model)
            result = self.evaluation.run(model, datamodule, num_samples, weights=weights)
        if num_samples is not None:
            self._tell(result)
        values = {f"val/{name}": value for name, value in (losses | result.values).items()}
        self.latest, self.latest_at = values, model.progress.examples
        curves, directions = _curves(losses, result)
        self.best = better(self.best, curves, directions)
        step = trainer.fit_loop.epoch_loop._batches_that_stepped
        for logger in trainer.loggers:
            is_service = isinstance(logger, IsolatedLogger)
            logger.log_metrics(model.progress.logged() | (curves if is_service else values), step=step)
            if isinstance(logger, IsolatedLogger):
                logger.summarize({f"best/{name}": value for name, value in self.best.items()})
        return result

    def _tell(self, result: Result) -> None:
        """Warn, once for each, of metrics that could not be computed; training goes on."""
        for name, error in result.failures.items():
            if name not in self._told and rank() == 0:
                warnings.warn(f"metrics={name} was not computed in this evaluation: {in_words(error)}", stacklevel=2)
            self._told.add(name)


def curve_names(evaluation: Evaluation) -> list[str]:
    """The names of all curves that the evaluations of a run log."""
    metrics = (evaluation.metrics | evaluation.of_models).values()
    return ["val/loss", *(f"val/{key}" for metric in metrics for key in metric.directions)]


def _curves(losses: Mapping[str, float], result: Result) -> tuple[dict[str, float], dict[str, Direction | None]]:
    """Values by names that are the same for any number of samples, and which direction is better."""
    curves = {f"val/{name}": value for name, value in losses.items()}
    directions: dict[str, Direction | None] = {"val/loss": "lower"}
    for name, value in result.values.items():
        curve = f"val/{result.keys.get(name, name)}"
        curves[curve], directions[curve] = value, result.directions[name]
    if "num_samples" in result.protocol:
        curves["val/num_samples"] = float(result.protocol["num_samples"])
    return curves, directions


@torch.no_grad()
def validation_losses(trainer: Trainer, model: Model) -> dict[str, float]:
    """Mean losses over the held-out split, over all ranks, with the same noise every time: over examples, or over the
    predictions that count, where only some do."""
    datamodule = trainer.datamodule  # type: ignore[attr-defined]
    totals: dict[str, Tensor] = {}
    count = 0
    gpus = [model.device] if model.device.type == "cuda" else []
    with in_eval_mode(model), torch.random.fork_rng(devices=gpus):
        for position, batch in enumerate(datamodule.val_dataloader()):
            torch.manual_seed(derive_seed(model.seed, position, trainer.global_rank))
            batch = {key: values.to(model.device, non_blocking=True) for key, values in batch.items()}
            batch = datamodule.on_after_batch_transfer(batch, 0)
            size = int(batch[COUNTED].sum()) if COUNTED in batch else len(batch["index"])
            for name, value in model.losses(batch).items():
                totals[name] = totals.get(name, torch.zeros((), device=model.device)) + value * size
            count += size
    summed = {name: trainer.strategy.reduce(total, reduce_op="sum") for name, total in totals.items()}
    everything = trainer.strategy.reduce(torch.tensor(float(count), device=model.device), reduce_op="sum")
    return {name: float(total / everything) for name, total in summed.items()}


class OnlyEvaluate(Callback):
    """Makes no training step: for a run that is trained but was stopped before its evaluation."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop = True
        trainer.fit_loop.epoch_loop._batches_that_stepped += 1  # Lightning counts the last step when it starts the next

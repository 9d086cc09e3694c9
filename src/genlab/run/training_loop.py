"""The loop over the batches of an epoch: Lightning's own, without what nobody waits for.

Lightning asks every callback for every hook of every step, opens a profiler's context around each, looks up what a
model overrides, and takes in every logged number whether or not a logger looks at the step. That costs one to two
milliseconds a step. The order of everything that has an effect stays Lightning's, which a test compares it with.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.core.hooks import DataHooks
from pytorch_lightning.loops.fetchers import _DataFetcher, _DataLoaderIterDataFetcher
from pytorch_lightning.loops.optimization.automatic import ClosureResult
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop
from pytorch_lightning.plugins.precision import MixedPrecision, Precision
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy, Strategy
from pytorch_lightning.trainer.connectors.logger_connector.result import _ResultCollection, _ResultMetric
from pytorch_lightning.utilities.exceptions import SIGTERMException
from pytorch_lightning.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from genlab.model.base import Model

_HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)


class TrainingLoop(_TrainingEpochLoop):
    """In place of ``trainer.fit_loop.epoch_loop``. Where a step is more than a batch in an ordinary precision on one
    device, or on each of several that average their gradients (sharded weights, a loss scaler, a profiler, an optimizer
    step of the model's own), it is Lightning's.
    """

    @classmethod
    def into(cls, trainer: Trainer) -> None:
        """Make it the loop of a trainer that has not begun."""
        before = trainer.fit_loop.epoch_loop
        trainer.fit_loop.epoch_loop = cls(trainer, before.min_steps, before.max_steps)

    def __init__(self, trainer: Trainer, min_steps: int | None = None, max_steps: int = -1):
        super().__init__(trainer, min_steps, max_steps)
        self._results = _Logged(training=True)
        self._hooks: dict[str, list[Callable[..., Any]]] | None = None  # those that do something; None: Lightning's way

    def on_run_start(self, data_fetcher: _DataFetcher) -> None:
        super().on_run_start(data_fetcher)
        self._hooks = None
        if _is_plain(self.trainer, data_fetcher):
            data_fetcher._start_profiler = data_fetcher._stop_profiler = _nothing
            self._hooks = {hook: _doing_something(self.trainer, hook) for hook in _HOOKS}
            self._model = self.trainer.lightning_module  # which Lightning looks for each time that it is asked
            self._validates = self.trainer.enable_validation
            self._passes_number = is_param_in_hook_signature(
                self.trainer.lightning_module.training_step, "batch_idx", min_args=2
            )
            self._transfer = _transfers(self.trainer)
            self._is_copied = isinstance(self.trainer.strategy, DDPStrategy)
            # Somebody may wait for any number after any step: a callback, or a schedule of Lightning's.
            monitors = any(isinstance(getattr(c, "monitor", None), str) for c in _callbacks(self.trainer))
            self._logs_all = monitors or bool(self.trainer.lr_scheduler_configs)

    def advance(self, data_fetcher: _DataFetcher) -> None:
        if self._hooks is None or self.restarting:
            super().advance(data_fetcher)
            return
        trainer, model, connector = self.trainer, self._model, self.trainer._logger_connector
        assert isinstance(model, Model)
        self.val_loop.restarting = False
        batch, _, __ = next(data_fetcher)
        number = self.batch_idx + 1
        self.batch_progress.is_last_batch = data_fetcher.done
        for transfer in self._transfer:
            batch = transfer(batch)
        self.batch_progress.increment_ready()
        connector.on_batch_start(batch)
        model.unlogged = None if self._logs_all or connector.should_update_logs else {}
        self._call("on_train_batch_start", batch, number)
        if self._of_the_model("on_train_batch_start", batch, number) == -1:  # Lightning's word: end the epoch here
            self.batch_progress.increment_by(0, is_last_batch=True)
            self.batch_progress.increment_processed()
            raise StopIteration
        self.batch_progress.increment_started()
        if model.automatic_optimization:
            output = self._step(model, batch, number)
        else:
            output = self.manual_optimization.run(OrderedDict(self._given(batch, number)))
        self.batch_progress.increment_processed()
        if trainer.lr_scheduler_configs:
            self.update_lr_schedulers("step", update_plateau_schedulers=False)
            if self._num_ready_batches_reached():
                self.update_lr_schedulers("epoch", update_plateau_schedulers=False)
        self._call("on_train_batch_end", output, batch, number)
        self._of_the_model("on_train_batch_end", output, batch, number)
        if model.unlogged is not None and connector.should_update_logs:
            model.log_late()  # it was the last step, which nobody knew when it began
        if model.unlogged is None:
            connector.on_batch_end()
        elif (results := trainer._results) is not None:
            results.batch = results.batch_size = None
        self.batch_progress.increment_completed()
        connector.update_train_step_metrics()
        model.unlogged = None

    def on_advance_end(self, data_fetcher: _DataFetcher) -> None:
        if self._hooks is None or self._skip_next_val or (self._validates and self._should_check_val_fx(data_fetcher)):
            super().on_advance_end(data_fetcher)
            return
        if self.trainer.lr_scheduler_configs:
            self.update_lr_schedulers("step", update_plateau_schedulers=True)
        if not self._should_accumulate():
            self._batches_that_stepped += 1
        self._save_loggers_on_train_batch_end()
        if not self._is_training_done and self.trainer.received_sigterm:
            raise SIGTERMException

    def _broadcast_sigterm_tensor(self) -> None:
        """Nothing, where Lightning's has all processes of a run wait for their devices before every batch: a run hears
        of signals by :class:`genlab.callbacks.stop.StopOnSignal`."""

    def _step(self, model: Model, batch: Any, number: int) -> dict[str, Any]:
        """Forward, backward and, unless gradients are accumulated, the optimizer's step. -> what the step gave."""
        trainer, optimizer = self.trainer, self.trainer.optimizers[0]
        progress = self.automatic_optimization.optim_progress.optimizer
        steps = not self._should_accumulate()
        given = self._given(batch, number).values()
        results: list[ClosureResult] = []

        def closure() -> Tensor | None:
            with torch.enable_grad():
                with trainer.precision_plugin.train_step_context():
                    said = self._training_step(model, *given)
                result = ClosureResult.from_training_step_output(said, trainer.accumulate_grad_batches)
                results[:] = [result]
                if number % trainer.accumulate_grad_batches == 0:
                    progress.zero_grad.increment_ready()
                    self._call("on_before_zero_grad", optimizer)
                    progress.zero_grad.increment_started()
                    self._of_the_model("optimizer_zero_grad", trainer.current_epoch, number, optimizer)
                    progress.zero_grad.increment_completed()
                if result.closure_loss is not None:
                    self._call("on_before_backward", result.closure_loss)
                    self._of_the_model("backward", result.closure_loss)
                    self._call("on_after_backward")
            if steps:
                self._call("on_before_optimizer_step", optimizer)
                self._of_the_model(
                    "configure_gradient_clipping",
                    optimizer,
                    trainer.gradient_clip_val,
                    trainer.gradient_clip_algorithm,
                )
            return result.loss

        if steps:
            progress.step.increment_ready()
            optimizer.step(closure)  # type: ignore[arg-type]
            progress.step.increment_completed()
        elif self._is_copied:
            with trainer.strategy.block_backward_sync():  # type: ignore[attr-defined]
                closure()
        else:
            closure()
        (result,) = results
        return {} if result.loss is None else result.asdict()

    def _training_step(self, model: Model, *given: Any) -> Any:
        if not self._is_copied:
            return self._of_the_model("training_step", *given)
        strategy = self.trainer.strategy
        assert strategy.model is not None
        vars(model)["_current_fx_name"] = "training_step"
        said = strategy._forward_redirection(strategy.model, model, "training_step", *given)  # through torch's DDP
        vars(model)["_current_fx_name"] = None
        return said

    def _given(self, batch: Any, number: int) -> dict[str, Any]:
        return {"batch": batch, "batch_idx": number} if self._passes_number else {"batch": batch}

    def _call(self, hook: str, *given: Any) -> None:
        """The hook of all callbacks; of what is asked of the model too, where that only listens."""
        assert self._hooks is not None
        if hooks := self._hooks[hook]:
            vars(self._model)["_current_fx_name"] = hook
            for call in hooks:
                call(*given)
            vars(self._model)["_current_fx_name"] = None

    def _of_the_model(self, hook: str, *given: Any) -> Any:
        model = self._model
        vars(model)["_current_fx_name"] = hook  # past nn.Module's own way of setting, which looks for parameters
        found = getattr(model, hook)(*given)
        vars(model)["_current_fx_name"] = None
        return found


class _Logged(_ResultCollection):
    """Numbers that are logged, as Lightning keeps them. It sends each to its device again with every value, for which
    it looks through all that it knows of the number; most are there."""

    def __setitem__(self, key: str, number: _ResultMetric) -> None:
        if type(number) is _ResultMetric:
            number.__class__ = _LoggedNumber
        super().__setitem__(key, number)


class _LoggedNumber(_ResultMetric):
    def to(self, *args: Any, **kwargs: Any) -> _ResultMetric:  # type: ignore[override]
        tensors = [value for value in vars(self).values() if isinstance(value, Tensor)]
        is_there = self.is_tensor and not kwargs and [tensor.device for tensor in tensors] == [*args] * len(tensors)
        return self if is_there else super().to(*args, **kwargs)


def _is_plain(trainer: Trainer, data_fetcher: _DataFetcher) -> bool:
    model, plugin = trainer.lightning_module, trainer.precision_plugin
    return (
        isinstance(model, Model)
        and (_is_alone(trainer.strategy, model) or _averages_gradients(trainer.strategy, model))
        and (type(plugin) is Precision or (type(plugin) is MixedPrecision and plugin.scaler is None))
        and type(trainer.profiler) is PassThroughProfiler  # type: ignore[attr-defined]
        and type(model).optimizer_step is LightningModule.optimizer_step
        and not isinstance(data_fetcher, _DataLoaderIterDataFetcher)
        and not trainer.fast_dev_run  # type: ignore[attr-defined]
    )


def _is_alone(strategy: Strategy, model: Model) -> bool:
    return type(strategy) is SingleDeviceStrategy and strategy.model is model


def _averages_gradients(strategy: Strategy, model: Model) -> bool:
    """In the backward pass, as torch's DDP does, and nothing else; steps of a model's own are asked of the strategy."""
    if not isinstance(strategy, DDPStrategy) or not isinstance(strategy.model, DistributedDataParallel):
        return False
    is_plain = type(strategy).optimizer_step is DDPStrategy.optimizer_step and strategy._model_averager is None
    return is_plain or not model.automatic_optimization


def _callbacks(trainer: Trainer) -> Iterable[Callback]:
    return trainer.callbacks  # type: ignore[attr-defined, no-any-return]


def _doing_something(trainer: Trainer, hook: str) -> list[Callable[..., Any]]:
    """A hook of the callbacks that have one of their own, and of the model last, as Lightning asks it. What the model
    does around a batch is asked for by the loop itself."""
    model = trainer.lightning_module
    found = [
        _with(getattr(callback, hook), trainer, model)
        for callback in _callbacks(trainer)
        if hook in vars(callback) or getattr(type(callback), hook) is not getattr(Callback, hook)
    ]
    if not hook.startswith("on_train_batch") and getattr(type(model), hook) is not getattr(LightningModule, hook):
        found.append(getattr(model, hook))
    return found


def _with(call: Callable[..., Any], trainer: Trainer, model: pl.LightningModule) -> Callable[..., Any]:
    return lambda *given: call(trainer, model, *given)


def _transfers(trainer: Trainer) -> list[Callable[[Any], Any]]:
    """What brings a batch to the device: on a CPU, where it is there, what data or model have of their own alone."""
    selector = trainer._data_connector._datahook_selector
    assert selector is not None
    owners = {hook: selector.get_instance(hook) for hook in selector._valid_hooks}
    own = {hook: _is_own(owner, hook) for hook, owner in owners.items()}
    strategy, model = trainer.strategy, trainer.lightning_module
    if strategy.root_device.type != "cpu" or own["transfer_batch_to_device"]:
        return [lambda batch: strategy.batch_to_device(model._on_before_batch_transfer(batch, 0), dataloader_idx=0)]
    around = ("on_before_batch_transfer", "on_after_batch_transfer")
    return [partial(getattr(owners[hook], hook), dataloader_idx=0) for hook in around if own[hook]]


def _is_own(owner: LightningModule | LightningDataModule, hook: str) -> bool:
    return getattr(type(owner), hook) is not getattr(DataHooks, hook)


def _nothing() -> None:
    pass

"""Exponential moving average of the weights, used for sampling, evaluation and export."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from genlab.callbacks.finite_guard import settle
from genlab.model.averages import copy_weights, load_averages, placed_like
from genlab.model.base import Model
from genlab.model.float32 import exact_float32
from genlab.model.spectral_norm import singular_vectors


class EMA(Callback):
    """Averages what samples depend on (``model.averaged()``) after every optimizer step.

    The decay is given as a half-life in examples (Karras et al. 2022, app. F.2), so it means the same at any batch
    size. At the start the half-life is ``ramp_up`` times the examples seen, which lets the average forget the initial
    weights.

    Lightning's own averaging counts optimizer steps, which run twice as fast in a GAN, and its average can be
    overwritten by the initial weights at the end of such a fit; hence this one. Averages are float32, placed and
    sharded like the weights, and saved in the checkpoint under ``ema``.
    """

    kind: ClassVar[str] = "ema"  # of weights, in protocols

    def __init__(self, half_life: int = 500_000, ramp_up: float = 0.05):
        self.half_life, self.ramp_up = half_life, ramp_up
        self.averages: dict[str, Tensor] = {}
        self._seen = 0  # examples at the last update
        self._weights: list[Tensor] | None = None  # what is averaged, in the order of the averages; None: sharded

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Model)
        loaded = self.averages  # by now: with sharded weights, a checkpoint is read after on_fit_start
        self.averages = {
            name: placed_like(loaded[name], p) if name in loaded else p.detach().float().clone()
            for name, p in pl_module.averaged()
        }
        self._seen = pl_module.progress.examples
        weights = [p for _, p in pl_module.averaged()]
        is_sharded = any(isinstance(module, FSDPModule) for module in pl_module.modules())
        self._weights = None if is_sharded else weights

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Model)
        if not pl_module.at_optimizer_step(batch_idx):
            return
        examples = pl_module.progress.examples
        half_life = min(self.half_life, examples * self.ramp_up)
        decay = 0.5 ** ((examples - self._seen) / max(half_life, 1e-8))
        self._seen = examples
        weights = self._weights or [p for _, p in pl_module.averaged()]  # sharded ones are others in every step
        if any(p.dtype != torch.float32 for p in weights):
            weights = [p.float() for p in weights]
        # Of sharded weights this rank's shards, since buffers beside them are whole on every rank.
        torch._foreach_lerp_([*map(_local, self.averages.values())], [*map(_local, weights)], 1 - decay)

    @contextmanager
    def swapped_in(self, model: Model) -> Iterator[None]:
        """Replace the weights by their averages inside the block."""
        weights = {name: p.detach().clone() for name, p in model.averaged()}
        vectors = [(vector, vector.clone()) for vector in singular_vectors(model)]
        try:
            load_averages(model, self.averages)
            with _gathered(model):
                yield
        finally:
            copy_weights(model, weights)
            for vector, raw in vectors:
                vector.copy_(raw)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["ema"], checkpoint["ema_kind"] = dict(self.averages), self.kind

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.averages = dict(checkpoint.get("ema", {}))  # a continued run may start to average


def _local(x: Tensor) -> Tensor:
    return x.to_local() if isinstance(x, DTensor) else x


@contextmanager
def averaged_weights(trainer: Trainer, model: Model) -> Iterator[str]:
    """Replace the weights by those for sampling, the average or the best, where the run keeps them. Yields "ema",
    "best" or "raw". Raises NumericsError: the last step's gradient was not finite."""
    settle(trainer)
    ema = next((callback for callback in trainer.callbacks if isinstance(callback, EMA)), None)  # type: ignore[attr-defined]
    with exact_float32(model.device):
        if ema is None:
            with _gathered(model):
                yield "raw"
        else:
            with ema.swapped_in(model):
                yield ema.kind


@contextmanager
def _gathered(model: nn.Module) -> Iterator[None]:
    """Gather sharded weights on every rank, so that ranks may call the model a different number of times."""
    sharded = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for module in sharded:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in sharded:
            module.reshard()
            module.set_reshard_after_forward(module is not sharded[0], recurse=False)  # the root: not before backward

"""Clipping of gradients in every precision."""

from typing import Any

from pytorch_lightning import LightningModule
from pytorch_lightning.plugins.precision import MixedPrecision, Precision
from pytorch_lightning.utilities.enums import GradClipAlgorithmType


def clip_gradients(model: LightningModule, optimizer: Any, value: float | None, algorithm: str | None) -> None:
    """Lightning's, which refuses fused optimizers in mixed precision. ``algorithm``: "norm", as None is, or "value"."""
    plugin = model.trainer.precision_plugin
    if isinstance(plugin, MixedPrecision) and value is not None:
        if plugin.scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            plugin.scaler.unscale_(optimizer)  # left to a fused optimizer's step, which comes after clipping
        Precision.clip_gradients(plugin, optimizer, value, GradClipAlgorithmType(algorithm or "norm"))
    else:
        model.clip_gradients(optimizer, value, algorithm)

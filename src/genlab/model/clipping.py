"""Clipping of gradients in every precision."""

from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.plugins.precision import MixedPrecision, Precision
from pytorch_lightning.utilities.enums import GradClipAlgorithmType
from torch import Tensor


def clips_by_known_norm(model: LightningModule, algorithm: str | None) -> bool:
    """Whether :func:`clip_gradients` gives the norm: where gradients are whole, and of their true scale."""
    plugin = model.trainer.precision_plugin
    is_plain = type(plugin) is Precision or (type(plugin) is MixedPrecision and plugin.scaler is None)
    return is_plain and GradClipAlgorithmType(algorithm or "norm") == GradClipAlgorithmType.NORM


def clip_gradients(model: LightningModule, optimizer: Any, value: float | None, algorithm: str | None) -> Tensor | None:
    """Lightning's, which refuses fused optimizers in mixed precision. ``algorithm``: "norm", as None is, or "value".

    Returns:
        the norm of the gradient before, a scalar, where :func:`clips_by_known_norm`
    """
    plugin = model.trainer.precision_plugin
    if value is not None and value > 0 and clips_by_known_norm(model, algorithm):
        return torch.nn.utils.clip_grad_norm_(plugin.main_params(optimizer), value)
    if isinstance(plugin, MixedPrecision) and value is not None:
        if plugin.scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            plugin.scaler.unscale_(optimizer)  # left to a fused optimizer's step, which comes after clipping
        Precision.clip_gradients(plugin, optimizer, value, GradClipAlgorithmType(algorithm or "norm"))
    else:
        model.clip_gradients(optimizer, value, algorithm)
    return None

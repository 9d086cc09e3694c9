"""Checks that a model supports images of 16 bits a channel."""

from collections.abc import Mapping
from typing import Any

from genlab.errors import ConfigError


def check_model_bits(model: Any, spec: Mapping[str, Any]) -> None:
    """Raises ConfigError if a model has 256 levels and the images of the config node ``spec`` have more."""
    if spec.get("bits", 8) == 8:
        return
    likelihood = getattr(model, "likelihood", None)
    of_levels = hasattr(model, "pixel_levels")  # a family whose likelihood is of the 256 levels of 8 bits
    if of_levels or getattr(likelihood, "levels", None) is not None:
        what = type(model).__name__ if of_levels else type(likelihood).__name__
        raise ConfigError(
            f"model: {what} has 256 levels per pixel, and the data have {spec['bits']} bits. Use "
            "model=diffusion, gan, or vae with model/likelihood=gaussian."
        )

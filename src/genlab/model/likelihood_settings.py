"""The settings that a model's log-likelihood depends on, beside its weights and the data."""

from typing import Any

# Arguments of models, by the names that they are kept under: how many draws a bound of the likelihood is averaged over.
NAMES = ("num_importance_samples", "num_likelihood_samples")


def likelihood_settings(model: Any) -> dict[str, int | float | str]:
    """By name, as a protocol holds them: more importance samples make a bound tighter (Burda et al. 2016,
    arXiv:1509.00519, theorem 1), so numbers with different counts are not comparable."""
    return {name: getattr(model, name) for name in NAMES if hasattr(model, name)}

"""Tasks: the conditions, samples and references by which models are evaluated."""

"""The classes of a model."""

from genlab.model.base import GenerativeModel


def classes_of(model: GenerativeModel) -> list[int]:
    """The labels that samples can have, in order: those with training examples; empty without labels."""
    return [label for label in range(model.num_classes or 0) if label not in model.empty_classes]

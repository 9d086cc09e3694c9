"""The classes that a model knows."""

from genlab.model.base import GenerativeModel


def classes_of(model: GenerativeModel) -> list[int]:
    """The labels that samples can be asked for, in order: those that training had. Without labels, none."""
    return [label for label in range(model.num_classes or 0) if label not in model.empty_classes]

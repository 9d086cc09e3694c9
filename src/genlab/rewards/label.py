"""The reward of pictures in which a classifier sees what was asked for."""

from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from genlab.errors import ConfigError
from genlab.model.base import Classifies, Condition, Model
from genlab.model.elsewhere import FROM_ELSEWHERE

LABEL = "label"


class LabelProbability:
    """How probable a classifier finds the label that a picture was drawn for: the logarithm of the probability in nats,
    or the probability itself. 0 for a picture that was drawn for none."""

    reads: ClassVar[frozenset[str]] = frozenset({LABEL})

    def __init__(
        self,
        model: Annotated[Classifies, FROM_ELSEWHERE],  # outputs/classifier-...
        weight: float = 1.0,
        logarithm: bool = True,  # false: the probability itself
    ):
        """Makes the networks of ``model``; the caller loads its weights afterwards."""
        made: Any = model
        if isinstance(made, Model):
            made.configure_model()
        self.model = made
        self.model.eval().requires_grad_(False)
        self.weight, self.logarithm = weight, logarithm

    def check(self, data: Any) -> None:
        """Raises ConfigError: the classifier was trained on other pictures, or other labels."""
        theirs = (tuple(self.model.shape), getattr(self.model, "num_classes", None))
        ours = (tuple(data.spec.shape), data.spec.condition[LABEL].size)
        if theirs != ours:
            raise ConfigError(
                f"model.rewards: the classifier was trained on pictures of shape {theirs[0]} with {theirs[1]} labels, "
                f"the data have {ours[0]} with {ours[1]}. Name a run of model=classifier on these data."
            )

    def score(self, images: Tensor, condition: Condition | None) -> Tensor:
        """(N,): nats, at most 0; or a probability."""
        self.model.to(images.device)
        assert condition is not None
        label = condition[LABEL]
        log_prob = self.model.logits(images).log_softmax(dim=1).gather(1, label.clamp(min=0)[:, None])[:, 0]
        return torch.where(label < 0, 0.0, log_prob if self.logarithm else log_prob.exp())

"""Adversarial losses of GANs, as functions of the discriminator's scores."""

import torch.nn.functional as F
from torch import Tensor

from genlab.model.objective.penalty import Penalty

# Every score is a logit (N,), high for images classified as real, and every loss a scalar. ``undecided`` is the
# score at the decision boundary, None where scores are not logits.


class NonSaturating:
    """The discriminator classifies; the generator makes its mistakes likely (Goodfellow et al. 2014, eq. 1, sec. 3)."""

    undecided: float | None = 0.0

    def __init__(self, penalty: Penalty):
        self.penalty = penalty

    def discriminator_loss(self, real_scores: Tensor, fake_scores: Tensor) -> Tensor:
        """-E[log s(D(real))] - E[log(1 - s(D(fake)))], s the logistic function; 2 ln 2 where it cannot tell."""
        return F.softplus(-real_scores).mean() + F.softplus(fake_scores).mean()

    def generator_loss(self, fake_scores: Tensor) -> Tensor:
        """-E[log s(D(fake))]."""
        return F.softplus(-fake_scores).mean()


class Hinge:
    """Scores beyond a margin of 1 do not count for the discriminator (Lim and Ye 2017; Miyato et al. 2018, eq. 16)."""

    undecided: float | None = 0.0

    def __init__(self, penalty: Penalty):
        self.penalty = penalty

    def discriminator_loss(self, real_scores: Tensor, fake_scores: Tensor) -> Tensor:
        """E[max(0, 1 - D(real))] + E[max(0, 1 + D(fake))]."""
        return F.relu(1 - real_scores).mean() + F.relu(1 + fake_scores).mean()

    def generator_loss(self, fake_scores: Tensor) -> Tensor:
        """-E[D(fake)]."""
        return -fake_scores.mean()


class LeastSquares:
    """Scores are pulled to 1 for real and 0 for fake (Mao et al. 2017, eq. 9)."""

    undecided: float | None = 0.5

    def __init__(self, penalty: Penalty):
        self.penalty = penalty

    def discriminator_loss(self, real_scores: Tensor, fake_scores: Tensor) -> Tensor:
        """E[(D(real) - 1)^2] / 2 + E[D(fake)^2] / 2."""
        return ((real_scores - 1).square().mean() + fake_scores.square().mean()) / 2

    def generator_loss(self, fake_scores: Tensor) -> Tensor:
        """E[(D(fake) - 1)^2] / 2."""
        return (fake_scores - 1).square().mean() / 2


class Wasserstein:
    """The discriminator, kept Lipschitz by its penalty, estimates the earth mover's distance (Arjovsky et al. 2017)."""

    undecided: float | None = None  # only differences of scores have a meaning

    def __init__(self, penalty: Penalty, drift: float = 0.0):
        """``drift``: pulls the scores of real images to 0, which their differences leave open (Karras et al. 2018,
        appendix A.1). Raises ValueError if it is below 0."""
        if drift < 0:
            raise ValueError(f"drift={drift} must be >= 0.")
        self.penalty, self.drift = penalty, drift

    def discriminator_loss(self, real_scores: Tensor, fake_scores: Tensor) -> Tensor:
        """E[D(fake)] - E[D(real)], minus the estimated distance, + drift E[D(real)^2]."""
        loss = fake_scores.mean() - real_scores.mean()
        return loss + self.drift * real_scores.square().mean() if self.drift else loss

    def generator_loss(self, fake_scores: Tensor) -> Tensor:
        """-E[D(fake)]."""
        return -fake_scores.mean()

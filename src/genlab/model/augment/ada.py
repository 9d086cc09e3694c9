"""Adaptive discriminator augmentation: as strong as it takes to keep a discriminator from knowing its images."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from genlab.model.augment.diffaugment import Uniform
from genlab.model.augment.pipeline import GROUPS, Group, Pipeline, Strength
from genlab.model.gathered import total

_log = logging.getLogger(__name__)


class ADA:
    """Adaptive discriminator augmentation, to train GANs on few images (Karras et al. 2020, section 3).

    Each of the transformations of the chosen groups is applied to an image with probability p. How well the
    discriminator knows the real images is read off r_t = E[sign(D(real))] (eq. 1), over all images of ``interval`` of
    its steps, of all ranks: p grows while r_t is above ``target``, and shrinks while it is below, by 1 in ``kimg``
    thousand images. p is never below 0; where it grows beyond 1, all transformations are applied.

    The time of a step does not depend on p, except that p = 0 costs nothing. Gray images have no hue and no
    saturation: these are left out, which a warning says once.
    """

    def __init__(
        self,
        shape: Sequence[int],  # of an image: (C, H, W)
        groups: Sequence[Group] = ("blit", "geometry", "color"),
        strength: Strength | None = None,  # how far each transformation goes; None: as published
        target: float | None = 0.6,  # of r_t; None: p stays as it is
        kimg: float = 500,  # thousands of images in which p changes by 1
        interval: int = 4,  # steps of the discriminator from one change of p to the next
        p: float = 0.0,  # to begin with
    ):
        """Raises ValueError: a number outside its range; an unknown group; colors of neither 1 nor 3 channels."""
        unknown = [group for group in groups if group not in GROUPS]
        if unknown:
            raise ValueError(f"groups={list(groups)}: there is no '{unknown[0]}'. Use some of {', '.join(GROUPS)}.")
        if not groups:
            raise ValueError(
                "groups=[] leaves nothing to augment by. Use model/augment=none, or "
                "model.augment.groups=[blit,geometry]."
            )
        if not 0 <= p <= 1:
            raise ValueError(f"p={p} is a probability: use a value from 0 to 1.")
        if target is not None and not -1 < target < 1:
            raise ValueError(f"target={target} is a mean of signs: use a value between -1 and 1, or null to fix p.")
        if kimg <= 0:
            raise ValueError(f"kimg={kimg} must be above 0: the thousands of images in which p changes by 1.")
        if interval < 1:
            raise ValueError(f"interval={interval} must be >= 1: the discriminator's steps between changes of p.")
        if "color" in groups and shape[0] not in (1, 3):
            rest = ",".join(group for group in groups if group != "color")
            remedy = f"model.augment.groups=[{rest}]" if rest else "model/augment=none"
            raise ValueError(
                f"the group 'color' is for images of 3 channels, or 1, and these have {shape[0]}. Use {remedy}."
            )
        self.pipeline = Pipeline(groups, strength or Strength())
        self.target, self.images, self.interval = target, kimg * 1000, interval
        self.p = p
        self.steps, self.counts = 0, torch.zeros(2)  # of the interval: its steps; the sum of signs, their number
        self.pending: Tensor | None = None  # the counts of the current step on this rank
        self.says_gray = shape[0] == 1 and "color" in groups

    @property
    def adapts(self) -> bool:
        return self.target is not None

    @property
    def acts(self) -> bool:
        return self.p > 0

    def __call__(self, candidates: Tensor, uniform: Uniform) -> Tensor:
        """``candidates``: (N, C, H, W). -> like ``candidates``. p changes no number of random draws."""
        if self.says_gray:
            self.says_gray = False
            _log.warning("the images are gray: of model/augment=ada, 'hue' and 'saturation' are left out.")
        return self.pipeline(candidates, uniform, self.p)

    def observe(self, real_scores: Tensor, undecided: float | None) -> None:
        """Scores of real images (N,) in one pass on one rank; ``undecided``: the score at the decision boundary."""
        if self.target is None:
            return
        assert undecided is not None
        signs = (real_scores.detach() - undecided).sign().sum()
        seen = torch.stack([signs, torch.full_like(signs, len(real_scores))])
        self.pending = seen if self.pending is None else self.pending + seen

    def end_step(self) -> dict[str, Tensor]:
        """After each optimizer step of the discriminator, on all ranks. -> ``augment_p``, and ``r_t`` where it was
        compared with the target."""
        logged = {}
        if self.pending is not None:
            self.counts = self.counts.to(self.pending.device) + total(self.pending)
            self.steps, self.pending = self.steps + 1, None
            if self.steps >= self.interval:
                logged["r_t"] = torch.tensor(self.adapt())
        return logged | {"augment_p": torch.tensor(self.p)}

    def adapt(self) -> float:
        """Move p by what was seen in an interval. -> r_t."""
        assert self.target is not None
        signs, seen = self.counts.tolist()
        self.steps, self.counts = 0, torch.zeros(2)
        r_t = signs / seen
        direction = (r_t > self.target) - (r_t < self.target)
        self.p = max(0.0, self.p + direction * seen / self.images)
        return float(r_t)

    def state_dict(self) -> dict[str, Any]:
        signs, seen = self.counts.tolist()
        return {"p": self.p, "steps": self.steps, "signs": signs, "seen": seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Of a run that had no such augmentation, ``state`` is empty, and p begins as it is set."""
        if state:
            self.p, self.steps = state["p"], state["steps"]
            self.counts = torch.tensor([state["signs"], state["seen"]])

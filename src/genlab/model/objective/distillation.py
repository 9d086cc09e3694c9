"""Losses of self-distillation: a student predicts, of each view, what its momentum teacher says of the others.

``student`` and ``teacher`` are what they say of the views: (V, N, D) and (G, N, D). The teacher sees the first G.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Head(Protocol):
    """Features to what a loss compares."""

    num_outputs: int  # D

    def forward(self, features: Tensor) -> Tensor:
        """(N, num_features) -> (N, D)."""
        ...


class ScoresPrototypes(Head, Protocol):
    """A head whose last layer can be held as it is."""

    last: nn.Module


class BYOL(nn.Module):
    """Bootstrap your own latent (Grill et al. 2020, arXiv:2006.07733): the square distance of unit vectors, 2 - 2 times
    their cosine (eq. 2), from each view to the other, added up. The student has a predictor on top, the teacher has
    none, and that, together with the teacher's slowness, is what keeps all images from becoming one vector.

    Of more than two views it is twice the mean over pairs of different views, which of two is the paper's sum.
    """

    def __init__(self, projector: Callable[..., Head], predictor: Callable[..., Head]):
        super().__init__()
        self.make_projector, self.make_predictor = projector, predictor

    def projector(self, num_features: int) -> nn.Module:
        return _module(self.make_projector(num_features))

    def predictor(self, num_outputs: int) -> nn.Module:
        """Raises ValueError: it has other outputs than the projector."""
        predictor = self.make_predictor(num_outputs)
        if predictor.num_outputs != num_outputs:
            raise ValueError(
                f"the predictor has {predictor.num_outputs} outputs, which are compared with {num_outputs} of the "
                f"projector. End model.objective.predictor.widths with {num_outputs}."
            )
        return _module(predictor)

    def loss(self, student: Tensor, teacher: Tensor, progress: float) -> Tensor:
        student, teacher = F.normalize(_fine(student), dim=-1), F.normalize(_fine(teacher), dim=-1)
        cosines = torch.einsum("vnd,gnd->vgn", student, teacher).mean(dim=2)  # (V, G)
        return 2 * mean_of_different(2 - 2 * cosines)

    def follow(self, mean: Tensor) -> None:
        """Nothing of it depends on what the teacher has said before."""

    def held(self, projector: nn.Module, progress: float) -> Iterable[nn.Parameter]:
        return ()


class DINO(nn.Module):
    """Self-distillation without labels (Caron et al. 2021, arXiv:2104.14294, eq. 1 and algorithm 1): the cross-entropy
    from the teacher's distribution over prototypes, of one view, to the student's, of another.

    Two things keep all images from becoming one distribution, and each undoes what the other alone would lead to: the
    teacher's scores are centered by their running mean over all images of all ranks, so that no prototype wins
    everywhere, and sharpened by a low temperature, so that they do not become uniform. The center of a step is of those
    before.
    """

    center: Tensor

    def __init__(
        self,
        head: Callable[..., ScoresPrototypes],
        prototypes: int = 65536,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.04,  # after the warm-up
        warmup_temperature: float = 0.04,  # of the teacher, at the start
        warmup: float = 0.1,  # share of the run in which the teacher's temperature changes, on a straight line
        center_momentum: float = 0.9,  # of the center, a step
        held: float = 0.01,  # share of the run, at its start, in which the last layer stays as it is
    ):
        """Raises ValueError: an argument is outside its range."""
        super().__init__()
        if prototypes < 2:
            raise ValueError(f"prototypes={prototypes} must be 2 or more: of one, all images say the same.")
        for name, value in (("student_temperature", student_temperature), ("teacher_temperature", teacher_temperature),
                            ("warmup_temperature", warmup_temperature)):  # fmt: skip
            if not 0 < value < float("inf"):
                raise ValueError(f"{name}={value} must be finite and above 0.")
        for name, value in (("warmup", warmup), ("center_momentum", center_momentum), ("held", held)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name}={value} must be in [0, 1].")
        self.make_head, self.prototypes, self.student_temperature = head, prototypes, student_temperature
        self.temperatures, self.warmup = (warmup_temperature, teacher_temperature), warmup
        self.center_momentum, self.held_share = center_momentum, held
        self.register_buffer("center", torch.zeros(prototypes))

    def projector(self, num_features: int) -> nn.Module:
        return _module(self.make_head(num_features, out=self.prototypes))

    def predictor(self, num_outputs: int) -> nn.Module:
        return nn.Identity()

    def teacher_temperature(self, progress: float) -> float:
        """At ``progress`` in [0, 1]."""
        first, last = self.temperatures
        return last if progress >= self.warmup else first + (last - first) * progress / self.warmup

    def loss(self, student: Tensor, teacher: Tensor, progress: float) -> Tensor:
        target = ((_fine(teacher) - self.center) / self.teacher_temperature(progress)).softmax(dim=-1)
        log_probability = (_fine(student) / self.student_temperature).log_softmax(dim=-1)
        return mean_of_different(-torch.einsum("vnd,gnd->vgn", log_probability, target).mean(dim=2))

    @torch.no_grad()
    def follow(self, mean: Tensor) -> None:
        """Move the center towards the mean of what the teacher has said of a batch (eq. 4)."""
        self.center.lerp_(mean.to(self.center.dtype), 1 - self.center_momentum)

    def held(self, projector: nn.Module, progress: float) -> Iterable[nn.Parameter]:
        return projector.last.parameters() if progress < self.held_share else ()  # type: ignore[operator, union-attr]


def mean_of_different(table: Tensor) -> Tensor:
    """The mean over pairs of different views of ``table`` (V, G), whose first G rows are of the same views as its
    columns."""
    views, seen = table.shape
    assert views > 1, "one view has no other"
    same = torch.eye(views, seen, dtype=torch.bool, device=table.device)
    return table.masked_fill(same, 0.0).sum() / (views * seen - seen)


def _fine(x: Tensor) -> Tensor:
    """In float32 or finer."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _module(head: Head) -> nn.Module:
    assert isinstance(head, nn.Module)
    return head

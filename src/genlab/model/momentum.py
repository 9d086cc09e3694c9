"""Networks that follow others slowly: momentum teachers, whose weights are running averages of a student's."""

import math

import torch
from torch import Tensor, nn


def cosine_momentum(start: float, fraction: float) -> float:
    """From ``start`` to 1 along half a cosine (Grill et al. 2020, section 3.2). ``fraction``: of the run, in [0, 1]."""
    return 1 - (1 - start) * (1 + math.cos(math.pi * fraction)) / 2


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Move the parameters of ``teacher`` towards those of ``student``, which has the same ones in the same order: to
    ``momentum`` of their own and 1 - ``momentum`` of the student's. Buffers stay as they are."""
    pairs = zip(teacher.parameters(), student.parameters(), strict=True)
    teachers, students = map(list, zip(*pairs, strict=True))
    weights: list[Tensor] = [p.to(q.dtype) for p, q in zip(students, teachers, strict=True)]
    torch._foreach_lerp_(teachers, weights, 1 - momentum)

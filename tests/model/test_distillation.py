"""The losses of self-distillation: a peer's numbers, closed forms, and what keeps all images from becoming one."""

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.config.build import fits
from genlab.model.momentum import cosine_momentum, follow
from genlab.model.network.projector import Projector
from genlab.model.network.prototype_head import PrototypeHead
from genlab.model.objective.distillation import BYOL, DINO, mean_of_different
from genlab.model.parts import DistillationObjective


def dino(**options: Any) -> DINO:
    head = partial(PrototypeHead, width=32, bottleneck=8)
    return DINO(head, **{"prototypes": 12, "held": 0.0} | options)


HEAD = partial(Projector, widths=(32, 8), last_norm=False)


def byol(predictor: Callable[..., Any] = HEAD) -> BYOL:
    return BYOL(HEAD, predictor)


class WithoutPredictor(nn.Identity):
    num_outputs = 8


def scores(count: int, phase: float) -> Tensor:
    """(count, 4, 6)."""
    places = torch.arange(count * 24, dtype=torch.float64).view(count, 4, 6)
    return 0.3 * torch.sin(1.7 * places + phase) + 0.1 * torch.arange(6)


# --- values -----------------------------------------------------------------------------------------------------------

# Of five steps of lightly 1.6.0's DINOLoss(6, warmup_teacher_temp=0.07, teacher_temp=0.04,
# warmup_teacher_temp_epochs=4, student_temp=0.1, center_momentum=0.9).double(), with epoch=0 to 4.
LIGHTLY_DINO = (1.9833992795614421, 1.6245418035506884, 1.724287026454913, 1.506907986876564, 1.9121612319202594)
LIGHTLY_CENTER = (0.000152992, 0.041027834, 0.08172921, 0.122820697, 0.163985119, 0.204740636)
# Of its DINOProjectionHead(5, 7, 3, 4, batch_norm=False), whose tensor number i holds 0.5 sin(1.3 place + i).
LIGHTLY_HEAD = ((-0.6051164269447327, 0.8832324743270874, -0.7440249919891357, 0.04012185335159302),
                (-0.5842258334159851, 0.7586064338684082, -0.5578861832618713, -0.0747341513633728))  # fmt: skip


def test_dino_is_lightlys_over_several_steps() -> None:
    objective = DINO(PrototypeHead, 6, 0.1, teacher_temperature=0.04, warmup_temperature=0.07, warmup=0.3).double()
    for step, expected in enumerate(LIGHTLY_DINO):
        student, teacher = scores(3, step), scores(2, 10 + step)
        loss = objective.loss(student, teacher, progress=step * 0.1)
        assert float(loss) == pytest.approx(expected, abs=1e-6)
        objective.follow(teacher.mean(dim=(0, 1)))
    assert objective.center.tolist() == pytest.approx(LIGHTLY_CENTER, abs=1e-8)


def test_byol_is_lightlys() -> None:
    """Its NegativeCosineSimilarity, -0.9578749058206371 from the first view to the second and -0.9337481047946664 the
    other way: the paper's loss is 2 + 2 times each, added up."""
    loss = byol().loss(scores(2, 0), scores(2, 10), progress=0.0)
    assert float(loss) == pytest.approx(4 + 2 * (-0.9578749058206371 - 0.9337481047946664), abs=1e-6)


def test_the_head_is_lightlys() -> None:
    head = PrototypeHead(5, out=4, width=7, bottleneck=3)
    with torch.no_grad():
        for number, p in zip((1, 2, 3, 4, 5, 6, 8), head.parameters(), strict=True):  # its 7th is of gains
            p.copy_(0.5 * torch.sin(1.3 * torch.arange(p.numel()).view_as(p) + number))
    found = head(torch.cos(0.7 * torch.arange(10.0)).view(2, 5))
    torch.testing.assert_close(found, torch.tensor(LIGHTLY_HEAD), rtol=0, atol=1e-6)


def test_a_head_has_as_many_hidden_layers_as_asked_for() -> None:
    """Each has a matrix and a bias; the bottleneck has both too, the prototypes have a matrix."""
    shapes = [tuple(p.shape) for p in PrototypeHead(5, out=4, width=7, bottleneck=3, depth=1).parameters()]
    assert shapes == [(7, 5), (7,), (3, 7), (3,), (4, 3)]
    assert len(list(PrototypeHead(5, out=4, width=7, bottleneck=3, depth=3).parameters())) == 2 * 4 + 1


def test_byol_is_0_where_the_student_agrees_and_8_where_it_says_the_opposite() -> None:
    said = scores(1, 0).expand(2, 4, 6)
    assert float(byol().loss(3 * said, said, 0.0)) == pytest.approx(0, abs=1e-6)
    assert float(byol().loss(-said, said, 0.0)) == pytest.approx(8)


def test_of_nothing_but_uniform_scores_dino_is_the_logarithm_of_the_prototypes() -> None:
    assert float(dino().loss(torch.zeros(2, 3, 12), torch.zeros(2, 3, 12), 0.0)) == pytest.approx(math.log(12))


def test_a_view_is_not_compared_with_itself() -> None:
    """Of three views, of which the teacher sees two, four pairs are left."""
    table = torch.tensor([[1e9, 1.0], [2.0, 1e9], [3.0, 6.0]])
    assert float(mean_of_different(table)) == 3
    for objective in (byol(), dino()):
        width = 8 if isinstance(objective, BYOL) else 12
        student, teacher = torch.randn(3, 4, width), torch.randn(2, 4, width)
        ones = [_of_pair(objective, student[v], teacher[g]) for v in range(3) for g in range(2) if v != g]
        assert float(objective.loss(student, teacher, 0.0)) == pytest.approx(float(torch.stack(ones).mean()), rel=1e-5)


def _of_pair(objective: Any, student: Tensor, teacher: Tensor) -> Tensor:
    """From one view (N, D) to another."""
    if isinstance(objective, DINO):
        return F.cross_entropy(student / 0.1, (teacher / 0.04).softmax(dim=1))
    return 2 * (F.normalize(student, dim=1) - F.normalize(teacher, dim=1)).square().sum(dim=1).mean()


# --- schedules --------------------------------------------------------------------------------------------------------


def test_the_momentum_goes_to_1_along_half_a_cosine() -> None:
    found = [cosine_momentum(0.99, fraction) for fraction in (0.0, 1 / 3, 0.5, 1.0)]
    assert found == pytest.approx([0.99, 1 - 0.01 * 0.75, 0.995, 1.0])


def test_the_teacher_is_a_running_average_and_its_buffers_are_its_own() -> None:
    teacher, student = (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)) for _ in range(2))
    before = copy.deepcopy(teacher)
    student(torch.randn(8, 2))
    follow(teacher, student, 0.9)
    for mine, theirs, old in zip(teacher.parameters(), student.parameters(), before.parameters(), strict=True):
        torch.testing.assert_close(mine, 0.9 * old + 0.1 * theirs)
    assert torch.equal(teacher[1].running_mean, before[1].running_mean)
    assert not torch.equal(student[1].running_mean, before[1].running_mean)


def test_the_teachers_temperature_changes_on_a_straight_line() -> None:
    objective = dino(warmup_temperature=0.04, teacher_temperature=0.07, warmup=0.5)
    found = [objective.teacher_temperature(progress) for progress in (0.0, 0.25, 0.5, 1.0)]
    assert found == pytest.approx([0.04, 0.055, 0.07, 0.07])
    assert dino(warmup=0.0).teacher_temperature(0.0) == 0.04


def test_the_center_is_a_running_mean_of_what_the_teacher_says() -> None:
    objective = dino(center_momentum=0.75)
    objective.follow(torch.full((12,), 4.0))
    objective.follow(torch.full((12,), 8.0))
    torch.testing.assert_close(objective.center, torch.full((12,), 0.75 * 1 + 0.25 * 8))


def test_the_last_layer_is_held_at_first() -> None:
    objective = dino(held=0.1)
    head = objective.projector(4)
    assert list(objective.held(head, 0.05)) == list(head.last.parameters())
    assert list(objective.held(head, 0.1)) == []


# --- collapse ---------------------------------------------------------------------------------------------------------


def trained(objective: Any, momentum: float = 0.9) -> tuple[Tensor, Tensor]:
    """Heads alone, of 16 vectors with noise. -> the last loss, and what the teacher says of two views (2, 16, D)."""
    torch.manual_seed(0)
    images = torch.randn(16, 8)
    student, predictor = objective.projector(8), objective.predictor(8)
    teacher = copy.deepcopy(student).requires_grad_(False)
    optimizer = torch.optim.SGD([*student.parameters(), *predictor.parameters()], lr=0.5, momentum=0.9)
    for step in range(100):
        views = images + 0.3 * torch.randn(2, 16, 8)
        said = torch.stack([teacher(view) for view in views])
        loss = objective.loss(torch.stack([predictor(student(view)) for view in views]), said, step / 100)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        objective.follow(said.mean(dim=(0, 1)))
        follow(teacher, student, momentum)
    return loss.detach(), said


@pytest.mark.parametrize(("center_momentum", "collapses"), [(0.0, False), (1.0, True)])
def test_centering_keeps_dino_from_naming_one_prototype(center_momentum: float, collapses: bool) -> None:
    """Where the center stays 0, one prototype is named for all images. Where it is the mean of the last batch, several
    are, and the student knows more of what the teacher says than how often it says it."""
    objective = dino(center_momentum=center_momentum)
    loss, said = trained(objective)
    named = ((said - objective.center) / 0.04).softmax(dim=-1).mean(dim=(0, 1))
    entropy = torch.special.entr(named).sum()
    assert (entropy < 0.05) if collapses else (entropy - loss > 0.3)


@pytest.mark.parametrize("collapses", [False, True])
def test_the_predictor_and_a_slow_teacher_keep_byol_from_one_vector(collapses: bool) -> None:
    _, said = trained(byol(WithoutPredictor), momentum=0.0) if collapses else trained(byol())
    units = F.normalize(said, dim=-1)
    of_others = (units[0].mean(dim=0) * units[1].mean(dim=0)).sum()
    assert (of_others > 0.98) if collapses else (of_others < 0.7 < 0.9 < (units[0] * units[1]).sum(dim=1).mean())


# --- what they are ----------------------------------------------------------------------------------------------------


def test_they_fit_the_slot() -> None:
    assert all(fits(kind, DistillationObjective, partial=False) for kind in (BYOL, DINO))


@pytest.mark.parametrize(("make", "message"), [
    (partial(dino, prototypes=1), r"prototypes=1 must be 2 or more: of one"),
    (partial(dino, teacher_temperature=0.0), r"teacher_temperature=0\.0 must be finite and above 0"),
    (partial(dino, student_temperature=-1.0), r"student_temperature=-1\.0 must be finite and above 0"),
    (partial(dino, warmup_temperature=math.nan), r"warmup_temperature=nan must be finite and above 0"),
    (partial(dino, warmup=1.5), r"warmup=1\.5 must be in \[0, 1\]"),
    (partial(dino, center_momentum=-0.1), r"center_momentum=-0\.1 must be in"),
    (partial(dino, held=2.0), r"held=2\.0 must be in"),
    (lambda: byol(partial(Projector, widths=(4,))).predictor(8), r"predictor has 4 outputs.*predictor\.widths with 8"),
    (partial(PrototypeHead, 4, out=4, bottleneck=0), "bottleneck=0 and depth=2 must be 1 or more"),
    (partial(PrototypeHead, 4, out=4, depth=0), "depth=0 must be 1 or more"),
])  # fmt: skip
def test_bad_values(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()

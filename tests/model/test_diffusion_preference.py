"""Diffusion-DPO: its loss by hand, what must be the same on both sides, and that it learns."""

import functools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.model.diffusion_preference import DiffusionPreference, drawing_from
from genlab.model.network.mlp import MLP
from genlab.model.objective.ddpm import DDPM
from genlab.model.objective.edm import EDM
from genlab.model.objective.flow_matching import FlowMatching
from genlab.model.objective.noise_schedule import Cosine
from genlab.model.objective.prediction import Velocity
from genlab.model.objective.time_distribution import Uniform
from genlab.model.sampler.dpm_solver import DPMSolver2M
from genlab.model.sampler.grid import Karras
from genlab.model.schedule import Constant
from genlab.seeding import RandomStream

OBJECTIVES = (EDM(), DDPM(Cosine(), Velocity()), FlowMatching(Uniform()))


def learner(far: bool = True, dropout: float = 0.0, **changes: Any) -> DiffusionPreference:
    """``far``: the policy has left the reference."""
    arguments: dict[str, Any] = {
        "network": functools.partial(MLP, (1, 2, 2), width=32, dropout=dropout),
        "objective": EDM(),
        "sampler": DPMSolver2M(5, Karras()),
        "optimizer": functools.partial(torch.optim.AdamW, lr=1e-3),
        "schedule": Constant(),
        "shape": (1, 2, 2),
        "told": {},
        "beta": 3.0,
    }
    model = DiffusionPreference(**{**arguments, **changes})
    torch.manual_seed(0)
    model.configure_model()
    for parameter in model.network.parameters():
        nn.init.normal_(parameter, std=0.2)
    model.reference.load_state_dict(model.network.state_dict())
    if far:
        for parameter in model.network.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def batch(count: int = 6) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(1)
    chosen, rejected = torch.randn(2, count, 1, 2, 2, generator=draw)
    return {"image": chosen, "rejected": rejected, "tie": torch.zeros(count, dtype=torch.bool)}


def test_the_loss_by_hand() -> None:
    """Wallace et al. 2023, eq. 14, with EDM's weights: all four errors at the same levels with the same noise."""
    model, given = learner(), batch()
    torch.manual_seed(5)
    found = model.losses(given)
    torch.manual_seed(5)
    torch.manual_seed(int(torch.randint(2**62, ())))
    sigma, noise = torch.exp(-1.2 + 1.2 * torch.randn(6)).view(6, 1, 1, 1), torch.randn(6, 1, 2, 2)
    weight = (sigma**2 + 0.25) / (sigma * 0.5) ** 2

    def error(network: nn.Module, x: Tensor) -> Tensor:
        denoised = model.objective.denoise(network, x + sigma * noise, sigma.flatten(), None)
        return (weight * (denoised - x) ** 2).mean(dim=(1, 2, 3))

    growth = [error(model.network, given[s]) - error(model.reference, given[s]) for s in ("image", "rejected")]
    margin = -3.0 * (growth[0] - growth[1])
    torch.testing.assert_close(found["loss"], -F.logsigmoid(margin).mean())
    torch.testing.assert_close(found["margin"], margin.mean())
    assert float(found["accuracy"]) == float((margin > 0).float().mean())
    torch.testing.assert_close(found["chosen"], growth[0].mean())


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
def test_errors_are_the_loss_of_each_example(objective: Any) -> None:
    network, x = learner().network, torch.randn(5, 1, 2, 2)
    torch.manual_seed(3)
    whole = objective.loss(network, x, None, 0.0)
    torch.manual_seed(3)
    each = objective.errors(network, x, None)
    assert each.shape == (5,)
    torch.testing.assert_close(each.mean(), whole)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
def test_at_the_start_there_is_no_difference_to_the_last_bit(objective: Any) -> None:
    found = learner(far=False, objective=objective).eval().losses(batch())
    assert float(found["loss"]) == pytest.approx(math.log(2))
    assert float(found["margin"]) == float(found["chosen"]) == float(found["rejected"]) == 0


def test_the_reference_is_never_in_training_mode_and_stays() -> None:
    model = learner(dropout=0.5).train()
    before = {name: value.clone() for name, value in model.reference.state_dict().items()}
    assert model.network.training
    assert not any(module.training for module in model.reference.modules())
    optimizer = model.configure_optimizers()
    model.training_step(batch(), 0).backward()
    optimizer.step()  # type: ignore[union-attr]
    assert all(torch.equal(value, before[name]) for name, value in model.reference.state_dict().items())
    assert {name.partition(".")[0] for name, _ in model.averaged()} == {"network"}


def test_a_tie_counts_half_for_either_picture() -> None:
    model, given = learner(), batch()
    turned = given | {"image": given["rejected"], "rejected": given["image"]}
    found = []
    for one in (given, turned, given | {"tie": torch.ones(6, dtype=torch.bool)}):
        torch.manual_seed(2)
        found.append(model.losses(one)["loss"])
    torch.testing.assert_close(found[2], (found[0] + found[1]) / 2)


def test_other_draws_go_on_as_if_none_had_been_made() -> None:
    torch.manual_seed(4)
    wanted = torch.randn(3)
    torch.manual_seed(4)
    with drawing_from(9, torch.device("cpu")):
        first = torch.randn(3)
    assert torch.equal(torch.randn(3), wanted)
    with drawing_from(9, torch.device("cpu")):
        assert torch.equal(torch.randn(3), first)


@pytest.mark.parametrize("beta", [0.0, -1.0, math.inf, math.nan])
def test_a_beta_out_of_range_is_refused(beta: float) -> None:
    with pytest.raises(ValueError, match=r"^model\.beta=\S+ must be finite and above 0\.$"):
        learner(beta=beta)


def test_it_learns_to_draw_what_is_preferred() -> None:
    """A model of standard normal pictures, of which the brighter one is preferred: samples get brighter, and their
    spread, which nobody judged, stays."""
    model = learner(far=False, beta=20.0)
    draw = torch.Generator().manual_seed(2)
    pictures = 0.5 * torch.randn(4096, 1, 2, 2, generator=draw)
    optimizer = torch.optim.Adam(model.network.parameters(), lr=3e-3)
    for _ in range(300):
        optimizer.zero_grad()
        model.objective.loss(model.network, pictures[torch.randint(4096, (256,))], None, 0.0).backward()
        optimizer.step()
    model.reference.load_state_dict(model.network.state_dict())
    before = samples(model)
    optimizer = torch.optim.Adam(model.network.parameters(), lr=1e-3)
    for _ in range(60):
        pairs = pictures[torch.randint(4096, (2, 256))]
        is_second = pairs[1].mean(dim=(1, 2, 3)) > pairs[0].mean(dim=(1, 2, 3))
        chosen = torch.where(is_second.view(-1, 1, 1, 1), pairs[1], pairs[0])
        rejected = pairs.sum(dim=0) - chosen
        optimizer.zero_grad()
        given = {"image": chosen, "rejected": rejected, "tie": torch.zeros(256, dtype=torch.bool)}
        model.losses(given)["loss"].backward()
        optimizer.step()
    after = samples(model)
    assert float(after.mean() - before.mean()) > 0.1
    assert 0.5 < float(after.std() / before.std()) < 2


def samples(model: DiffusionPreference) -> Tensor:
    return model.eval().sample(512, None, RandomStream.for_samples(0, range(512)))

"""Every objective learns a ring of eight Gaussians, and every sampler draws it.

The yardstick is the energy distance, the square root as in ``scipy.stats.energy_distance`` and in two dimensions
(Székely and Rizzo 2013, eq. 5), between NUM_SAMPLES samples and as many true points. It must stay below twice the
distance of true points to other true points; both are averages over NUM_DRAWS independent draws of each side.
"""

import math
from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from genlab.model.network.mlp import MLP
from genlab.model.objective.ddpm import DDPM
from genlab.model.objective.edm import EDM
from genlab.model.objective.flow_matching import FlowMatching
from genlab.model.objective.noise_schedule import Cosine, LinearBeta
from genlab.model.objective.prediction import CleanImage, Epsilon, Velocity
from genlab.model.objective.time_distribution import Uniform
from genlab.model.parts import DenoisingObjective, Sampler
from genlab.model.sampler.ancestral import Ancestral
from genlab.model.sampler.ddim import DDIM
from genlab.model.sampler.dpm_solver import DPMSolver2M
from genlab.model.sampler.euler import Euler
from genlab.model.sampler.grid import FlowGrid, Karras, VariancePreserving
from genlab.model.sampler.heun import Heun
from genlab.seeding import RandomStream

NUM_SAMPLES, NUM_DRAWS = 1000, 2
RADIUS, STD = 0.7, 0.05  # so that each coordinate has a standard deviation of 0.5
NUM_STEPS, BATCH_SIZE, LEARNING_RATE = 800, 256, 3e-3

OBJECTIVES: dict[str, DenoisingObjective] = {
    "epsilon-linear": DDPM(LinearBeta(), Epsilon()),
    "epsilon-cosine": DDPM(Cosine(), Epsilon()),
    "velocity-linear": DDPM(LinearBeta(), Velocity()),
    "velocity-cosine": DDPM(Cosine(), Velocity()),
    "clean-linear": DDPM(LinearBeta(), CleanImage()),
    "clean-cosine": DDPM(Cosine(), CleanImage()),
    "edm": EDM(),
    "flow-matching": FlowMatching(Uniform()),
}
SAMPLERS: dict[str, Sampler] = {  # as in configs/model/sampler
    "ancestral": Ancestral(100, VariancePreserving()),
    "ddim": DDIM(50, VariancePreserving()),
    "euler": Euler(50, FlowGrid()),
    "heun": Heun(18, Karras()),
    "dpm-solver": DPMSolver2M(20, Karras()),
}
# Each objective and each sampler at least once in `make test`, where a velocity is learned under one schedule only and
# a clean image under the other; `make matrix` has the whole product.
QUICK = {("epsilon-linear", "ancestral"), ("velocity-cosine", "ddim"), ("clean-linear", "dpm-solver"),
         ("edm", "heun"), ("flow-matching", "euler")}  # fmt: skip
PAIRS = [
    pytest.param(objective, sampler, marks=[] if (objective, sampler) in QUICK else [pytest.mark.matrix])
    for objective, sampler in product(OBJECTIVES, SAMPLERS)
]


def ring(num: int, generator: torch.Generator) -> Tensor:
    """True points, (num, 2)."""
    angle = torch.randint(8, (num,), generator=generator) * math.pi / 4
    center = RADIUS * torch.stack([angle.cos(), angle.sin()], dim=1)
    return center + STD * torch.randn(num, 2, generator=generator)


def energy_distance(x: Tensor, y: Tensor) -> float:
    """(N, 2), (M, 2) -> the square root of 2 E|x - y| - E|x - x'| - E|y - y'|."""
    square = 2 * torch.cdist(x, y).mean() - torch.cdist(x, x).mean() - torch.cdist(y, y).mean()
    return math.sqrt(max(0.0, square.item()))


def mean_distance(draw: Callable[[], Tensor], truths: list[Tensor]) -> float:
    return sum(energy_distance(draw(), truth) for truth in truths) / len(truths)


@pytest.fixture(scope="module")
def trained(request: pytest.FixtureRequest) -> tuple[DenoisingObjective, nn.Module]:
    objective = OBJECTIVES[request.param]
    torch.manual_seed(0)
    points = torch.Generator().manual_seed(0)
    network = MLP((2, 1, 1), {})
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, NUM_STEPS, pct_start=0.05)
    for _ in range(NUM_STEPS):
        loss = objective.loss(network, ring(BATCH_SIZE, points)[:, :, None, None], None, 0.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return objective, network


@pytest.mark.parametrize(("trained", "sampler"), PAIRS, indirect=["trained"])
def test_samples_are_as_close_as_truth(trained: tuple[DenoisingObjective, nn.Module], sampler: str) -> None:
    objective, network = trained
    points = torch.Generator().manual_seed(1)
    truths = [ring(NUM_SAMPLES, points) for _ in range(NUM_DRAWS)]
    yardstick = mean_distance(lambda: ring(NUM_SAMPLES, points), truths)
    stream = RandomStream([2])
    noise = stream.randn(NUM_DRAWS * NUM_SAMPLES, 2, 1, 1)[0]

    class Generator(RandomStream):
        """One stream for all points: thousands of generators, one for each, would take most of the time."""

        def randn_like(self, x: Tensor) -> Tensor:
            return stream.randn(*x.shape)[0]

    with torch.no_grad():
        samples = SAMPLERS[sampler](lambda x, sigma: objective.denoise(network, x, sigma, None), noise, Generator([]))
    draws = iter(samples.flatten(1).split(NUM_SAMPLES))
    assert mean_distance(lambda: next(draws), truths) < 2 * yardstick

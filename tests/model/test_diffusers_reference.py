"""Our samplers draw what the schedulers of ``diffusers`` draw, from one denoiser at the same noise levels.

REFERENCE was recorded with :func:`diffusers_draw`, diffusers 0.42.1 and torch 2.13.0 on a CPU in float64 (diffusers'
own tables are float32), from DDPM's 1000 linear betas, ``prediction_type="epsilon"``, ten steps and no clipping. The
data are a mixture of two Gaussians, whose denoiser bends, so an error in any step shows. Where diffusers is installed,
the record is compared with a live run.

Conventions that differ, and what was done about them:

* DDPM, DDIM and DPM-Solver++ of diffusers hold alpha * x where ours hold x; flow matching holds x / (1 + sigma).
* Those start from noise of variance 1 instead of 1 - alpha_bar. Here all start from ours, sigma_max * noise.
* Time grids: "leading" (DDPM, DDIM) stops at steps 900, 800 ... 0; "linspace" at 999, 888 ... 0 (Euler, Heun), or in
  DPM-Solver++ at 999, 899 ... 100, so its last step is the long one from 100. Each of ours is given these very levels.
* The last step goes to sigma 0: ``set_alpha_to_one`` in DDIM, ``final_sigmas_type="zero"`` in DPM-Solver++, whose last
  step is then of first order, as ours is.
* DDPM with "fixed_small" variance clamps it at 1e-20, which no step here reaches.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from genlab.model.objective.noise_schedule import LinearBeta
from genlab.model.parts import Sampler
from genlab.model.sampler.ancestral import Ancestral
from genlab.model.sampler.ddim import DDIM
from genlab.model.sampler.dpm_solver import DPMSolver2M
from genlab.model.sampler.euler import Euler
from genlab.model.sampler.grid import SigmaGrid
from genlab.model.sampler.heun import Heun
from genlab.seeding import RandomStream

NUM_STEPS, SEED = 10, 7
NOISE = torch.tensor([-1.7, -0.6, 0.05, 0.9, 2.2], dtype=torch.float64)[:, None, None, None]
CENTERS, WEIGHTS, STD = (-0.6, 0.4), (0.3, 0.7), 0.2  # of the data

REFERENCE: dict[str, list[float]] = {
    "ddpm": [0.3149161, 0.44602, -0.1071895, 0.3210424, 0.3961686],
    "ddim": [-0.6688807, -0.1122853, 0.2849968, 0.4517129, 0.6095463],
    "ddim-half": [0.0178355, 0.4579402, 0.3045683, 0.4516341, 0.6528614],
    "euler": [-0.6529014, -0.1013177, 0.2726423, 0.4448695, 0.5952527],
    "flow-euler": [-0.7312719, -0.1864126, 0.2992221, 0.4867004, 0.7117071],
    "heun": [-0.9135623, -0.2517339, 0.2800836, 0.583575, 0.961103],
    "dpm-solver": [-0.6968519, -0.1504479, 0.3007072, 0.4605897, 0.6065741],
}

LEADING = [900.0 - 100 * i for i in range(NUM_STEPS)]
LINSPACE = [999 * (1 - i / (NUM_STEPS - 1)) for i in range(NUM_STEPS)]
MULTISTEP = [999.0, 899.0, 799.0, 699.0, 599.0, 500.0, 400.0, 300.0, 200.0, 100.0]  # 99.9 apart, rounded
FLOW_TIMES = [80 / 81 * (1 - i / NUM_STEPS) for i in range(NUM_STEPS)]  # share of noise; 1 would be infinite sigma


def ideal(x: Tensor, sigma: Tensor) -> Tensor:
    """D(x; sigma) of the mixture: (N, 1, 1, 1), (N,) -> (N, 1, 1, 1)."""
    variance = STD**2 + sigma[:, None, None, None] ** 2
    logits = torch.stack([-((x - c) ** 2) / (2 * variance) for c in CENTERS])
    shares = (logits + torch.tensor(WEIGHTS, dtype=x.dtype).log()[:, None, None, None, None]).softmax(dim=0)
    means = torch.stack([c + STD**2 / variance * (x - c) for c in CENTERS])
    return (shares * means).sum(dim=0)


def levels(steps: list[float]) -> Tensor:
    """The sigmas of DDPM's steps, linear between whole ones as in diffusers, and 0."""
    alphas_bar = LinearBeta().alphas_bar.double()
    table = ((1 - alphas_bar) / alphas_bar).sqrt()
    position = torch.tensor(steps, dtype=torch.float64)
    lower = position.floor().long().clamp(max=len(table) - 2)
    return torch.cat([torch.lerp(table[lower], table[lower + 1], position - lower), torch.zeros(1).double()])


def flow_levels() -> Tensor:
    time = torch.tensor([*FLOW_TIMES, 0.0], dtype=torch.float64)
    return time / (1 - time)


OURS: dict[str, tuple[Callable[[int, SigmaGrid], Sampler], Tensor]] = {
    "ddpm": (Ancestral, levels(LEADING)),
    "ddim": (DDIM, levels(LEADING)),
    "ddim-half": (lambda num, grid: DDIM(num, grid, eta=0.5), levels(LEADING)),
    "euler": (Euler, levels(LINSPACE)),
    "flow-euler": (Euler, flow_levels()),
    "heun": (Heun, levels(LINSPACE)),
    "dpm-solver": (DPMSolver2M, levels(MULTISTEP)),
}


class OneGenerator(RandomStream):
    """Noise for all samples at once from one generator, as diffusers draws it."""

    def __init__(self) -> None:
        super().__init__([])
        self.source = torch.Generator().manual_seed(SEED)

    def randn_like(self, x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=self.source, dtype=x.dtype)


def our_draw(name: str) -> Tensor:
    make, sigmas = OURS[name]
    return make(NUM_STEPS, lambda num_steps: sigmas)(ideal, NOISE, OneGenerator()).flatten()


def diffusers_draw(name: str) -> Tensor:
    """How REFERENCE was made: ``{name: diffusers_draw(name).tolist() for name in OURS}``."""
    import diffusers

    table: dict[str, Any] = {"beta_start": 1e-4, "beta_end": 0.02, "prediction_type": "epsilon"}
    scheduler = {
        "ddpm": lambda: diffusers.DDPMScheduler(**table, variance_type="fixed_small", clip_sample=False),
        "ddim": lambda: diffusers.DDIMScheduler(**table, clip_sample=False),
        "ddim-half": lambda: diffusers.DDIMScheduler(**table, clip_sample=False),
        "euler": lambda: diffusers.EulerDiscreteScheduler(**table, timestep_spacing="linspace"),
        "flow-euler": lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0),
        "heun": lambda: diffusers.HeunDiscreteScheduler(**table, timestep_spacing="linspace"),
        "dpm-solver": lambda: diffusers.DPMSolverMultistepScheduler(**table, timestep_spacing="linspace"),
    }[name]()
    if name == "flow-euler":
        scheduler.set_timesteps(sigmas=FLOW_TIMES)
    else:
        scheduler.set_timesteps(NUM_STEPS)
    options: dict[str, Any] = {"eta": 0.5} if name == "ddim-half" else {}
    if name in ("ddpm", "ddim-half"):
        options["generator"] = torch.Generator().manual_seed(SEED)
    x = None
    for i, t in enumerate(scheduler.timesteps):
        if name == "flow-euler":
            time = scheduler.sigmas[i].double()
            sigma, scale = time / (1 - time), 1 - time
        elif name in ("euler", "heun"):
            sigma, scale = scheduler.sigmas[i].double(), 1.0
            scheduler.scale_model_input(NOISE, t)
        else:
            alpha_bar = scheduler.alphas_cumprod[int(t)].double()
            sigma, scale = ((1 - alpha_bar) / alpha_bar).sqrt(), alpha_bar.sqrt()
        x = scale * sigma * NOISE if x is None else x
        clean = ideal(x / scale, sigma.expand(len(x)))
        noise = (x / scale - clean) / sigma
        x = scheduler.step(noise - clean if name == "flow-euler" else noise, t, x, **options).prev_sample
    assert x is not None
    return x.flatten().double()


@pytest.mark.parametrize("name", OURS)
def test_agrees_with_the_record(name: str) -> None:
    torch.testing.assert_close(our_draw(name), torch.tensor(REFERENCE[name]).double(), rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", OURS)
def test_the_record_is_what_diffusers_draws(name: str) -> None:
    pytest.importorskip("diffusers")
    torch.testing.assert_close(diffusers_draw(name), torch.tensor(REFERENCE[name]).double(), rtol=0, atol=2e-6)


def test_samplers_are_told_apart() -> None:
    """At ten steps they differ by far more than the tolerance, so none passes for another."""
    draws = torch.tensor(list(REFERENCE.values()))
    apart = (draws[:, None] - draws[None]).abs().amax(dim=2)
    assert apart[~torch.eye(len(draws), dtype=torch.bool)].min() > 1e-3

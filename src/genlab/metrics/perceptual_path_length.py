"""Perceptual path length: the smoothness of the latent space (Karras et al. 2019, arXiv:1812.04948, section 4.1)."""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from genlab.data.base import DataModule, Split
from genlab.errors import ConfigError
from genlab.machine.rank import rank, world
from genlab.metrics.base import Direction, short
from genlab.metrics.data_of import images_of
from genlab.metrics.distance.base import ImageDistance
from genlab.metrics.extractor.precision import full_precision
from genlab.model.base import Condition, GenerativeModel, HasPrior
from genlab.model.condition import moved, repeated
from genlab.seeding import RandomStream

_CHUNK = 16  # paths whose ends are decoded together, whatever the batch size: 1 / epsilon^2 magnifies float32 rounding


class PerceptualPathLength(Metric):
    """Mean distance of the images of two latents a small step apart, by the step squared (eq. 2).

    A step starts at a uniformly random point of the path between two random latents, and covers ``epsilon`` of it. The
    path is the great circle (slerp), as suits a normal prior: a straight line would pass through latents shorter
    than any that a sample has. (Karras et al. take a straight line in StyleGAN's learned space W alone, eq. 3.) The
    lowest and the highest ``discard`` of lengths are left out, as in their code. Lower is smoother, and one image for
    all latents is smoothest: read it beside a metric of diversity; numbers of other distances or sizes do not compare.

    For models whose prior is standard normal: GAN (without truncation), VAE (at temperature 1, its mean image) and
    flow (neither guided nor denoised). Path i is a function of (seed, i) and has the condition of sample i.
    """

    directions: ClassVar[Mapping[str, Direction | None]] = {"path_length": "lower"}
    full_state_update = False

    lengths: list[Tensor]

    def __init__(
        self,
        distance: ImageDistance,  # its name is part of the number's name
        num_samples: int = 10_000,  # paths; the paper has 100,000
        epsilon: float = 1e-4,  # of a path; the paper's
        discard: float = 0.01,  # share of the lengths at either end
    ):
        """Raises ConfigError if a value is out of its range."""
        super().__init__()
        if num_samples < 1 or not 1e-5 <= epsilon <= 1 or not 0 <= discard < 0.5:
            raise ConfigError(
                f"perceptual path length: num_samples={num_samples} must be >= 1, epsilon={epsilon} from 1e-5 (float32 "
                f"tells no less apart) to 1, discard={discard} from 0 to less than 0.5."
            )
        self.distance, self.num_samples, self.epsilon, self.discard = distance, num_samples, epsilon, discard
        self._seed = 0
        self._asked: Callable[[Sequence[int]], Condition | None] | None = None
        self.add_state("lengths", [], dist_reduce_fx="cat")

    def update(self, lengths: Tensor) -> None:
        """Take in distances by squared steps, (N,)."""
        self.lengths.append(lengths.double().to(self.device))

    def compute(self) -> dict[str, Tensor]:
        """``path_length``, 0 or more."""
        return {"path_length": trimmed_mean(dim_zero_cat(self.lengths), self.discard)}

    def settings(self) -> dict[str, int | float | str]:
        """As used by the latest ``measure``."""
        return {
            "num_samples": self.num_samples,
            "epsilon": self.epsilon,
            "discard": self.discard,
            "interpolation": "slerp",
            "seed": self._seed,
            **self.distance.settings(),
        }

    def ask(self, asked: Callable[[Sequence[int]], Condition | None]) -> None:
        self._asked = asked

    @torch.no_grad()
    def measure(self, model: GenerativeModel, data: DataModule, split: Split, batch_size: int, seed: int) -> None:
        """Take in this rank's share of the paths. The model is in eval mode. Raises ConfigError as :meth:`check`."""
        self.check(model, data)
        assert isinstance(model, HasPrior)
        self._seed = seed
        self.update(torch.zeros(0))  # a rank without a share
        for start in range(rank() * _CHUNK, self.num_samples, world() * _CHUNK):
            indices = range(start, min(start + _CHUNK, self.num_samples))
            stream = RandomStream.for_samples(seed, indices)
            ends, places = [stream.randn(*model.latent_shape) for _ in range(2)], stream.rand()
            asked = model.conditions.in_turn if self._asked is None else self._asked
            self.update(self.lengths_of(model, ends[0], ends[1], places, asked(indices)))

    def lengths_of(self, model: HasPrior, z0: Tensor, z1: Tensor, t: Tensor, told: Condition | None) -> Tensor:
        """Of steps that begin at ``t`` (N,) of the ways from ``z0`` to ``z1`` (N, *latent_shape). -> (N,)."""
        device = model.device  # type: ignore[attr-defined]
        z = torch.cat([slerp(z0, z1, t.double() + step) for step in (0.0, self.epsilon)])
        condition = moved(repeated(told, 2), device)
        with full_precision(device):  # TF32's rounding of 1e-3 would drown a step of 1e-4
            near, far = model.decode(z.float().to(device), condition).float().chunk(2)
            return self.distance.between(near, far) / self.epsilon**2

    def check(self, model: GenerativeModel, data: DataModule) -> None:
        """Raises ConfigError: the data are not images; or the model has no latents with a standard normal prior."""
        images_of(data, "path_length")
        if not isinstance(model, HasPrior):
            raise ConfigError(
                f"metrics=path_length: {type(model).__name__} has no single latent with a normal prior, as GAN, "
                "VAE and flow have. Leave it out of metrics=[...]."
            )

    def subject(self, model: GenerativeModel, split: Split) -> str:
        return f"{self.distance.name}_{short(self.num_samples)}"


def slerp(z0: Tensor, z1: Tensor, t: Tensor) -> Tensor:
    """The latent at ``t`` (N,) of the great circle from ``z0`` to ``z1`` (N, ...), float64 (Shoemake 1985).

    Lengths go over into each other too, and a mixture of two standard normal latents stays as long as they are. Where
    they point the same or the opposite way, which has no great circle of its own, it is the straight line.
    """
    a, b = z0.double().flatten(1), z1.double().flatten(1)
    t = t.double()[:, None]
    cosine = torch.cosine_similarity(a, b, dim=1)[:, None].clamp(-1, 1)  # (N, 1)
    angle = cosine.acos()
    straight = 1 - cosine.abs() < 1e-12
    sine = torch.where(straight, 1.0, angle.sin())
    along = ((1 - t) * angle).sin() / sine * a + (t * angle).sin() / sine * b
    return torch.where(straight, torch.lerp(a, b, t), along).view_as(z0)


def trimmed_mean(values: Tensor, discard: float) -> Tensor:
    """Of (N,), without those below the ``discard`` and above the 1 - ``discard`` quantile, each taken outwards."""
    ordered = values.sort().values
    low = ordered.quantile(discard, interpolation="lower")
    high = ordered.quantile(1 - discard, interpolation="higher")
    return ordered[(ordered >= low) & (ordered <= high)].mean()

"""Hierarchical variational autoencoders: several layers of latents, each with a prior that depends on those above."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from genlab.model.base import Batch, Condition, GenerativeModel, LearningRateSchedule, OptimizerFactory
from genlab.model.bits_per_dim import as_density, on_batch_scale
from genlab.model.condition import Conditions, told_to
from genlab.model.elbo import Normal, importance_weighted, kl_weight, with_free_bits
from genlab.model.float32 import exact_float32
from genlab.model.freezing import trained
from genlab.model.parts import PixelLikelihood
from genlab.model.representation import Reading
from genlab.model.sharding import shard
from genlab.seeding import RandomStream, derive_seed

Draw = Callable[[Tensor, Tensor | None], Tensor]  # a layer's prior and posterior, (N, 2 Z, h, w) each -> its z


class Ladder(Protocol):
    """Up from the image to features, down through the layers of latents to the parameters of an image."""

    def forward(self, image: Tensor | None, condition: Condition | None, draw: Draw, count: int) -> Tensor:
        """``image``: (N, C, H, W), or None to go down alone. ``draw`` is called once for each layer, the top first,
        with its prior and, given an image, its posterior relative to that. -> (count, D, H, W)."""
        ...


class HierarchicalVAE(GenerativeModel):
    """A small VDVAE (Child 2021) with NVAE's residual normals (Vahdat and Kautz 2020, section 3.2).

    p(x, z) = p(x | z) prod_i p(z_i | z_<i) and q(z | x) = prod_i q(z_i | z_<i, x), both from the top down, through the
    same network. Losses are nats a dimension of the data.
    """

    kinds = frozenset({"continuous"})
    likelihood_kind: ClassVar[Literal["bound"]] = "bound"
    reading: ClassVar[Reading] = Reading("means of latents")
    ladder: nn.Module  # made in configure_model

    def __init__(
        self,
        ladder: Callable[..., Ladder],
        likelihood: PixelLikelihood,
        optimizer: OptimizerFactory,
        schedule: LearningRateSchedule,
        shape: Sequence[int],  # of an image: (C, H, W)
        told: Mapping[str, Any],  # the data's conditions by key, their ``spec.condition``
        latent_shapes: Sequence[Sequence[int]],  # (Z, h, w) of each layer, the top (and coarsest) first
        beta: float = 1.0,  # weight of the KL cost; 1 is the bound itself
        free_nats: float = 0.0,  # of the KL cost of each layer, all of it together: they cost nothing less
        kl_warmup: float = 0.0,  # share of the budget over which beta grows from 0
        conditions: Sequence[str] | None = None,  # those that the model uses, e.g. [label,caption]; None: the label
        condition_dropout: float | Mapping[str, float] = 0.0,  # share of training examples without their condition
        temperature: float = 1.0,  # scale of the priors that samples are made of
        sample_pixels: bool = False,  # samples are drawn from the pixels' distribution, rather than its mean
        num_importance_samples: int = 32,  # of the bound that log_likelihood gives
        compile: bool = False,  # the ladder, with torch.compile
        seed: int = 0,
    ):
        """Raises ValueError: a share outside [0, 1], a negative weight, latents that are not (Z, h, w)."""
        super().__init__(seed, schedule)
        self.conditions = Conditions.told(told, conditions, condition_dropout)
        if not 0 <= kl_warmup <= 1:
            raise ValueError(f"kl_warmup={kl_warmup} is a share: use a value from 0 to 1.")
        if beta < 0 or free_nats < 0 or num_importance_samples < 1:
            raise ValueError("beta and free_nats must be 0 or more, num_importance_samples 1 or more.")
        if not latent_shapes or any(len(latent) != 3 for latent in latent_shapes):
            raise ValueError("model.latent_shapes must be one [Z,h,w] for each layer, e.g. [[8,1,1],[4,4,4]].")
        self.make_ladder, self.likelihood, self.make_optimizer = ladder, likelihood, optimizer
        self.compile_ladder = compile
        self.shape = tuple(shape)
        self.latent_shapes = [tuple(latent) for latent in latent_shapes]
        self.latent_shape = (sum(map(math.prod, self.latent_shapes)), 1, 1)  # all layers in a row
        self.num_levels = likelihood.levels or 256
        self.beta, self.free_nats, self.kl_warmup = beta, free_nats, kl_warmup
        self.temperature, self.sample_pixels = temperature, sample_pixels
        self.num_importance_samples = num_importance_samples
        self.register_module("ladder", None)

    def configure_model(self) -> None:
        if self.ladder is not None:
            return
        parameters = self.likelihood.num_parameters(self.shape[0])
        ladder = self.make_ladder(out_channels=parameters, **told_to(self.make_ladder, self.conditions.kinds))
        assert isinstance(ladder, nn.Module)
        if self.compile_ladder:
            ladder.compile()
        if self.device_mesh is not None:
            shard(ladder, self.device_mesh)
        self.ladder = ladder

    def configure_optimizers(self) -> Optimizer:
        return self.make_optimizer(trained(self))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        x, condition = batch[self.key], self.conditions.dropped(self.conditions.of(batch))
        losses = self.negative_elbo(x, condition)
        for name, value in losses.items():
            self.log(f"train/{name}", value, on_step=True, batch_size=len(x))
        return losses["loss"]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """With every condition in place. Noise is drawn from torch's global generator, which the caller seeds."""
        return self.negative_elbo(batch[self.key], self.conditions.of(batch))

    def negative_elbo(self, x: Tensor, condition: Condition | None) -> dict[str, Tensor]:
        """Of images (N, C, H, W), in nats a dimension: ``reconstruction``, the ``kl`` cost as it is, and the ``loss``,
        in which the latter is weighted, warmed up, and partly free."""
        costs: list[Tensor] = []
        is_complete = False

        def draw(prior: Tensor, posterior: Tensor | None) -> Tensor:
            assert posterior is not None
            p = Normal.of(prior)
            q = p.shifted(Normal.of(posterior))
            cost = q.kl(p).flatten(1).sum(dim=1)
            if not is_complete:
                costs.append(cost)
            return q.at(torch.randn_like(q.mean))

        reconstruction = -self.likelihood.log_prob(x, self.ladder(x, condition, draw, len(x))).mean()
        kl = torch.stack(costs, dim=1)  # (N, layers)
        is_complete = True  # a backward pass may compute blocks a second time, and these costs would keep its memory
        weight = self.beta * kl_weight(self.progress.fraction, self.kl_warmup)
        loss = reconstruction + weight * with_free_bits(kl, self.free_nats)
        size = math.prod(self.shape)
        return {"loss": loss / size, "reconstruction": reconstruction / size, "kl": kl.sum(dim=1).mean() / size}

    @torch.no_grad()
    def sample(
        self, num_samples: int, condition: Condition | None = None, generator: RandomStream | None = None
    ) -> Tensor:
        """Images (N, C, H, W), nominally in [-1, 1] and not clamped.

        The caller puts the model in eval mode, or dropout is on. Without a condition, samples are unconditional.
        Without a generator, one is seeded from torch's global generator.

        Raises:
            ValueError: a condition that the model does not know.
        """
        self.conditions.check(condition)
        generator = self.stream(num_samples, generator)
        self.evaluations += num_samples

        def draw(prior: Tensor, posterior: Tensor | None) -> Tensor:
            p = Normal.of(prior)
            return p.at(self.temperature * generator.randn(*p.mean.shape[1:]))

        with exact_float32(self.device):  # or a sample depends on its batch
            parameters = self.ladder(None, condition, draw, num_samples)
        likelihood = self.likelihood
        return likelihood.sample(parameters, generator) if self.sample_pixels else likelihood.mean(parameters)

    def represent(self, x: Tensor, layer: float, noise_level: float) -> Tensor:
        """The latents of images (N, C, H, W), of all layers in a row. -> (N, D) float32."""
        return self.encode(x, self.conditions.nothing(len(x), x.device)).flatten(1)

    @torch.no_grad()
    def encode(self, x: Tensor, condition: Condition | None = None) -> Tensor:
        """Of images (N, C, H, W), each layer's posterior mean given those above it, in a row. -> (N, *latent_shape)."""
        means: list[Tensor] = []

        def draw(prior: Tensor, posterior: Tensor | None) -> Tensor:
            assert posterior is not None
            means.append(Normal.of(prior).shifted(Normal.of(posterior)).mean)
            return means[-1]

        self.ladder(x, condition, draw, len(x))
        return torch.cat([mean.flatten(1) for mean in means], dim=1)[:, :, None, None]

    def decode(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """The mean image of latents (N, *latent_shape). -> (N, C, H, W)."""
        layers = iter(z.flatten(1).split([math.prod(latent) for latent in self.latent_shapes], dim=1))
        shapes = iter(self.latent_shapes)

        def draw(prior: Tensor, posterior: Tensor | None) -> Tensor:
            return next(layers).unflatten(1, next(shapes))

        return self.likelihood.mean(self.ladder(None, condition, draw, len(z)))

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, condition: Condition | None = None) -> Tensor:
        """Nats of each image of ``x`` (N, C, H, W) on [-1, 1], as a density: the importance-weighted bound. -> (N,).

        The noise of sample k is a function of (seed, image, k): independent from image to image, so that their mean is
        as precise as it can be, and the same in any batch. The caller puts the model in eval mode, or dropout is on.

        Raises:
            ValueError: a condition that the model does not know.
        """
        self.conditions.check(condition)
        x = on_batch_scale(x, self.likelihood.levels)
        stream = RandomStream.for_examples(derive_seed(self.seed), x)
        weights = [self._log_weight(x, condition, stream) for _ in range(self.num_importance_samples)]
        return as_density(importance_weighted(torch.stack(weights)), self.likelihood.levels, math.prod(self.shape))

    def _log_weight(self, x: Tensor, condition: Condition | None, stream: RandomStream) -> Tensor:
        """log p(x, z) - log q(z | x) of the next z of each image. -> (N,)."""
        cost = torch.zeros(len(x), device=x.device)

        def draw(prior: Tensor, posterior: Tensor | None) -> Tensor:
            nonlocal cost
            assert posterior is not None
            p = Normal.of(prior)
            q = p.shifted(Normal.of(posterior))
            z = q.at(stream.randn(*q.mean.shape[1:]))
            cost = cost + (q.log_prob(z) - p.log_prob(z)).flatten(1).sum(dim=1)
            return z

        return self.likelihood.log_prob(x, self.ladder(x, condition, draw, len(x))) - cost

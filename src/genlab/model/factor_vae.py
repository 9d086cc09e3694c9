"""FactorVAE: a variational autoencoder whose latents are to be independent of each other."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from genlab.errors import ConfigError
from genlab.model.base import Batch, Condition, LearningRateSchedule, OptimizerFactory
from genlab.model.draws import Draws
from genlab.model.freezing import trained, without_gradients
from genlab.model.gathered import gathered
from genlab.model.parts import Decoder, Encoder, LatentDiscriminator, PixelLikelihood
from genlab.model.vae import VAE
from genlab.seeding import derive_seed


class FactorVAE(VAE):
    """A VAE with a cost of the total correlation of its latents, the KL divergence of their distribution q(z) from the
    product of its marginals (Kim and Mnih 2018, arXiv:1802.05983, eq. 2).

    A discriminator tells latents of a batch from the same ones with every dimension permuted over the batch; its logit
    estimates the logarithm of the density ratio (eq. 3). Both learn from the same batch, each by its own optimizer.
    Losses are nats a dimension of the data; ``total_correlation`` is the estimate.
    """

    automatic_optimization = False
    begins_new = ("discriminator.",)
    discriminator: nn.Module  # made in configure_model

    def __init__(
        self,
        encoder: Callable[..., Encoder],
        decoder: Callable[..., Decoder],
        discriminator: Callable[[], LatentDiscriminator],
        likelihood: PixelLikelihood,
        optimizer: OptimizerFactory,  # of the autoencoder
        discriminator_optimizer: OptimizerFactory,
        schedule: LearningRateSchedule,
        shape: Sequence[int],  # of an image: (C, H, W)
        told: Mapping[str, Any],  # the data's conditions by key, their ``spec.condition``
        latent_shape: Sequence[int],  # (Z, h, w); a vector is (Z, 1, 1)
        gamma: float = 10.0,  # weight of the total correlation
        beta: float = 1.0,  # weight of the KL cost; 1 is the bound itself
        kl_warmup: float = 0.0,  # share of the budget over which beta grows from 0
        conditions: Sequence[str] | None = None,  # those that the model uses, e.g. [label,caption]; None: the label
        condition_dropout: float | Mapping[str, float] = 0.0,  # share of training examples without their condition
        temperature: float = 1.0,  # scale of the latents that samples are made of
        sample_pixels: bool = False,  # samples are drawn from the pixels' distribution, rather than its mean
        num_importance_samples: int = 32,  # of the bound that log_likelihood gives
        compile: bool = False,  # the networks of the autoencoder, with torch.compile
        seed: int = 0,
    ):
        """Raises ValueError: a share outside [0, 1], a negative weight, a latent that is not (Z, h, w)."""
        super().__init__(
            encoder,
            decoder,
            likelihood,
            optimizer,
            schedule,
            shape,
            told,
            latent_shape,
            beta=beta,
            kl_warmup=kl_warmup,
            conditions=conditions,
            condition_dropout=condition_dropout,
            temperature=temperature,
            sample_pixels=sample_pixels,
            num_importance_samples=num_importance_samples,
            compile=compile,
            seed=seed,
        )
        if gamma < 0:
            raise ValueError(f"model.gamma={gamma} must be 0 or more.")
        self.make_discriminator, self.make_discriminator_optimizer = discriminator, discriminator_optimizer
        self.gamma = gamma
        self.register_module("discriminator", None)

    def configure_model(self) -> None:
        if self.encoder is not None:
            return
        if self.device_mesh is not None:
            raise ValueError("model=factor_vae cannot be sharded (trainer=fsdp). Use trainer=ddp.")
        super().configure_model()
        discriminator = self.make_discriminator()
        assert isinstance(discriminator, nn.Module)
        self.discriminator = discriminator

    def configure_optimizers(self) -> list[Optimizer]:  # type: ignore[override]
        return [
            self.make_optimizer(trained(self.encoder, self.decoder)),
            self.make_discriminator_optimizer(trained(self.discriminator)),
        ]

    def averaged(self) -> Iterator[tuple[str, Tensor]]:
        """The autoencoder's weights."""
        return ((name, p) for name, p in super().averaged() if not name.startswith("discriminator."))

    def training_step(self, batch: Batch, batch_idx: int) -> None:  # type: ignore[override]
        x, condition = batch[self.key], self.conditions.dropped(self.conditions.of(batch))
        if len(x) < 2:
            raise ConfigError("model=factor_vae permutes latents of a batch. Use a larger data.batch_size.")
        draws = self.draws()
        with without_gradients(self.discriminator):
            losses, z = self.costs(x, condition, draws.randn(math.prod(self.latent_shape), len(x)))
            self.manual_backward(losses["loss"])
        guess = self.discriminator_loss(z.detach(), self.permuted(z.detach(), draws))
        self.manual_backward(guess)
        logged = {**losses, "discriminator_loss": guess}
        self.log_dict({f"train/{name}": value.detach() for name, value in logged.items()}, on_step=True)
        if self.at_optimizer_step(batch_idx):
            networks = (nn.ModuleList([self.encoder, self.decoder]), self.discriminator)
            optimizers: Any = self.optimizers()
            for optimizer, network in zip(optimizers, networks, strict=True):
                self.accumulation.rescale(network.parameters())
                optimizer.step()
                optimizer.zero_grad()

    def draws(self) -> Draws:
        """Of a training step, the same on any number of ranks."""
        seed = derive_seed(self.seed, self.progress.examples)
        return Draws(seed, self.global_rank, self.trainer.world_size, self.device)

    def permuted(self, z: Tensor, draws: Draws) -> Tensor:
        """This rank's share of the global batch's latents with every dimension permuted. (N, *latent_shape) -> the
        same."""
        world = self.trainer.world_size
        rows = gathered(z).view(world, *z.shape).transpose(0, 1).flatten(0, 1)  # in the order of the global batch
        places = permute_dims(rows, draws.rand_of_all(z[0].numel(), len(z)))
        return places[self.global_rank :: world]

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self.configure_gradient_clipping(optimizer, self.gradient_clip_val)

    def costs(self, x: Tensor, condition: Condition | None, noise: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The autoencoder's losses of images (N, C, H, W), and the latents that they are of, (N, *latent_shape).
        ``noise``: standard normal, (N, numbers of a latent)."""
        posterior = self.posterior(x, condition)
        z = posterior.at(noise.view_as(posterior.mean).to(posterior.mean.dtype))
        losses = self.cost(x, posterior, z, condition)
        correlation = self.discriminator(z).mean() / math.prod(self.shape)
        return {
            **losses,
            "loss": losses["loss"] + self.gamma * correlation,
            "total_correlation": correlation,
        }, z

    def discriminator_loss(self, z: Tensor, permuted: Tensor) -> Tensor:
        """The cross-entropy in nats of telling latents (N, *latent_shape) from permuted ones, a mean of both kinds."""
        own, others = self.discriminator(z), self.discriminator(permuted)
        return (F.softplus(-own).mean() + F.softplus(others).mean()) / 2

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """With every condition in place. Noise is drawn from torch's global generator, which the caller seeds."""
        x = batch[self.key]
        noise = torch.randn(len(x), math.prod(self.latent_shape), device=x.device)
        losses, z = self.costs(x, self.conditions.of(batch), noise)
        permuted = permute_dims(z, torch.rand_like(noise))
        return {**losses, "discriminator_loss": self.discriminator_loss(z, permuted)}


def permute_dims(z: Tensor, uniform: Tensor) -> Tensor:
    """Each number of latents ``z`` (N, ...) from a row of its own choice, a permutation of the batch for each
    (algorithm 1). ``uniform``: (N, numbers of a latent), whose order in each column is the permutation."""
    flat = z.flatten(1)
    return flat.gather(0, uniform.argsort(dim=0)).view_as(z)

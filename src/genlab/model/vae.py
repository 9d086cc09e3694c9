"""Variational autoencoders (Kingma and Welling 2014): one layer of latents with a standard normal prior."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from genlab.model.base import Batch, Condition, GenerativeModel, LearningRateSchedule, OptimizerFactory
from genlab.model.bits_per_dim import as_density, on_batch_scale
from genlab.model.condition import Conditions, repeated, told_to
from genlab.model.elbo import (
    Normal,
    importance_weighted,
    kl_weight,
    standard_normal,
    with_free_bits,
)
from genlab.model.float32 import exact_float32
from genlab.model.freezing import trained
from genlab.model.parts import Decoder, Encoder, PixelLikelihood
from genlab.model.representation import Reading
from genlab.model.sharding import shard
from genlab.seeding import RandomStream, derive_seed


class VAE(GenerativeModel):
    """A beta-VAE (Higgins et al. 2017) with free bits and a KL warm-up; conditional where there are labels.

    The encoder puts out 2 Z channels (means and log scales of the posterior), the decoder the parameters of the pixels'
    distribution. Losses are nats a dimension of the data.
    """

    kinds = frozenset({"continuous"})
    likelihood_kind: ClassVar[Literal["bound"]] = "bound"
    latent_prior: ClassVar[Literal["standard normal"]] = "standard normal"
    reading: ClassVar[Reading] = Reading("means of latents")
    encoder: nn.Module  # made in configure_model, like the decoder
    decoder: nn.Module

    def __init__(
        self,
        encoder: Callable[..., Encoder],
        decoder: Callable[..., Decoder],
        likelihood: PixelLikelihood,
        optimizer: OptimizerFactory,
        schedule: LearningRateSchedule,
        shape: Sequence[int],  # of an image: (C, H, W)
        told: Mapping[str, Any],  # the data's conditions by key, their ``spec.condition``
        latent_shape: Sequence[int],  # (Z, h, w); a vector is (Z, 1, 1)
        beta: float = 1.0,  # weight of the KL cost; 1 is the bound itself
        free_nats: float = 0.0,  # of the KL cost of each latent channel, over all its places: they cost nothing less
        kl_warmup: float = 0.0,  # share of the budget over which beta grows from 0
        conditions: Sequence[str] | None = None,  # those that the model uses, e.g. [label,caption]; None: the label
        condition_dropout: float | Mapping[str, float] = 0.0,  # share of training examples without their condition
        temperature: float = 1.0,  # scale of the latents that samples are made of
        sample_pixels: bool = False,  # samples are drawn from the pixels' distribution, rather than its mean
        num_training_samples: int = 1,  # of the bound that is trained; more: IWAE
        num_importance_samples: int = 32,  # of the bound that log_likelihood gives
        compile: bool = False,  # both networks, with torch.compile
        seed: int = 0,
    ):
        """Raises ValueError: a share outside [0, 1], a negative weight, a latent that is not (Z, h, w)."""
        super().__init__(seed, schedule)
        self.conditions = Conditions.told(told, conditions, condition_dropout)
        if not 0 <= kl_warmup <= 1:
            raise ValueError(f"kl_warmup={kl_warmup} is a share: use a value from 0 to 1.")
        if beta < 0 or free_nats < 0 or min(num_training_samples, num_importance_samples) < 1:
            raise ValueError("beta and free_nats must be 0 or more, numbers of samples 1 or more.")
        if num_training_samples > 1 and (beta, free_nats, kl_warmup) != (1, 0, 0):
            raise ValueError(
                f"num_training_samples={num_training_samples} trains the importance-weighted bound, which has no KL "
                "cost to weigh: use model.beta=1 model.free_nats=0 model.kl_warmup=0, or model.num_training_samples=1."
            )
        if len(latent_shape) != 3:
            raise ValueError(f"model.latent_shape={list(latent_shape)} must be [Z,h,w]; for a vector, [Z,1,1].")
        self.make_encoder, self.make_decoder, self.likelihood = encoder, decoder, likelihood
        self.make_optimizer, self.compile_networks = optimizer, compile
        self.shape, self.latent_shape = tuple(shape), tuple(latent_shape)
        self.num_levels = likelihood.levels or 256
        self.beta, self.free_nats, self.kl_warmup = beta, free_nats, kl_warmup
        self.temperature, self.sample_pixels = temperature, sample_pixels
        self.num_training_samples, self.num_importance_samples = num_training_samples, num_importance_samples
        self.register_module("encoder", None)
        self.register_module("decoder", None)

    def configure_model(self) -> None:
        if self.encoder is not None:
            return
        kinds = self.conditions.kinds
        encoder = self.make_encoder(out_channels=2 * self.latent_shape[0], **told_to(self.make_encoder, kinds))
        parameters = self.likelihood.num_parameters(self.shape[0])
        decoder = self.make_decoder(out_channels=parameters, **told_to(self.make_decoder, kinds))
        assert isinstance(encoder, nn.Module)
        assert isinstance(decoder, nn.Module)
        if self.compile_networks:
            encoder.compile()
            decoder.compile()
        if self.device_mesh is not None:
            shard(encoder, self.device_mesh)
            shard(decoder, self.device_mesh)
        self.encoder, self.decoder = encoder, decoder

    def configure_optimizers(self) -> Optimizer:
        return self.make_optimizer(trained(self))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        x, condition = batch[self.key], self.conditions.of(batch)
        condition = self.conditions.dropped(condition)
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
        posterior = self.posterior(x, condition)
        if self.num_training_samples > 1:
            return self.negative_iwae_bound(x, posterior, condition)
        return self.cost(x, posterior, posterior.at(torch.randn_like(posterior.mean)), condition)

    def cost(self, x: Tensor, posterior: Normal, z: Tensor, condition: Condition | None) -> dict[str, Tensor]:
        """What :meth:`negative_elbo` gives, for latents ``z`` that were drawn from the posterior."""
        reconstruction = -self.likelihood.log_prob(x, self.decoder(z, condition)).mean()
        kl = posterior.kl(standard_normal(z)).flatten(2).sum(dim=2)  # (N, Z)
        weight = self.beta * kl_weight(self.progress.fraction, self.kl_warmup)
        loss = reconstruction + weight * with_free_bits(kl, self.free_nats)
        size = math.prod(self.shape)
        return {"loss": loss / size, "reconstruction": reconstruction / size, "kl": kl.sum(dim=1).mean() / size}

    def negative_iwae_bound(self, x: Tensor, posterior: Normal, condition: Condition | None) -> dict[str, Tensor]:
        """The ``loss`` of an importance-weighted autoencoder, in nats a dimension: minus the log of the mean weight of
        ``num_training_samples`` latents of each image (Burda et al. 2016, eq. 8). Its gradient is eq. 14's."""
        k = self.num_training_samples
        copies = Normal(posterior.mean.repeat_interleave(k, dim=0), posterior.log_std.repeat_interleave(k, dim=0))
        told = repeated(condition, k, each=True)
        z = copies.at(torch.randn_like(copies.mean))  # (N k, *latent_shape)
        log_weights = self.log_weight(x.repeat_interleave(k, dim=0), z, copies, told).view(len(x), k)
        return {"loss": -importance_weighted(log_weights.T).mean() / math.prod(self.shape)}

    def log_weight(self, x: Tensor, z: Tensor, posterior: Normal, condition: Condition | None) -> Tensor:
        """log p(x, z) - log q(z | x) of images and their latents, in nats. -> (N,)."""
        cost = (posterior.log_prob(z) - standard_normal(z).log_prob(z)).flatten(1).sum(dim=1)
        return self.likelihood.log_prob(x, self.decoder(z, condition)) - cost

    def posterior(self, x: Tensor, condition: Condition | None) -> Normal:
        """q(z | x) of images (N, C, H, W), over latents (N, *latent_shape)."""
        return Normal.of(self.encoder(x, condition))

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
        with exact_float32(self.device):  # or a sample depends on its batch
            z = self.temperature * generator.randn(*self.latent_shape)
            parameters = self.decoder(z, condition)
        likelihood = self.likelihood
        return likelihood.sample(parameters, generator) if self.sample_pixels else likelihood.mean(parameters)

    @property
    def latent_network(self) -> nn.Module:
        return self.decoder

    def represent(self, x: Tensor, layer: float, noise_level: float) -> Tensor:
        """The posterior's mean of images (N, C, H, W). -> (N, D) float32, D the size of the latent."""
        return self.posterior(x, self.conditions.nothing(len(x), x.device)).mean.flatten(1)

    @torch.no_grad()
    def encode(self, x: Tensor, condition: Condition | None = None) -> Tensor:
        """The posterior's mean of images (N, C, H, W). -> (N, *latent_shape)."""
        return self.posterior(x, condition).mean

    def decode(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """The mean image of latents (N, *latent_shape). -> (N, C, H, W)."""
        return self.likelihood.mean(self.decoder(z, condition))

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
        posterior, log_weights = self.posterior(x, condition), []
        stream = RandomStream.for_examples(derive_seed(self.seed), x)
        for _ in range(self.num_importance_samples):
            z = posterior.at(stream.randn(*self.latent_shape))
            log_weights.append(self.log_weight(x, z, posterior, condition))
        bound = importance_weighted(torch.stack(log_weights))
        return as_density(bound, self.likelihood.levels, math.prod(self.shape))

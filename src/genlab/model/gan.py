"""Generative adversarial networks: a generator learns from a discriminator that tells its images from real ones."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from genlab.model.augment.diffaugment import Augmentation
from genlab.model.base import Batch, Condition, GenerativeModel, LearningRateSchedule, OptimizerFactory
from genlab.model.condition import Conditions, told_to
from genlab.model.freezing import trained
from genlab.model.parts import AdversarialObjective, Discriminator, Generator
from genlab.seeding import RandomStream, derive_seed, to_device


class GAN(GenerativeModel):
    """DCGAN, SNGAN, BigGAN, WGAN-GP: each batch is a turn of the discriminator, every few of them also the generator's.

    The only family with optimizer steps of its own, since two networks take turns. An example counts when the
    discriminator sees it. With accumulated gradients a turn of the discriminator takes several batches, and the
    generator's, which follows, as many passes.
    """

    kinds = frozenset({"continuous"})
    latent_prior: ClassVar[Literal["standard normal"]] = "standard normal"
    automatic_optimization = False
    generator: nn.Module  # both made in configure_model
    discriminator: nn.Module

    def __init__(
        self,
        generator: Callable[..., Generator],
        discriminator: Callable[..., Discriminator],
        objective: AdversarialObjective,
        augment: Augmentation,  # of what the discriminator sees
        optimizer: OptimizerFactory,  # of the generator
        discriminator_optimizer: OptimizerFactory,
        schedule: LearningRateSchedule,
        shape: Sequence[int],  # of an image: (C, H, W)
        told: Mapping[str, Any],  # the data's conditions by key, their ``spec.condition``
        latent_dim: int = 128,  # numbers of noise that make an image
        conditions: Sequence[str] | None = None,  # those that the model uses, e.g. [label,caption]; None: the label
        discriminator_steps: int = 1,  # of the discriminator for one of the generator
        truncation: float | None = None,  # samples are made of noise within +- this (Brock et al. 2019); None: all
        compile: bool = False,  # both networks, with torch.compile
        seed: int = 0,
    ):
        super().__init__(seed, schedule)
        if latent_dim < 1 or discriminator_steps < 1:
            raise ValueError(
                f"model.latent_dim={latent_dim} and model.discriminator_steps={discriminator_steps} must be >= 1."
            )
        if truncation is not None and truncation <= 0:
            raise ValueError(f"model.truncation={truncation} must be above 0, or null.")
        if compile and objective.penalty.every > 0:
            raise ValueError(
                "model.compile=true: torch does not compile gradients of gradients, which a penalty needs. Use "
                "model.compile=false, or model/objective/penalty=none."
            )
        self.make_generator, self.make_discriminator = generator, discriminator
        self.make_optimizer, self.make_discriminator_optimizer = optimizer, discriminator_optimizer
        self.objective, self.augment = objective, augment
        self.shape, self.latent_dim = tuple(shape), latent_dim
        self.conditions = Conditions.told(told, conditions)
        self.latent_shape = (latent_dim,)
        self.discriminator_steps, self.truncation = discriminator_steps, truncation
        self.compile_networks = compile
        self.steps_made = 0  # of the discriminator
        self.seen_in_batch = 0  # examples of a batch that earlier steps were made of, if it is divided into several
        self.register_module("generator", None)
        self.register_module("discriminator", None)

    def configure_model(self) -> None:
        if self.generator is not None:
            return
        if self.device_mesh is not None:
            raise ValueError("model=gan cannot be sharded (trainer=fsdp). Use trainer=ddp.")
        kinds = self.conditions.kinds
        generator = self.make_generator(**told_to(self.make_generator, kinds))
        discriminator = self.make_discriminator(**told_to(self.make_discriminator, kinds))
        assert isinstance(generator, nn.Module)
        assert isinstance(discriminator, nn.Module)
        if self.compile_networks:
            generator.compile()
            discriminator.compile()
        self.generator, self.discriminator = generator, discriminator

    def configure_optimizers(self) -> list[Optimizer]:
        return [
            self.make_optimizer(trained(self.generator)),
            self.make_discriminator_optimizer(trained(self.discriminator)),
        ]

    # --- training ---------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        generator_optimizer, discriminator_optimizer = self.optimizers()  # type: ignore[attr-defined]
        self.discriminator_turn(batch[self.key], self.conditions.of(batch))
        if not self.at_optimizer_step(batch_idx):
            return
        self.step(discriminator_optimizer, self.discriminator)
        if self.is_generators_turn():
            for i in range(self.accumulation.size):
                self.generator_turn(len(batch[self.key]), self.conditions.of(batch), i)
            self.step(generator_optimizer, self.generator)
        self.steps_made += 1

    def step_kind(self, batch_idx: int) -> str:
        kind = "discriminator" + " penalty" * self.is_penalized()
        if not self.at_optimizer_step(batch_idx):
            return kind
        return f"{kind} step of {self.accumulation.size}" + " generator" * self.is_generators_turn()

    def is_generators_turn(self) -> bool:
        return (self.steps_made + 1) % self.discriminator_steps == 0

    def is_penalized(self) -> bool:
        every = self.objective.penalty.every
        return every > 0 and self.steps_made % every == 0

    def discriminator_turn(self, real: Tensor, condition: Condition | None) -> None:
        """Add to the discriminator's gradients. ``real``: (N, C, H, W)."""
        draws = Draws(self, turn=0)
        with torch.no_grad():
            fake = self.generator(draws.randn(self.latent_dim, len(real)), condition)
        real_scores, fake_scores = self.scores(real, condition, draws), self.scores(fake, condition, draws)
        loss = self.objective.discriminator_loss(real_scores, fake_scores)
        self.log_all(discriminator_loss=loss, **self.accuracies(real_scores, fake_scores))
        if self.is_penalized():
            penalty = self.penalty(real, fake, condition, draws)
            self.log_all(discriminator_penalty=penalty)
            loss = loss + penalty
        self.manual_backward(loss)

    def penalty(self, real: Tensor, fake: Tensor, condition: Condition | None, draws: "Draws") -> Tensor:
        """In float32, since gradients of gradients do not survive half precision."""
        with torch.autocast(real.device.type, enabled=False):
            uniform = draws.rand(1, len(real))[:, 0]
            seen = [self.augment(images.float(), lambda k: draws.rand(k, len(real))) for images in (real, fake)]
            return self.objective.penalty.penalty(lambda images: self.discriminator(images, condition), *seen, uniform)

    def generator_turn(self, count: int, condition: Condition | None, turn: int) -> None:
        """Add to the generator's gradients, from ``count`` images. ``turn``: tells passes of one step apart."""
        draws = Draws(self, turn=1 + turn)
        with without_gradients(self.discriminator):
            fake = self.generator(draws.randn(self.latent_dim, count), condition)
            loss = self.objective.generator_loss(self.scores(fake, condition, draws))
            self.log_all(generator_loss=loss)
            self.manual_backward(loss)

    def scores(self, images: Tensor, condition: Condition | None, draws: "Draws") -> Tensor:
        """The discriminator's scores of augmented images. (N, C, H, W) -> (N,) float32."""
        return self.discriminator(self.augment(images, lambda k: draws.rand(k, len(images))), condition).float()

    def accuracies(self, real_scores: Tensor, fake_scores: Tensor) -> dict[str, Tensor]:
        """The discriminator's accuracies on real and generated images, from scores (N,); empty if scores are not
        logits."""
        undecided = self.objective.undecided
        if undecided is None:
            return {}
        return {
            "accuracy_real": (real_scores > undecided).float().mean(),
            "accuracy_fake": (fake_scores < undecided).float().mean(),
        }

    def log_all(self, **values: Tensor) -> None:
        self.log_dict({f"train/{name}": value.detach() for name, value in values.items()}, on_step=True)

    def step(self, optimizer: Any, network: nn.Module) -> None:
        self.accumulation.rescale(network.parameters())
        optimizer.step()
        optimizer.zero_grad()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self.configure_gradient_clipping(optimizer, self.gradient_clip_val)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """On images as they are. Noise is drawn from torch's global generator, which the caller seeds."""
        real, condition = batch[self.key], self.conditions.of(batch)
        fake = self.generator(torch.randn(len(real), self.latent_dim, device=real.device), condition)
        real_scores, fake_scores = (self.discriminator(images, condition).float() for images in (real, fake))
        return {
            "discriminator_loss": self.objective.discriminator_loss(real_scores, fake_scores),
            "generator_loss": self.objective.generator_loss(fake_scores),
            **self.accuracies(real_scores, fake_scores),
        }

    # --- sampling ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self, num_samples: int, condition: Condition | None = None, generator: RandomStream | None = None
    ) -> Tensor:
        """Images (N, C, H, W) in [-1, 1]. The caller puts the model in eval mode, or batch norm sees the batch.

        A class, or a caption, is drawn for samples without one. Without a generator, one is seeded from torch's
        global generator.

        Raises:
            ValueError: a condition that the model does not know.
        """
        self.conditions.check(condition)
        stream = self.stream(num_samples, generator)
        if self.truncation is None:
            noise = stream.randn(self.latent_dim)
        else:
            noise = truncated_normal(stream.rand(self.latent_dim), self.truncation)
        self.evaluations += num_samples
        return self.generator(noise, self.conditions.drawn(condition, stream))

    @torch.no_grad()
    def decode(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """The images of noise ``z`` (N, latent_dim), without truncation. -> (N, C, H, W) in [-1, 1]."""
        self.conditions.check(condition)
        return self.generator(z, condition)

    def averaged(self) -> Iterator[tuple[str, Tensor]]:
        """The generator's weights and batch norm statistics, which can be averaged too. Other buffers cannot: unit
        vectors of spectral norm, counts."""
        yield from ((f"generator.{name}", p) for name, p in self.generator.named_parameters())
        for name, module in self.generator.named_modules(prefix="generator"):
            if isinstance(module, _BatchNorm) and module.running_mean is not None and module.running_var is not None:
                yield f"{name}.running_mean", module.running_mean
                yield f"{name}.running_var", module.running_var

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["discriminator_steps_made"] = self.steps_made

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.steps_made = checkpoint["discriminator_steps_made"]


class Draws:
    """The random numbers of a turn: those of example i of the global batch are the same on any number of ranks."""

    def __init__(self, model: GAN, turn: int):
        self.rank, self.world_size, self.device = model.global_rank, model.trainer.world_size, model.device
        self.generator = torch.Generator().manual_seed(
            derive_seed(model.seed, model.progress.examples + model.seen_in_batch, turn)
        )

    def randn(self, width: int, count: int) -> Tensor:
        """Standard normal, (count, width): this rank's share of the global batch."""
        return self._mine(torch.randn(count * self.world_size, width, generator=self.generator))

    def rand(self, width: int, count: int) -> Tensor:
        """Uniform on [0, 1), (count, width): this rank's share of the global batch."""
        return self._mine(torch.rand(count * self.world_size, width, generator=self.generator))

    def _mine(self, rows: Tensor) -> Tensor:
        return to_device(rows[self.rank :: self.world_size], self.device)


def truncated_normal(uniform: Tensor, bound: float) -> Tensor:
    """Standard normal numbers given that they lie in [-bound, bound], from uniform ones in [0, 1)."""
    edge = torch.special.ndtr(torch.tensor(bound, dtype=torch.float64))
    return torch.special.ndtri((1 - edge) + uniform.double() * (2 * edge - 1)).to(uniform.dtype)


@contextmanager
def without_gradients(network: nn.Module) -> Iterator[None]:
    """Gradients pass through ``network`` to its input, and none are kept for its own weights."""
    weights = [p for p in network.parameters() if p.requires_grad]
    for p in weights:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in weights:
            p.requires_grad_(True)

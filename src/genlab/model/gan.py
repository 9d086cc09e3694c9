"""Generative adversarial networks: a generator learns from a discriminator that tells its images from real ones."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from genlab.model.augment.adaptive import AdaptiveAugmentation, adaptive
from genlab.model.augment.diffaugment import Augmentation
from genlab.model.averages import running_statistics
from genlab.model.base import Batch, Condition, GenerativeModel, LearningRateSchedule, OptimizerFactory
from genlab.model.condition import Conditions, told_to
from genlab.model.draws import Draws, truncated_normal
from genlab.model.freezing import trained, without_gradients
from genlab.model.generator_penalty import GeneratorPenalty, NoGeneratorPenalty
from genlab.model.parts import AdversarialObjective, Discriminator, Generator, StyledGenerator
from genlab.model.representation import Reading, block_output
from genlab.seeding import RandomStream, derive_seed


class GAN(GenerativeModel):
    """DCGAN, SNGAN, BigGAN, WGAN-GP, StyleGAN2: each batch is a turn of the discriminator, every few of them also the
    generator's.

    The only family with optimizer steps of its own, since two networks take turns. An example counts when the
    discriminator sees it. With accumulated gradients a turn of the discriminator takes several batches, and the
    generator's, which follows, as many passes.
    """

    kinds = frozenset({"continuous"})
    latent_prior: ClassVar[Literal["standard normal"]] = "standard normal"
    reading: ClassVar[Reading] = Reading("blocks of the discriminator", layer=1.0)
    automatic_optimization = False
    begins_new = ("generator_penalty.",)
    generator: nn.Module  # both made in configure_model
    discriminator: nn.Module

    def __init__(
        self,
        generator: Callable[..., Generator],
        discriminator: Callable[..., Discriminator],
        objective: AdversarialObjective,
        augment: Augmentation | AdaptiveAugmentation,  # of what the discriminator sees
        optimizer: OptimizerFactory,  # of the generator
        discriminator_optimizer: OptimizerFactory,
        schedule: LearningRateSchedule,
        shape: Sequence[int],  # of an image: (C, H, W)
        told: Mapping[str, Any],  # the data's conditions by key, their ``spec.condition``
        latent_dim: int = 128,  # numbers of noise that make an image
        conditions: Sequence[str] | None = None,  # those that the model uses, e.g. [label,caption]; None: the label
        discriminator_steps: int = 1,  # of the discriminator for one of the generator
        generator_penalty: GeneratorPenalty | None = None,  # None: the generator has none
        lazy_steps: bool = False,  # penalties take steps of the optimizer by themselves, with smaller rates
        truncation: float | None = None,  # samples are made of noise within +- this (Brock et al. 2019); None: all
        compile: bool = False,  # the networks that have no penalty, with torch.compile
        seed: int = 0,
    ):
        super().__init__(seed, schedule)
        if latent_dim < 1 or discriminator_steps < 1:
            raise ValueError(
                f"model.latent_dim={latent_dim} and model.discriminator_steps={discriminator_steps} must be >= 1."
            )
        if truncation is not None and truncation <= 0:
            raise ValueError(f"model.truncation={truncation} must be above 0, or null.")
        self.augment = adaptive(augment)
        if self.augment.adapts and objective.undecided is None:
            raise ValueError(
                "model.augment adapts by the signs of scores, and scores of model.objective have no boundary between "
                "real and generated. Use model/objective=non_saturating, or a fixed strength: "
                "model.augment.target=null model.augment.p=0.2."
            )
        if compile and objective.penalty.every and generator_penalty and generator_penalty.every:
            raise ValueError(
                "model.compile=true: torch does not compile gradients of gradients, which the penalties of both "
                "networks need. Use model.compile=false, or model/generator_penalty=none."
            )
        self.make_generator, self.make_discriminator = generator, discriminator
        self.make_optimizer, self.make_discriminator_optimizer = optimizer, discriminator_optimizer
        self.objective, self.lazy_steps = objective, lazy_steps
        self.generator_penalty: GeneratorPenalty = generator_penalty or NoGeneratorPenalty()
        self.shape, self.latent_dim = tuple(shape), latent_dim
        self.conditions = Conditions.told(told, conditions)
        self.latent_shape = (latent_dim,)
        self.discriminator_steps, self.truncation = discriminator_steps, truncation
        self.compile_networks = compile
        self.steps_made = 0  # of the discriminator
        self.left_for_later: list[Callable[[], Tensor]] = []  # penalties that get a step by themselves
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
        if self.generator_penalty.every and not isinstance(generator, StyledGenerator):
            raise ValueError(
                "model/generator_penalty=path_length measures styles, and model/generator has none. Use "
                "model/generator=stylegan2, or model/generator_penalty=none."
            )
        if self.compile_networks:
            stages = generator.stages() if isinstance(generator, StyledGenerator) else [generator]
            for part in () if self.generator_penalty.every else stages:
                part.compile()
            if not self.objective.penalty.every:
                discriminator.compile()
        self.generator, self.discriminator = generator, discriminator

    def configure_optimizers(self) -> list[Optimizer]:
        optimizers = [
            self.make_optimizer(trained(self.generator)),
            self.make_discriminator_optimizer(trained(self.discriminator)),
        ]
        if self.lazy_steps:
            for optimizer, penalty in zip(optimizers, [self.generator_penalty, self.objective.penalty], strict=True):
                slow_down(optimizer, penalty.every)
        return optimizers

    # --- training ---------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        generator_optimizer, discriminator_optimizer = self.optimizers()  # type: ignore[attr-defined]
        self.discriminator_turn(batch[self.key], self.conditions.of(batch))
        if not self.at_optimizer_step(batch_idx):
            return
        self.step(discriminator_optimizer, self.discriminator)
        for penalty in self.left_for_later:
            self.manual_backward(penalty())
        if self.left_for_later:
            self.step(discriminator_optimizer, self.discriminator)
            self.left_for_later = []
        if self.is_generators_turn():
            self.generators_step(generator_optimizer, len(batch[self.key]), self.conditions.of(batch))
        self.log_all(**self.augment.end_step())
        self.steps_made += 1

    def step_kind(self, batch_idx: int) -> str:
        kind = "discriminator" + " augmented" * self.augment.acts + " penalty" * self.is_penalized()
        if not self.at_optimizer_step(batch_idx):
            return kind
        kind += f" step of {self.accumulation.size}"
        if not self.is_generators_turn():
            return kind
        return kind + " generator" + " and its penalty" * self.is_generator_penalized()

    def is_generators_turn(self) -> bool:
        return (self.steps_made + 1) % self.discriminator_steps == 0

    def is_penalized(self) -> bool:
        every = self.objective.penalty.every
        return every > 0 and self.steps_made % every == 0

    def is_generator_penalized(self) -> bool:
        """In the generator's turn: whether it is one of those with a penalty."""
        every = self.generator_penalty.every
        return every > 0 and self.steps_made // self.discriminator_steps % every == 0

    def discriminator_turn(self, real: Tensor, condition: Condition | None) -> None:
        """Add to the discriminator's gradients. ``real``: (N, C, H, W)."""
        draws = self.draws(0)
        with torch.no_grad():
            fake = self.generated(len(real), condition, draws)
        real_scores, fake_scores = self.scores(real, condition, draws), self.scores(fake, condition, draws)
        self.augment.observe(real_scores, self.objective.undecided)
        loss = self.objective.discriminator_loss(real_scores, fake_scores)
        self.log_all(discriminator_loss=loss, **self.accuracies(real_scores, fake_scores))
        if self.is_penalized() and self.lazy_steps:
            self.left_for_later.append(partial(self.penalty, real, fake, condition, draws))
        elif self.is_penalized():
            loss = loss + self.penalty(real, fake, condition, draws)
        self.manual_backward(loss)

    def penalty(self, real: Tensor, fake: Tensor, condition: Condition | None, draws: Draws) -> Tensor:
        """In float32, since gradients of gradients do not survive half precision."""
        with torch.autocast(real.device.type, enabled=False):
            uniform = draws.rand(1, len(real))[:, 0]
            seen = [self.augment(images.float(), lambda k: draws.rand(k, len(real))) for images in (real, fake)]
            scores = partial(self.discriminator, condition=condition)
            penalty = self.objective.penalty.penalty(scores, *seen, uniform)
        self.log_all(discriminator_penalty=penalty)
        return penalty

    def generators_step(self, optimizer: Any, count: int, condition: Condition | None) -> None:
        """A step of the generator, on as many passes of ``count`` images as there were batches."""
        passes = range(self.accumulation.size)
        for i in passes:
            self.generator_turn(count, condition, i)
            if self.is_generator_penalized() and not self.lazy_steps:
                self.manual_backward(self.generators_penalty(count, condition, i))
        self.step(optimizer, self.generator)
        if self.is_generator_penalized() and self.lazy_steps:
            for i in passes:
                self.manual_backward(self.generators_penalty(count, condition, i))
            self.step(optimizer, self.generator)

    def generator_turn(self, count: int, condition: Condition | None, turn: int) -> None:
        """Add to the generator's gradients, from ``count`` images. ``turn``: tells passes of one step apart."""
        draws = self.draws(1 + turn)
        with without_gradients(self.discriminator):
            fake = self.generated(count, condition, draws)
            loss = self.objective.generator_loss(self.scores(fake, condition, draws))
            self.log_all(generator_loss=loss)
            self.manual_backward(loss)

    def generators_penalty(self, count: int, condition: Condition | None, turn: int) -> Tensor:
        """Of a share of ``count`` images, in float32."""
        draws, count = self.draws(-1 - turn), max(1, count // self.generator_penalty.share)
        few = None if condition is None else {key: value[:count] for key, value in condition.items()}
        with torch.autocast(self.device.type, enabled=False):
            styles = self.styles(count, few, draws)
            images = self.generator.synthesize(styles, draws.normal(count))  # type: ignore[operator]
            penalty = self.generator_penalty.penalty(images, styles, draws.normal(count))
        self.log_all(generator_penalty=penalty)
        return penalty

    def generated(self, count: int, condition: Condition | None, draws: Draws) -> Tensor:
        """Images of training, (N, C, H, W)."""
        if not isinstance(self.generator, StyledGenerator):
            return self.generator(draws.randn(self.latent_dim, count), condition)
        return self.generator.synthesize(self.styles(count, condition, draws), draws.normal(count))

    def styles(self, count: int, condition: Condition | None, draws: Draws) -> Tensor:
        """Styles of training, (N, num_styles, W)."""
        assert isinstance(self.generator, StyledGenerator)
        styles = self.generator.map(draws.randn(self.latent_dim, count), condition)
        self.generator.follow(styles.detach())
        if self.generator.style_mixing == 0:
            return styles
        others = self.generator.map(draws.randn(self.latent_dim, count), condition)
        return self.generator.mixed(styles, others, draws.of_batch(2))

    def draws(self, turn: int) -> Draws:
        """Of a turn: the discriminator's is 0, the generator's passes and their penalties have others."""
        seed = derive_seed(self.seed, self.progress.examples + self.seen_in_batch, turn)
        return Draws(seed, self.global_rank, self.trainer.world_size, self.device)

    def scores(self, images: Tensor, condition: Condition | None, draws: Draws) -> Tensor:
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

    def represent(self, x: Tensor, layer: float, noise_level: float) -> Tensor:
        """What a block of the discriminator makes of images (N, C, H, W), the mean over places; ``layer``: depth in
        [0, 1] (Radford et al. 2016, arXiv:1511.06434, section 5.1). -> (N, D) float32."""
        condition = self.conditions.nothing(len(x), x.device)
        return block_output(self.discriminator, lambda: self.discriminator(x, condition), layer)

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
        noise = self.noise(stream)
        self.evaluations += num_samples
        return self.generator(noise, self.conditions.drawn(condition, stream))

    def noise(self, stream: RandomStream) -> Tensor:
        """The noise of samples, drawn from their stream: (N, latent_dim)."""
        if self.truncation is None:
            return stream.randn(self.latent_dim)
        return truncated_normal(stream.rand(self.latent_dim), self.truncation)

    @property
    def latent_network(self) -> nn.Module:
        return self.generator

    def decode(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """The images of noise ``z`` (N, latent_dim), without truncation. -> (N, C, H, W) in [-1, 1]."""
        self.conditions.check(condition)
        if isinstance(self.generator, StyledGenerator):
            return self.generator.synthesize(self.generator.map(z, condition))
        return self.generator(z, condition)

    def averaged(self) -> Iterator[tuple[str, Tensor]]:
        """The generator's weights and batch norm statistics, which can be averaged too. Other buffers cannot: unit
        vectors of spectral norm, counts."""
        yield from ((f"generator.{name}", p) for name, p in self.generator.named_parameters())
        yield from running_statistics(self.generator, "generator")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["discriminator_steps_made"] = self.steps_made
        checkpoint["augment"] = self.augment.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.steps_made = checkpoint["discriminator_steps_made"]
        self.augment.load_state_dict(checkpoint.get("augment", {}))


def slow_down(optimizer: Optimizer, every: int) -> None:
    """For one more step in every ``every``: the learning rate times c and betas to the power of c = every /
    (every + 1), so that as much is learned in the same time (Karras et al. 2020, appendix B)."""
    ratio = every / (every + 1) if every else 1.0
    for group in optimizer.param_groups:
        group["lr"] *= ratio
        if "betas" in group:
            group["betas"] = tuple(beta**ratio for beta in group["betas"])

"""Progressive GANs: both networks grow in resolution over a run."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from genlab.errors import ConfigError
from genlab.model.augment.adaptive import AdaptiveAugmentation
from genlab.model.augment.diffaugment import Augmentation
from genlab.model.base import Batch, Condition, LearningRateSchedule, OptimizerFactory
from genlab.model.gan import GAN
from genlab.model.growth import ProgressiveGrowth, Stage, enlarged, shrunk
from genlab.model.parts import AdversarialObjective, GrowingDiscriminator, GrowingGenerator
from genlab.seeding import RandomStream


class ProgressiveGAN(GAN):
    """A GAN whose networks begin at 4x4 and double their resolution, each time fading in the new layers (Karras et al.
    2018).

    The stage is a function of the examples seen before an optimizer step. Real images are shrunk to its resolution, and
    samples are enlarged from it by repeating pixels, so that they have the shape of the data at any time. Networks
    carry their stage in their weights: a checkpoint is sampled at the stage that its last step was made at.

    Logged beside what a GAN logs: ``resolution``, and ``alpha``, the share of the newest layers.
    """

    generator: Any
    discriminator: Any

    def __init__(
        self,
        generator: Callable[..., GrowingGenerator],
        discriminator: Callable[..., GrowingDiscriminator],
        objective: AdversarialObjective,
        augment: Augmentation | AdaptiveAugmentation,  # of what the discriminator sees
        optimizer: OptimizerFactory,  # of the generator
        discriminator_optimizer: OptimizerFactory,
        schedule: LearningRateSchedule,
        growth: ProgressiveGrowth,
        shape: Sequence[int],  # of an image: (C, H, W)
        told: Mapping[str, Any],  # the data's conditions by key, their ``spec.condition``
        latent_dim: int = 128,  # numbers of noise that make an image
        conditions: Sequence[str] | None = None,  # those that the model uses, e.g. [label,caption]; None: the label
        discriminator_steps: int = 1,  # of the discriminator for one of the generator
        truncation: float | None = None,  # samples are made of noise within +- this (Brock et al. 2019); None: all
        compile: bool = False,  # the networks that have no penalty, with torch.compile
        seed: int = 0,
    ):
        super().__init__(
            generator,
            discriminator,
            objective,
            augment,
            optimizer,
            discriminator_optimizer,
            schedule,
            shape,
            told,
            latent_dim,
            conditions,
            discriminator_steps,
            truncation=truncation,
            compile=compile,
            seed=seed,
        )
        self.growth = growth

    def check_data(self, data: Any) -> None:
        """Raises ConfigError: batches cannot be divided into steps."""
        for resolution, size in self.growth.batch_size.items():
            if size > data.batch_size or data.batch_size % size:
                raise ConfigError(
                    f"model.growth.batch_size of {resolution} is {size}, and does not divide "
                    f"data.batch_size={data.batch_size}: a batch is divided into steps. Use "
                    f"data.batch_size={size * max(1, round(data.batch_size / size))}."
                )
            if size < data.batch_size and self.accumulation.every > 1:
                raise ConfigError(
                    "model.growth.batch_size makes several optimizer steps of a batch, and "
                    f"trainer.accumulate_grad_batches={self.accumulation.every} one of several. Use "
                    "trainer.accumulate_grad_batches=1."
                )

    @property
    def resolution(self) -> int:
        """The side of what the generator draws now, before it is enlarged."""
        return self.networks_stage().resolution

    @property
    def is_grown(self) -> bool:
        """Whether all layers are there, and none is faded in."""
        return self.networks_stage() == Stage(self.generator.levels - 1, 1.0)

    def networks_stage(self) -> Stage:
        """That of the last step, also of a step that another process made."""
        return Stage(self.generator.level, self.generator.alpha)

    def at_full_cost(self) -> None:
        self.growth = ProgressiveGrowth(0, 1, self.growth.batch_size)

    # --- training ---------------------------------------------------------------------------------------------------

    def next_stage(self) -> Stage:
        """That of the optimizer step which the next batch is of. All batches of a step have that of the first."""
        if self.accumulation.size > 1:
            return self.networks_stage()
        return self.growth.stage(self.progress.examples, self.generator.levels)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        super().on_train_batch_start(batch, batch_idx)
        stage = self.next_stage()
        for network in (self.generator, self.discriminator):
            network.grow(*stage)
        factor = self.growth.lr_factor.get(stage.resolution, 1.0)
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] *= factor

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        stage = self.networks_stage()
        steps = self.steps_of(stage)
        size, rest = divmod(len(batch[self.key]), steps)
        if rest:
            raise ConfigError(
                f"{len(batch[self.key])} examples of a batch on each of {self.trainer.world_size} devices cannot be "
                f"divided into the {steps} steps of model.growth.batch_size at {stage.resolution}x{stage.resolution}. "
                "Use larger sizes in model.growth.batch_size, or fewer devices."
            )
        for i in range(steps):
            self.seen_in_batch = i * size * self.trainer.world_size
            part = {name: values[i * size : (i + 1) * size] for name, values in batch.items()}
            super().training_step(part, batch_idx)
        self.seen_in_batch = 0
        self.log_all(resolution=torch.tensor(float(stage.resolution)), alpha=torch.tensor(stage.alpha))

    def steps_of(self, stage: Stage) -> int:
        """Optimizer steps of the discriminator that a batch is divided into."""
        if stage.resolution not in self.growth.batch_size:
            return 1
        return self.growth.steps_of(stage, self.trainer.datamodule.batch_size)  # type: ignore[attr-defined]

    def step_kind(self, batch_idx: int) -> str:
        stage, steps_made = self.next_stage(), self.steps_made
        kinds = []
        for i in range(self.steps_of(stage)):
            self.steps_made = steps_made + i
            kinds.append(super().step_kind(batch_idx))
        self.steps_made = steps_made
        return f"{stage.resolution}{' fading' * stage.is_fading}: {', '.join(kinds)}"

    def discriminator_turn(self, real: Tensor, condition: Condition | None) -> None:
        super().discriminator_turn(shrunk(real, self.networks_stage()), condition)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """On images as they are at the stage of the networks."""
        return super().losses({**batch, self.key: shrunk(batch[self.key], self.networks_stage())})

    def represent(self, x: Tensor, layer: float, noise_level: float) -> Tensor:
        """As of a GAN, of images at the stage of the networks: at 4x4, where no block runs, their pixels."""
        seen = shrunk(x, self.networks_stage())
        return seen.flatten(1) if self.networks_stage().level == 0 else super().represent(seen, layer, noise_level)

    # --- sampling ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self, num_samples: int, condition: Condition | None = None, generator: RandomStream | None = None
    ) -> Tensor:
        return enlarged(super().sample(num_samples, condition, generator), self.shape[-1])

    def decode(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        return enlarged(super().decode(z, condition), self.shape[-1])

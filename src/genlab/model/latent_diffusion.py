"""Latent diffusion: a diffusion model of a trained autoencoder's latents (Rombach et al. 2022)."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from genlab.model.base import Batch, Condition, GenerativeModel, HasLatent, LearningRateSchedule, OptimizerFactory
from genlab.model.diffusion import Diffusion
from genlab.model.elsewhere import FROM_ELSEWHERE
from genlab.model.parts import (
    Adapter,
    Alignment,
    DenoisingNetwork,
    DenoisingObjective,
    Guidance,
    ReadsPictures,
    Sampler,
    kind_of_step,
)
from genlab.model.representation import Reading
from genlab.seeding import RandomStream

_STD = 0.5  # about that of images in [-1, 1]


class LatentDiffusion(GenerativeModel):
    """Any network, objective and sampler of diffusion, on latents of a frozen autoencoder.

    The autoencoder comes from a run (``model.autoencoder=outputs/...``). Its configuration becomes part of this run's,
    and its weights a file in this run's folder, so the other run is needed only once. Latents are shifted and scaled,
    by their statistics in the first batch, to mean 0 and the standard deviation of images in each channel, so that
    objectives can use the same settings as for images. A network that starts from weights for latents of another scale
    needs that: ``latent_scale`` times the latent, without a shift.
    """

    kinds = frozenset({"continuous"})
    reading: ClassVar[Reading] = Diffusion.reading
    begins_new = tuple(f"diffusion.{name}" for name in Diffusion.begins_new)
    autoencoder: Any  # a module, with the shape and the conditions of a generative model
    latent_mean: Tensor  # (Z, 1, 1)
    latent_std: Tensor  # (Z, 1, 1); 0 before the first batch

    def __init__(
        self,
        autoencoder: Annotated[HasLatent, FROM_ELSEWHERE],  # the model of a trained run
        network: Callable[..., DenoisingNetwork],
        objective: DenoisingObjective,
        sampler: Sampler,
        optimizer: OptimizerFactory,
        schedule: LearningRateSchedule,
        shape: Sequence[int],  # of a latent: (Z, h, w)
        image_shape: Sequence[int],  # (C, H, W)
        told: Mapping[str, Any],  # the data's conditions by key, their ``spec.condition``
        conditions: Sequence[str] | None = None,  # those that the model uses, e.g. [label,caption]; None: the label
        condition_dropout: float | Mapping[str, float] = 0.1,  # share of training examples without their condition
        guidance: Guidance | None = None,  # None: samples of the conditional model itself
        latent_scale: float | None = None,  # None: of the first batch; Stable Diffusion 1 and 2: 0.18215
        adapter: Adapter | None = None,  # trained in place of the network's own weights; None: these are trained
        compile: bool = False,  # the network, with torch.compile
        seed: int = 0,
        alignment: Alignment | None = None,  # of a block with trained features; None: the objective's loss alone
    ):
        """Raises ValueError if the autoencoder was trained on images of another size."""
        super().__init__(seed, schedule)
        assert isinstance(autoencoder, nn.Module)
        if tuple(autoencoder.shape) != tuple(image_shape):  # type: ignore[arg-type]
            raise ValueError(
                f"model.autoencoder was trained on images of shape {tuple(autoencoder.shape)}, "  # type: ignore[arg-type]
                f"the data have {tuple(image_shape)}. Name another run, or change the data."
            )
        if isinstance(guidance, ReadsPictures):
            raise ValueError(
                f"model.guidance: {type(guidance).__name__} looks at pictures, and this model draws latents. Use "
                "model/guidance=classifier_free."
            )
        self.autoencoder, self.latent_scale = autoencoder, latent_scale
        self.diffusion = Diffusion(
            network,
            objective,
            sampler,
            optimizer,
            schedule,
            shape,
            told=told,
            conditions=conditions,
            condition_dropout=condition_dropout,
            guidance=guidance,
            adapter=adapter,
            compile=compile,
            seed=seed,
            alignment=alignment,
        )
        self.conditions = self.diffusion.conditions
        self.register_buffer("latent_mean", torch.zeros(shape[0], 1, 1))
        self.register_buffer("latent_std", torch.zeros(shape[0], 1, 1))
        self._is_measured = False

    def configure_model(self) -> None:
        if self.diffusion.network is not None:
            return
        self.autoencoder.configure_model()
        self.autoencoder.requires_grad_(False).eval()
        self.diffusion.configure_model()

    def avoid(self, negative: Condition) -> None:
        """As of the diffusion model of latents."""
        self.diffusion.avoid(negative)

    @property
    def denoising(self) -> Diffusion:
        return self.diffusion

    def frozen(self) -> Iterable[nn.Module]:
        return (self.autoencoder,)

    def configure_optimizers(self) -> Optimizer:
        return self.diffusion.configure_optimizers()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        z = self.encode(batch)
        if not self._is_measured:  # asked once: an answer from a GPU comes when it has done all work so far
            if not self.latent_std.any():
                self.measure(z)
            self._is_measured = True
        losses = self.diffusion.training_losses(
            self.standardised(z), batch[self.key], self.conditions.of(batch), self.progress.fraction
        )
        for name, value in losses.items():
            self.log(f"train/{name}", value, on_step=True, batch_size=len(z))
        return losses["loss"]

    def averaged(self) -> Iterator[tuple[str, Tensor]]:
        return ((f"diffusion.{name}", p) for name, p in self.diffusion.averaged())

    @torch.no_grad()
    def outputs_of_random_inputs(self, generator: torch.Generator) -> Tensor:
        """As of the diffusion model of latents."""
        return self.diffusion.outputs_of_random_inputs(generator)

    def encode(self, batch: Batch) -> Tensor:
        """Latents (N, Z, h, w), as the autoencoder has them."""
        return self.autoencoder.encode(batch[self.key], self.known_to_autoencoder(self.conditions.of(batch)))

    def known_to_autoencoder(self, condition: Condition | None) -> Condition | None:
        """The part of a condition that the autoencoder takes too."""
        shared = self.autoencoder.conditions.kinds
        return {key: value for key, value in (condition or {}).items() if key in shared} or None

    def measure(self, z: Tensor) -> None:
        """Take the latents' statistics, over all ranks. ``z``: (N, Z, h, w), of the first batch."""
        if self.latent_scale is not None:
            self.latent_std.fill_(_STD / self.latent_scale)
            return
        sums = torch.stack([torch.ones_like(z), z, z.square()]).double().sum(dim=(1, 3, 4))  # (3, Z)
        count, total, squares = self.trainer.strategy.reduce(sums, reduce_op="sum")
        mean = total / count
        self.latent_mean.copy_(mean[:, None, None])
        self.latent_std.copy_((squares / count - mean.square()).clamp_min(1e-12).sqrt()[:, None, None])

    def standardised(self, z: Tensor) -> Tensor:
        return _STD * (z - self.latent_mean) / self.latent_std

    def step_kind(self, batch_idx: int) -> str:
        return super().step_kind(batch_idx) + kind_of_step(self.diffusion.objective, self.progress.fraction)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """With every condition in place. Noise is drawn from torch's global generator, which the caller seeds."""
        z = self.standardised(self.encode(batch))
        return {
            "loss": self.diffusion.objective.loss(
                self.diffusion.network, z, self.conditions.of(batch), self.progress.fraction
            )
        }

    def represent(self, x: Tensor, layer: float, noise_level: float) -> Tensor:
        """As of :class:`Diffusion`, of the standardised latents of images (N, C, H, W). The noise is a function of
        the images, since latents differ by rounding from batch to batch. -> (N, D) float32."""
        told = self.autoencoder.conditions.nothing(len(x), x.device)
        z = self.autoencoder.encode(x, told)
        scaled = self.standardised(z) if self.latent_std.any() else z  # nothing is measured before the first batch
        noise = RandomStream.for_examples(0, x).randn_like(z)
        return self.diffusion.represent_noisy(scaled + noise_level * noise, layer, noise_level)

    @torch.no_grad()
    def sample(
        self, num_samples: int, condition: Condition | None = None, generator: RandomStream | None = None
    ) -> Tensor:
        """Images (N, C, H, W), nominally in [-1, 1]: decoded samples of latents.

        The caller puts the model in eval mode. Without a condition, samples are unconditional.

        Raises:
            ValueError: a condition that the model does not know.
        """
        z = self.diffusion.sample(num_samples, condition, self.stream(num_samples, generator))
        self.evaluations = self.diffusion.evaluations
        return self.images_of(z, condition)

    @torch.no_grad()
    def latents_of(self, x: Tensor, condition: Condition | None) -> Tensor:
        """Standardised latents (N, Z, h, w) of images (N, C, H, W)."""
        return self.standardised(self.autoencoder.encode(x, self._told_to_autoencoder(condition, x)))

    def images_of(self, z: Tensor, condition: Condition | None) -> Tensor:
        """Images (N, C, H, W) of standardised latents (N, Z, h, w)."""
        scale = torch.where(self.latent_std > 0, self.latent_std, 1.0)
        return self.autoencoder.decode(z / _STD * scale + self.latent_mean, self._told_to_autoencoder(condition, z))

    def _told_to_autoencoder(self, condition: Condition | None, rows: Tensor) -> Condition | None:
        return self.autoencoder.conditions.filled(self.known_to_autoencoder(condition), len(rows), rows.device)

"""Diffusion models: a network trained to denoise, and a sampler that denoises step by step."""

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from genlab.errors import ConfigError
from genlab.model.base import Batch, Condition, GenerativeModel, LearningRateSchedule, OptimizerFactory, drop_labels
from genlab.model.bits_per_dim import as_density, on_batch_scale
from genlab.model.optimizer.groups import parameters_for
from genlab.model.parts import Denoiser, DenoisesToTheEnd, DenoisingNetwork, DenoisingObjective, Sampler, kind_of_step
from genlab.model.probability_flow import Hutchinson, Trace, log_likelihood
from genlab.model.sharding import shard
from genlab.seeding import RandomStream, derive_seed


class Diffusion(GenerativeModel):
    """DDPM, EDM, flow matching: whatever can be read as D(x; sigma), the expected clean image of a noisy one."""

    modalities = frozenset({"image"})
    likelihood_kind: ClassVar[Literal["estimate"]] = "estimate"
    network: nn.Module  # made in configure_model

    def __init__(
        self,
        network: Callable[[], DenoisingNetwork],
        objective: DenoisingObjective,
        sampler: Sampler,
        optimizer: OptimizerFactory,
        schedule: LearningRateSchedule,
        shape: Sequence[int],  # of an image: (C, H, W)
        num_classes: int | None,  # None: labels are not used
        label_dropout: float = 0.1,  # share of training examples without their label, which guidance needs
        guidance: float = 1.0,  # strength w of classifier-free guidance; 1 is none
        guidance_interval: tuple[float, float] | None = None,  # noise levels (sigma) that are guided; None: all
        compile: bool = False,  # the network, with torch.compile
        seed: int = 0,
    ):
        super().__init__(seed, schedule)
        if not 0 <= label_dropout <= 1:
            raise ValueError(f"model.label_dropout={label_dropout} is outside [0, 1]. It is a share of the examples.")
        if guidance != 1 and num_classes is not None and label_dropout == 0:
            raise ValueError(f"model.guidance={guidance} needs a model trained with model.label_dropout above 0.")
        if isinstance(objective, DenoisesToTheEnd) != isinstance(sampler, DenoisesToTheEnd):
            raise ValueError(
                "model/objective=consistency and model/sampler=consistency need each other: their D is where the ODE "
                "ends, that of others is an expected image. Choose both or neither."
            )
        self.make_network, self.objective, self.sampler, self.make_optimizer = network, objective, sampler, optimizer
        self.shape, self.num_classes, self.label_dropout = tuple(shape), num_classes, label_dropout
        self.guidance = guidance
        self.guidance_interval = tuple(guidance_interval) if guidance_interval is not None else (0.0, float("inf"))
        self.compile_network = compile
        self.register_module("network", None)

    def configure_model(self) -> None:
        if self.network is not None:
            return
        network = self.make_network()
        assert isinstance(network, nn.Module)
        if self.compile_network:
            network.compile()
        if self.device_mesh is not None:
            shard(network, self.device_mesh)
        self.network = network

    def configure_optimizers(self) -> Optimizer:
        return self.make_optimizer(parameters_for(self.make_optimizer, self))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.loss(batch["image"], self.condition_of(batch), self.progress.fraction)
        self.log("train/loss", loss, on_step=True, batch_size=len(batch["image"]))
        return loss

    def loss(self, x: Tensor, condition: Condition | None, progress: float) -> Tensor:
        """The objective's loss of ``x`` (N, C, H, W), with some labels dropped. A scalar."""
        condition = drop_labels(condition, self.label_dropout)
        return self.objective.loss(self.network, x, condition, progress)

    def step_kind(self, batch_idx: int) -> str:
        return super().step_kind(batch_idx) + kind_of_step(self.objective, self.progress.fraction)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """With every label in place. Noise is drawn from torch's global generator, which the caller seeds."""
        loss = self.objective.loss(self.network, batch["image"], self.condition_of(batch), self.progress.fraction)
        return {"loss": loss}

    @torch.no_grad()
    def sample(
        self, num_samples: int, condition: Condition | None = None, generator: RandomStream | None = None
    ) -> Tensor:
        """Images (N, C, H, W), nominally in [-1, 1] and not clamped.

        The caller puts the model in eval mode, or dropout is on. Without a condition nobody has a label. Without a
        generator, one is seeded from torch's global generator.

        Raises:
            ValueError: a label that the model does not know.
        """
        self.check(condition)
        generator = self.stream(num_samples, generator)
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # or a sample depends on its batch
            return self.sampler(self.denoiser(condition), generator.randn(*self.shape), generator)

    def denoiser(self, condition: Condition | None) -> Denoiser:
        """D(x; sigma) under a condition, with classifier-free guidance (Ho and Salimans 2022, eq. 6; their w is ours
        minus 1) at noise levels in an interval (Kynkäänniemi et al. 2024): D_u + w (D_c - D_u), both from one call of
        the network."""

        def plain(x: Tensor, sigma: Tensor) -> Tensor:
            self.evaluations += len(x)
            return self.objective.denoise(self.network, x, sigma, condition)

        if condition is None or self.guidance == 1:
            return plain
        labels = torch.cat([torch.full_like(condition["label"], -1), condition["label"]])  # (2N,)
        low, high = self.guidance_interval

        def guided(x: Tensor, sigma: Tensor) -> Tensor:
            inside = (low <= sigma) & (sigma <= high)
            if self.guidance_interval != (0.0, float("inf")) and not inside.any():
                return plain(x, sigma)
            self.evaluations += 2 * len(x)
            both = self.objective.denoise(self.network, x.repeat(2, 1, 1, 1), sigma.repeat(2), {"label": labels})
            unconditional, conditional = both.chunk(2)
            weight = torch.where(inside, self.guidance, 1.0).to(x.dtype)[:, None, None, None]
            return torch.lerp(unconditional, conditional, weight)

        return guided

    def log_likelihood(self, x: Tensor, condition: Condition | None = None, trace: Trace | None = None) -> Tensor:
        """Nats of each image of ``x`` (N, C, H, W), a density over dequantised images on [-1, 1], without guidance: of
        a discrete likelihood, an estimate of a bound. -> (N,).

        ``trace`` is exact (``ExactTrace()``) or an estimate; by default Hutchinson's, with signs from the model's seed.
        The caller puts the model in eval mode, or dropout is on.

        Raises:
            ValueError: a label that the model does not know.
            ConfigError: the objective is consistency, which has no ODE to integrate.
        """
        self.check(condition)
        if isinstance(self.objective, DenoisesToTheEnd):
            raise ConfigError(
                "model/objective=consistency has no likelihood: its D is no expected image. Leave it out."
            )

        with torch.inference_mode(False), torch.no_grad():  # Lightning evaluates in inference mode: no derivatives
            if condition is not None:
                condition = {"label": condition["label"].clone()}

            def denoise(y: Tensor, sigma: Tensor) -> Tensor:
                return self.objective.denoise(self.network, y, sigma, condition)

            trace = trace or Hutchinson(seed=derive_seed(self.seed))
            nats = log_likelihood(denoise, on_batch_scale(x.clone(), None), trace)
            return as_density(nats, None, x[0].numel())

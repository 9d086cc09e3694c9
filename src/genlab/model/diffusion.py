"""Diffusion models: a network trained to denoise, and a sampler that denoises step by step."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from genlab.errors import ConfigError
from genlab.model.alignment.none import NoAlignment
from genlab.model.base import (
    Batch,
    Condition,
    GenerativeModel,
    LearningRateSchedule,
    OptimizerFactory,
    leading_away,
)
from genlab.model.bits_per_dim import as_density, on_batch_scale
from genlab.model.condition import Conditions, cloned, told_to
from genlab.model.float32 import exact_float32
from genlab.model.guidance.none import NoGuidance
from genlab.model.optimizer.groups import parameters_for
from genlab.model.parts import (
    Adapter,
    Alignment,
    ChecksModel,
    ChecksNetwork,
    Denoiser,
    DenoisesToTheEnd,
    DenoisingNetwork,
    DenoisingObjective,
    Guidance,
    Sampler,
    kind_of_step,
)
from genlab.model.probability_flow import Hutchinson, Trace, log_likelihood
from genlab.model.representation import Reading, block_output
from genlab.model.sharding import shard
from genlab.seeding import RandomStream, derive_seed


class Diffusion(GenerativeModel):
    """DDPM, EDM, flow matching: all models of D(x; sigma), the expected clean image of a noisy one."""

    kinds = frozenset({"continuous"})
    likelihood_kind: ClassVar[Literal["estimate"]] = "estimate"
    repeats_steps: ClassVar[bool] = False  # whether a step of sampling is computed again by itself
    reading: ClassVar[Reading] = Reading("blocks of the denoiser", layer=0.5, noise_level=0.05)
    begins_new = ("alignment.",)
    network: nn.Module  # made in configure_model

    def __init__(
        self,
        network: Callable[..., DenoisingNetwork],
        objective: DenoisingObjective,
        sampler: Sampler,
        optimizer: OptimizerFactory,
        schedule: LearningRateSchedule,
        shape: Sequence[int],  # of an image: (C, H, W)
        told: Mapping[str, Any],  # the data's conditions by key, their ``spec.condition``
        conditions: Sequence[str] | None = None,  # those that the model uses, e.g. [label,caption]; None: the label
        condition_dropout: float | Mapping[str, float] = 0.1,  # share of training examples without their condition
        guidance: Guidance | None = None,  # None: samples of the conditional model itself
        adapter: Adapter | None = None,  # trained in place of the network's own weights; None: these are trained
        compile: bool = False,  # the network, with torch.compile
        seed: int = 0,
        alignment: Alignment | None = None,  # of a block with trained features; None: the objective's loss alone
    ):
        """Raises ValueError: parts that exclude each other."""
        super().__init__(seed, schedule)
        self.conditions = Conditions.told(told, conditions, condition_dropout)
        self.guidance = guidance or NoGuidance()
        if isinstance(objective, DenoisesToTheEnd) != isinstance(sampler, DenoisesToTheEnd):
            raise ValueError(
                "model/objective=consistency and model/sampler=consistency need each other: their D is the end of "
                "the ODE, others' D is an expected image. Choose both or neither."
            )
        self.make_network, self.objective, self.sampler, self.make_optimizer = network, objective, sampler, optimizer
        self.shape, self.adapter, self.compile_network = tuple(shape), adapter, compile
        if isinstance(self.guidance, ChecksModel):
            self.guidance.check_model(self)
        else:
            self.conditions.check_guided(self.guidance.strength)
        self.alignment = alignment or NoAlignment()
        if self.alignment.weight and isinstance(objective, DenoisesToTheEnd):
            raise ValueError(
                "model/alignment=repa reads a block for one noisy image, and model/objective=consistency passes the "
                "network twice. Use model.alignment.weight=0, or another objective and sampler."
            )
        if self.alignment.weight and compile:
            raise ValueError(
                "model.compile=true: model/alignment=repa reads a block, which a compiled network does not show. Use "
                "model.compile=false, or model.alignment.weight=0."
            )
        self.register_module("network", None)

    @property
    def predicts_mean(self) -> bool:
        """Whether D is the expected clean example, from which a score follows."""
        return not isinstance(self.objective, DenoisesToTheEnd)

    def configure_model(self) -> None:
        if self.network is None:
            network = self.new_network()
            self.alignment.prepare(network, self.shape)
            self.network = self.placed(network)
            if self.device_mesh is not None and self.alignment.projector is not None:
                shard(self.alignment.projector, self.device_mesh)
            if isinstance(self.guidance, ChecksNetwork):
                try:
                    self.guidance.check_network(self.network)
                except ValueError as error:
                    raise ConfigError(str(error)) from error

    @property
    def denoising(self) -> "Diffusion":
        return self

    def new_network(self) -> nn.Module:
        """With random weights, and the adapter."""
        network = self.make_network(**told_to(self.make_network, self.conditions.kinds))
        assert isinstance(network, nn.Module)
        if self.adapter is not None:
            self.adapter.adapt(network)
        return network

    def placed(self, network: nn.Module) -> nn.Module:
        """Compiled, and sharded, where that is asked for."""
        if self.compile_network:
            network.compile()
        if self.device_mesh is not None:
            shard(network, self.device_mesh)
        return network

    def configure_optimizers(self) -> Optimizer:
        return self.make_optimizer(parameters_for(self.make_optimizer, self))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        x = batch[self.key]
        losses = self.training_losses(x, x, self.conditions.of(batch), self.progress.fraction)
        for name, value in losses.items():
            self.log(f"train/{name}", value, on_step=True, batch_size=len(x))
        return losses["loss"]

    def training_losses(
        self, x: Tensor, images: Tensor, condition: Condition | None, progress: float
    ) -> dict[str, Tensor]:
        """:meth:`loss`, with what is added to it, and what is logged beside it, scalars. ``images``: what a user sees
        of ``x`` (N, C, H, W)."""
        return self.alignment.losses(self.network, images, lambda: self.loss(x, condition, progress))

    def loss(self, x: Tensor, condition: Condition | None, progress: float) -> Tensor:
        """The objective's loss for ``x`` (N, C, H, W), with some conditions dropped. A scalar."""
        return self.objective.loss(self.network, x, self.conditions.dropped(condition), progress)

    def averaged(self) -> Iterator[tuple[str, Tensor]]:
        """The weights of the denoiser: samples do not depend on others."""
        return ((name, p) for name, p in super().averaged() if not name.startswith("alignment."))

    def step_kind(self, batch_idx: int) -> str:
        return super().step_kind(batch_idx) + kind_of_step(self.objective, self.progress.fraction)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """With every condition in place. Noise is drawn from torch's global generator, which the caller seeds."""
        loss = self.objective.loss(self.network, batch[self.key], self.conditions.of(batch), self.progress.fraction)
        return {"loss": loss}

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
        with exact_float32(self.device):  # or a sample depends on its batch
            return self.sampler(self.denoiser(condition), generator.randn(*self.shape), generator)

    def avoid(self, negative: Condition) -> None:
        self.negative = leading_away(self.guidance, negative)

    def denoiser(self, condition: Condition | None, network: nn.Module | None = None) -> Denoiser:
        """D(x; sigma) under a condition, with the model's guidance. ``network``: another in place of its own."""
        denoise = CountingDenoiser(self, network)
        if condition is None:
            return self.guidance.guide(denoise, None, None)
        return self.guidance.guide(denoise, condition, self.unconditional(condition))

    def unconditional(self, condition: Condition) -> Condition | None:
        """What guidance compares ``condition`` with, with as many rows."""
        first = next(iter(condition.values()))
        return self.avoided(len(first)) or self.conditions.nothing(len(first), first.device)

    def outputs_of_random_inputs(self, generator: torch.Generator) -> Tensor:
        """What the denoiser makes of noise: (2, *shape)."""
        noise = torch.randn(2, *self.shape, generator=generator).to(self.device)
        return self.denoiser(None)(noise, torch.ones(2, device=self.device))

    def represent(self, x: Tensor, layer: float, noise_level: float) -> Tensor:
        """What a block of the denoiser makes of noisy data, the mean over places (Xiang et al. 2023, arXiv:2303.09769).

        ``x``: (N, C, H, W); ``layer``: depth in [0, 1]; ``noise_level``: sigma. The noise of an example is a function
        of its content. -> (N, D) float32.
        """
        return self.represent_noisy(x + noise_level * RandomStream.for_examples(0, x).randn_like(x), layer, noise_level)

    def represent_noisy(self, noisy: Tensor, layer: float, noise_level: float) -> Tensor:
        """The same of data with noise of this sigma in them."""
        sigma = noisy.new_full((len(noisy),), noise_level)
        return block_output(self.network, lambda: self.objective.denoise(self.network, noisy, sigma, None), layer)

    def log_likelihood(self, x: Tensor, condition: Condition | None = None, trace: Trace | None = None) -> Tensor:
        """Nats of each image of ``x`` (N, C, H, W), a density over dequantized images on [-1, 1], without guidance: of
        a discrete likelihood, an estimate of a bound. -> (N,).

        ``trace`` is exact (``ExactTrace()``) or an estimate; by default Hutchinson's, with signs from the model's seed.
        The caller puts the model in eval mode, or dropout is on.

        Raises:
            ValueError: a condition that the model does not know.
            ConfigError: the objective is consistency, which has no ODE to integrate.
        """
        self.conditions.check(condition)
        if isinstance(self.objective, DenoisesToTheEnd):
            raise ConfigError(
                "model/objective=consistency has no likelihood, since its D is not an expected image. Leave it out."
            )

        with torch.inference_mode(False), torch.no_grad():  # Lightning evaluates in inference mode: no derivatives
            condition = cloned(condition)

            def denoise(y: Tensor, sigma: Tensor) -> Tensor:
                return self.objective.denoise(self.network, y, sigma, condition)

            trace = trace or Hutchinson(seed=derive_seed(self.seed))
            nats = log_likelihood(denoise, on_batch_scale(x.clone(), None), trace)
            return as_density(nats, None, x[0].numel())


class CountingDenoiser:
    """D(x; sigma) of a model under any condition, by its network or another one. Counts the network's evaluations."""

    def __init__(self, model: Diffusion, network: nn.Module | None = None):
        self.model, self.network = model, model.network if network is None else network

    def __call__(self, x: Tensor, sigma: Tensor, condition: Condition | None) -> Tensor:
        self.model.evaluations += len(x)
        return self.model.objective.denoise(self.network, x, sigma, condition)

    def by(self, other: Diffusion) -> Callable[[Tensor, Tensor, Condition | None], Tensor]:
        """D(x; sigma) of another trained model without its guidance, counted likewise."""

        def denoise(x: Tensor, sigma: Tensor, condition: Condition | None) -> Tensor:
            self.model.evaluations += len(x)
            return other.objective.denoise(other.network, x, sigma, condition)

        return denoise

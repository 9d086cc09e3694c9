"""Normalizing flows: an invertible network from data to noise, trained on its exact density."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from genlab.model.base import Batch, Condition, GenerativeModel, LearningRateSchedule, OptimizerFactory
from genlab.model.condition import Conditions, cloned, told_to
from genlab.model.float32 import exact_float32
from genlab.model.freezing import trained
from genlab.model.guidance.none import NoGuidance
from genlab.model.parts import FlowNetwork, PredictionGuidance
from genlab.model.representation import Reading
from genlab.model.sharding import shard
from genlab.seeding import RandomStream

LEVELS = 256  # of a pixel


class Flow(GenerativeModel):
    """Maximum likelihood of noisy images; samples of the flow are noisy too, and one step along its score denoises
    them.

    8-bit images have no density, so noise is added in training. Uniform noise as wide as a level is always there: it is
    what makes bits per dimension a bound on the discrete likelihood (Theis et al. 2016). Alone it asks of the flow an
    almost degenerate density, most of all where pixels are constant, and samples suffer. So, as in TarFlow (Zhai et al.
    2024, section 3.2), Gaussian noise of ``noise_std`` is added, far wider than a level, and a sample y becomes its
    expected clean image y + noise_std^2 * grad log p(y) (Tweedie's formula, section 3.3). The price: the likelihood is
    that of noisy images. For bits per dimension of clean ones train with ``noise_std=0``.
    """

    kinds = frozenset({"continuous"})
    pixel_levels = 256  # gray levels in its likelihood
    likelihood_kind: ClassVar[Literal["bound"]] = "bound"  # of the discrete likelihood: a density
    latent_prior: ClassVar[Literal["standard normal"]] = "standard normal"
    reading: ClassVar[Reading] = Reading("latents")
    network: nn.Module  # made in configure_model

    def __init__(
        self,
        network: Callable[..., FlowNetwork],
        optimizer: OptimizerFactory,
        schedule: LearningRateSchedule,
        shape: Sequence[int],  # of an image: (C, H, W)
        told: Mapping[str, Any],  # the data's conditions by key, their ``spec.condition``
        noise_std: float = 0.1,  # of Gaussian noise in training, on the scale of [-1, 1]
        conditions: Sequence[str] | None = None,  # those that the model uses, e.g. [label,caption]; None: the label
        condition_dropout: float | Mapping[str, float] = 0.1,  # share of training examples without their condition
        guidance: PredictionGuidance | None = None,  # None: samples of the conditional model itself
        compile: bool = False,  # the network, with torch.compile
        seed: int = 0,
    ):
        """
        Raises:
            ValueError: an argument is outside its range, or guidance is set without condition dropout.
        """
        super().__init__(seed, schedule)
        if noise_std < 0:
            raise ValueError(f"model.noise_std={noise_std} is negative. Use 0 (uniform noise only) or more.")
        self.conditions = Conditions.told(told, conditions, condition_dropout)
        self.guidance = guidance or NoGuidance()
        self.conditions.check_guided(self.guidance.strength)
        self.make_network, self.make_optimizer = network, optimizer
        self.shape, self.noise_std = tuple(shape), noise_std
        self.latent_shape = self.shape
        self.compile_network = compile
        self.register_module("network", None)

    def configure_model(self) -> None:
        if self.network is not None:
            return
        network = self.make_network(**told_to(self.make_network, self.conditions.kinds))
        assert isinstance(network, nn.Module)
        if self.compile_network:
            network.compile()
        if self.device_mesh is not None:
            shard(network, self.device_mesh)
        self.network = network

    def configure_optimizers(self) -> Optimizer:
        return self.make_optimizer(trained(self))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        x = batch[self.key]
        loss = self.loss(x, self.conditions.dropped(self.conditions.of(batch)))
        self.log("train/loss", loss, on_step=True, batch_size=len(x))
        return loss

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """With every condition in place. Noise is drawn from torch's global generator, which the caller seeds."""
        return {"loss": self.loss(batch[self.key], self.conditions.of(batch))}

    def loss(self, image: Tensor, condition: Condition | None) -> Tensor:
        """Minus the log-likelihood of noisy images, in nats for each dimension. ``image``: (N, C, H, W). -> ()."""
        uniform = (2 * torch.rand_like(image) - 1) / LEVELS  # one level
        noisy = _continuous(image) + uniform + self.noise_std * torch.randn_like(image)
        return -self._log_density(noisy, condition).mean() / image[0].numel()

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
        z = self.stream(num_samples, generator).randn(*self.shape)
        guided = self.guidance.strength != 1 and condition is not None
        self.evaluations += num_samples * (1 + guided + (self.noise_std > 0))  # an inverse is one, however it is made
        with exact_float32(self.device):  # or a sample depends on its batch
            noisy = self.network.inverse(z, condition, self.guidance.strength)  # type: ignore[operator]
            return self.clean(noisy, condition)

    def denoise(self, noisy: Tensor, condition: Condition | None) -> Tensor:
        """The expected clean image of a noisy one (Zhai et al. 2024, eq. 8). (N, C, H, W) -> (N, C, H, W)."""
        return noisy + self.noise_std**2 * self.score(noisy, condition)

    def score(self, noisy: Tensor, condition: Condition | None) -> Tensor:
        """The gradient of the log-density of noisy images, as training has them. (N, C, H, W) -> (N, C, H, W)."""
        with torch.inference_mode(False), torch.enable_grad():  # Lightning evaluates in inference mode: no derivatives
            y = noisy.clone().requires_grad_()
            (score,) = torch.autograd.grad(self._log_density(y, cloned(condition)).sum(), y)
        return score

    def noisy(self, image: Tensor, generator: RandomStream) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] with the noise of training."""
        uniform = (2 * generator.rand(*self.shape) - 1) / LEVELS
        return _continuous(image) + uniform + self.noise_std * generator.randn(*self.shape)

    def clean(self, noisy: Tensor, condition: Condition | None) -> Tensor:
        """Images (N, C, H, W) without the noise of training, as samples are."""
        return _image(self.denoise(noisy, condition) if self.noise_std > 0 else noisy)

    def represent(self, x: Tensor, layer: float, noise_level: float) -> Tensor:
        """The latents of images (N, C, H, W). -> (N, C * H * W) float32."""
        return self.network(_continuous(x), None)[0].flatten(1)

    @torch.no_grad()
    def encode(self, x: Tensor, condition: Condition | None = None) -> Tensor:
        """The one latent of images ``x`` (N, C, H, W), taken to be without noise. -> the same shape."""
        self.conditions.check(condition)
        z: Tensor = self.network(_continuous(x), condition)[0]
        return z

    @torch.no_grad()
    def decode(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """The one image of latents ``z`` (N, C, H, W), neither guided nor denoised. -> the same shape."""
        self.conditions.check(condition)
        return _image(self.network.inverse(z, condition, 1.0))  # type: ignore[operator]

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, condition: Condition | None = None) -> Tensor:
        """Nats of each image of ``x`` (N, C, H, W), a density over dequantized images on [-1, 1]. -> (N,).

        The caller puts the model in eval mode, or dropout is on.

        Raises:
            ValueError: a condition that the model does not know.
        """
        self.conditions.check(condition)
        return self._log_density(x, condition)

    def _log_density(self, x: Tensor, condition: Condition | None) -> Tensor:
        """Of the flow, by the change of variables. (N, C, H, W) -> (N,)."""
        z, log_det = self.network(x, condition)
        normal = -0.5 * (z.square() + math.log(2 * math.pi)).flatten(1).sum(dim=1)
        return normal + log_det


def _continuous(image: Tensor) -> Tensor:
    """Levels from -1 to 1 become the middles of 256 cells that tile [-1, 1], as in ``bits_per_dim.dequantize``."""
    return image * (LEVELS - 1) / LEVELS


def _image(x: Tensor) -> Tensor:
    return x * LEVELS / (LEVELS - 1)

"""VQ-VAE (van den Oord et al. 2017): images to a few integers, and back. It serves as the tokenizer of other models."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from genlab.model.base import Batch, Condition, GenerativeModel, LearningRateSchedule, OptimizerFactory
from genlab.model.bits_per_dim import as_density, on_batch_scale
from genlab.model.condition import Conditions, told_to
from genlab.model.float32 import exact_float32
from genlab.model.freezing import trained
from genlab.model.parts import Decoder, Encoder, PixelLikelihood
from genlab.model.representation import Reading
from genlab.model.sharding import shard
from genlab.seeding import RandomStream


class Quantizer(Protocol):
    """A finite set of vectors, one of which stands for each vector of a latent; an ``nn.Module``."""

    num_codes: int

    def encode(self, z: Tensor) -> Tensor:
        """(N, Z, h, w) -> codes (N, h, w) int64."""
        ...

    def decode(self, codes: Tensor) -> Tensor:
        """(N, h, w) int64 -> (N, Z, h, w)."""
        ...

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, Z, h, w) -> quantized (with a gradient), a scalar loss that keeps ``z`` close to it, codes (N, h, w)."""
        ...

    def update(self, z: Tensor, codes: Tensor) -> None:
        """After a training step: follow the vectors."""
        ...


class VQVAE(GenerativeModel):
    """An autoencoder whose latents are codes of a finite codebook.

    The networks do not use labels. There is no learned prior over tokens, so
    :meth:`sample` draws each independently; only reconstructions look good, until a second model
    generates tokens. Losses are nats a dimension of the data.
    """

    kinds = frozenset({"continuous"})
    reading: ClassVar[Reading] = Reading("vectors of codes")
    encoder: nn.Module  # made in configure_model, like the next two
    decoder: nn.Module
    quantizer: Any  # a Quantizer and an nn.Module at once: a type that Python cannot say

    def __init__(
        self,
        encoder: Callable[..., Encoder],
        decoder: Callable[..., Decoder],
        quantizer: Callable[[], Quantizer],
        likelihood: PixelLikelihood,
        optimizer: OptimizerFactory,
        schedule: LearningRateSchedule,
        shape: Sequence[int],  # of an image: (C, H, W)
        told: Mapping[str, Any],  # the data's conditions by key, their ``spec.condition``
        latent_shape: Sequence[int],  # (Z, h, w): h * w tokens for an image
        commitment: float = 0.25,  # weight of the loss that keeps the encoder close to the codebook (beta of eq. 3)
        frequency_decay: float = 0.99,  # of the averages that tokens are sampled by, at each step
        conditions: Sequence[str] | None = None,  # those that the model uses, e.g. [label,caption]; None: the label
        sample_pixels: bool = False,  # samples are drawn from the pixels' distribution, rather than its mean
        compile: bool = False,  # encoder and decoder, with torch.compile
        seed: int = 0,
    ):
        """Raises ValueError: a decay outside [0, 1), a latent that is not (Z, h, w), more told than a label."""
        super().__init__(seed, schedule)
        self.conditions = Conditions.told(told, conditions)
        if [kind.length for kind in self.conditions.kinds.values()] not in ([], [1]):
            raise ValueError(
                f"model.conditions=[{','.join(self.conditions.kinds)}]: a VQVAE only counts its codes by label, and "
                "its networks take no conditions. Use model.conditions=[], and set them for the model of codes."
            )
        if not 0 <= frequency_decay < 1 or commitment < 0:
            raise ValueError(f"frequency_decay={frequency_decay} must be in [0, 1), commitment={commitment} >= 0.")
        if len(latent_shape) != 3:
            raise ValueError(f"model.latent_shape={list(latent_shape)} must be [Z,h,w].")
        self.make_encoder, self.make_decoder, self.make_quantizer = encoder, decoder, quantizer
        self.likelihood, self.make_optimizer, self.compile_networks = likelihood, optimizer, compile
        self.shape, self.latent_shape = tuple(shape), tuple(latent_shape)
        self.token_shape = self.latent_shape[1:]
        self.commitment, self.frequency_decay, self.sample_pixels = commitment, frequency_decay, sample_pixels
        for name in ("encoder", "decoder", "quantizer"):
            self.register_module(name, None)
        self.frequencies: Tensor

    def configure_model(self) -> None:
        if self.encoder is not None:
            return
        kinds = self.conditions.kinds  # which these networks have vectors for, and never look at
        encoder = self.make_encoder(out_channels=self.latent_shape[0], **told_to(self.make_encoder, kinds))
        parameters = self.likelihood.num_parameters(self.shape[0])
        decoder = self.make_decoder(out_channels=parameters, **told_to(self.make_decoder, kinds))
        quantizer = self.make_quantizer()
        assert isinstance(encoder, nn.Module)
        assert isinstance(decoder, nn.Module)
        assert isinstance(quantizer, nn.Module)
        if self.compile_networks:
            encoder.compile()
            decoder.compile()
        if self.device_mesh is not None:
            shard(encoder, self.device_mesh)
            shard(decoder, self.device_mesh)
        self.encoder, self.decoder, self.quantizer = encoder, decoder, quantizer
        # of each code, by label (row 0: any), at each place: an average over training of its share of the batch
        rows = max([1, *(kind.num_tokens for kind in self.conditions.kinds.values())])
        size = (rows, math.prod(self.latent_shape[1:]), quantizer.num_codes)
        self.register_buffer("frequencies", torch.zeros(size))

    def configure_optimizers(self) -> Optimizer:
        return self.make_optimizer(trained(self.encoder, self.decoder))

    def averaged(self) -> Iterator[tuple[str, Tensor]]:
        """The weights, and a codebook of buffers: averaged networks need the codes that belong to them."""
        yield from super().averaged()
        codebook = self.quantizer.state_dict(keep_vars=True).get("codebook")
        if codebook is not None:
            yield "quantizer.codebook", codebook

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        losses, z, codes = self.autoencode(batch[self.key])
        self.quantizer.update(z.detach(), codes)
        self.count(codes, self.row_of(self.conditions.of(batch)))
        for name, value in losses.items():
            self.log(f"train/{name}", value, on_step=True, batch_size=len(codes))
        self.log("train/perplexity", perplexity(codes, self.quantizer.num_codes), on_step=True, batch_size=len(codes))
        return losses["loss"]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """As in training; nothing is updated."""
        return self.autoencode(batch[self.key])[0]

    def autoencode(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Of images (N, C, H, W): ``reconstruction`` in nats a dimension, ``commitment``, and the weighted ``loss``
        (eq. 3); what the encoder said (N, Z, h, w); the codes (N, h, w)."""
        z = self.encoder(x, None)
        quantized, commitment, codes = self.quantizer(z)
        reconstruction = -self.likelihood.log_prob(x, self.decoder(quantized, None)).mean() / math.prod(self.shape)
        loss = reconstruction + self.commitment * commitment
        return {"loss": loss, "reconstruction": reconstruction, "commitment": commitment}, z, codes

    @torch.no_grad()
    def count(self, codes: Tensor, row: Tensor | None) -> None:
        """Average how often each code stands at each place, for all images and for those of each label: ``row`` (N,) of
        the frequencies, 0 for none."""
        there = F.one_hot(codes.flatten(1), self.quantizer.num_codes).float()  # (N, h * w, K)
        counts = torch.zeros_like(self.frequencies)
        counts[0] = there.sum(dim=0)
        if row is not None:
            counts.index_add_(0, row, there * (row > 0)[:, None, None])
        if dist.is_initialized():
            dist.all_reduce(counts)
        self.frequencies.lerp_(counts, 1 - self.frequency_decay)

    def row_of(self, condition: Condition | None) -> Tensor | None:
        """Of the frequencies, (N,): 0 is any label."""
        told = self.conditions.kinds.items()
        return next((kind.tokens(condition[key])[:, 0] for key, kind in told if condition and key in condition), None)

    @property
    def num_codes(self) -> int:
        return self.quantizer.num_codes

    @torch.no_grad()
    def tokenize(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) on [-1, 1] -> tokens (N, h, w) int64."""
        return self.quantizer.encode(self.encoder(x, None))

    @torch.no_grad()
    def detokenize(self, tokens: Tensor) -> Tensor:
        """Tokens (N, h, w) -> the mean images (N, C, H, W)."""
        return self.likelihood.mean(self.decoder(self.quantizer.decode(tokens), None))

    @torch.no_grad()
    def log_likelihood_given(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Nats of images (N, C, H, W) given their tokens (N, h, w), as a density on [-1, 1]. -> (N,)."""
        levels = self.likelihood.levels
        parameters = self.decoder(self.quantizer.decode(tokens), None)
        log_prob = self.likelihood.log_prob(on_batch_scale(x, levels), parameters)
        return as_density(log_prob, levels, math.prod(self.shape))

    def represent(self, x: Tensor, layer: float, noise_level: float) -> Tensor:
        """The vectors of the codes of images (N, C, H, W), side by side. -> (N, Z * h * w) float32."""
        return self.quantizer.decode(self.tokenize(x)).flatten(1)

    @torch.no_grad()
    def encode(self, x: Tensor, condition: Condition | None = None) -> Tensor:
        """What the encoder says of images (N, C, H, W), not quantized. -> (N, *latent_shape)."""
        return self.encoder(x, None)

    @torch.no_grad()
    def decode(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """Latents (N, *latent_shape), which are quantized first, to images (N, C, H, W)."""
        return self.detokenize(self.quantizer.encode(z))

    @torch.no_grad()
    def sample(
        self, num_samples: int, condition: Condition | None = None, generator: RandomStream | None = None
    ) -> Tensor:
        """Images (N, C, H, W) of tokens drawn one by one: a baseline, not a model of images.

        There is no learned prior. Each token is drawn independently of the others of its image, as often as it stood at
        its place in recent training images (of the label asked for); before training, all are as likely. Without a
        generator, one is seeded from torch's global generator.

        Raises:
            ValueError: a condition that the model does not know.
        """
        self.conditions.check(condition)
        generator = self.stream(num_samples, generator)
        self.evaluations += num_samples
        rows = self.row_of(condition)
        rows = torch.zeros(num_samples, dtype=torch.long) if rows is None else rows
        share = (self.frequencies + 1e-12).double().cumsum(dim=-1)[rows.to(self.device)]  # (N, h * w, K)
        height, width = self.latent_shape[1:]
        uniform = generator.rand(height * width, 1).double() * share[..., -1:]
        tokens = torch.searchsorted(share, uniform, right=True).clamp(max=share.shape[-1] - 1)  # (N, h * w, 1)
        tokens = tokens.view(num_samples, height, width)
        with exact_float32(self.device):  # or a sample depends on its batch
            parameters = self.decoder(self.quantizer.decode(tokens), None)
        likelihood = self.likelihood
        return likelihood.sample(parameters, generator) if self.sample_pixels else likelihood.mean(parameters)


def perplexity(codes: Tensor, num_codes: int) -> Tensor:
    """The effective number of codes in use: exp of the entropy of their shares in a batch (N, h, w). In [1,
    num_codes]."""
    share = torch.bincount(codes.flatten(), minlength=num_codes).float() / codes.numel()
    return torch.special.entr(share).sum().exp()

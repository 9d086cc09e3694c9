"""Protocols of model parts, which are the types of slots in configs.

A class fits a protocol if it has the protocol's methods with the same parameter names (``genlab.config.build`` checks
this before anything is built), so a network or an objective needs no base class and no registration.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from genlab.model.answers import Answers
from genlab.model.base import Condition
from genlab.model.objective.preference import Scored
from genlab.seeding import RandomStream


class Generator(Protocol):
    """Noise to images."""

    def forward(self, noise: Tensor, condition: Condition | None) -> Tensor:
        """``noise``: (N, latent_dim), standard normal -> (N, C, H, W) in [-1, 1]."""
        ...


@runtime_checkable
class StyledGenerator(Protocol):
    """A generator of two stages: noise to styles, one for each layer, and styles to images."""

    style_mixing: float  # how often a batch of training has two styles; 0: never

    def map(self, noise: Tensor, condition: Condition | None) -> Tensor:
        """``noise``: (N, latent_dim), standard normal -> (N, num_styles, W)."""
        ...

    def mixed(self, styles: Tensor, others: Tensor, uniform: Tensor) -> Tensor:
        """(N, num_styles, W) each, and two numbers in [0, 1) -> like them: others' from a layer on."""
        ...

    def follow(self, styles: Tensor) -> None:
        """Have the average style follow those of a batch of training, (N, num_styles, W)."""
        ...

    def truncated(self, styles: Tensor) -> Tensor:
        """Styles (N, num_styles, W) as those of samples are: drawn toward the average, where that is set."""
        ...

    def synthesize(self, styles: Tensor, normal: Callable[..., Tensor] | None = None) -> Tensor:
        """``normal``: draws numbers (N, *shape); None: those of samples, which are constant. -> (N, C, H, W)."""
        ...

    def stages(self) -> Sequence[nn.Module]:
        """What is compiled, where it is asked for."""
        ...


@runtime_checkable
class Adversarial(Protocol):
    """A family of two networks, of which the one may be a :class:`StyledGenerator`."""

    generator: nn.Module
    discriminator: nn.Module
    latent_dim: int  # numbers of noise that make an image
    shape: tuple[int, ...]  # of an image: (C, H, W)

    def noise(self, stream: RandomStream) -> Tensor:
        """The noise of samples, drawn from their stream: (N, latent_dim)."""
        ...


@runtime_checkable
class ReadsLatent(Protocol):
    """A network whose first maps of its latent, or of its styles, are affine."""

    def latent_maps(self) -> Tensor:
        """What a latent of D numbers is multiplied by, all such maps one below the other: (outputs, D)."""
        ...


@runtime_checkable
class HasLatentNetwork(Protocol):
    """A family with a network that makes data of latents."""

    @property
    def latent_network(self) -> nn.Module: ...


@runtime_checkable
class HasDenoiser(Protocol):
    """A family that draws samples by denoising: of images, or of their latents."""

    @property
    def denoising(self) -> Any:
        """A diffusion model: ``network``, ``sampler``."""
        ...


@runtime_checkable
class HasMiddle(Protocol):
    """A network from fine to coarse and back."""

    def middle(self) -> nn.Module:
        """The block whose outputs are the deepest features, (N, D, h, w)."""
        ...


class Discriminator(Protocol):
    """Images to scores, high for images classified as real."""

    def forward(self, candidate: Tensor, condition: Condition | None) -> Tensor:
        """``candidate``: (N, C, H, W) -> (N,)."""
        ...


class LatentDiscriminator(Protocol):
    """Latents to scores, high for latents that are classified as a model's own."""

    def forward(self, latent: Tensor) -> Tensor:
        """``latent``: (N, Z, h, w) -> (N,)."""
        ...


class Growing(Protocol):
    """A network for images of 4x4, 8x8 and so on, one at a time."""

    levels: int  # how many resolutions there are
    level: int  # the one now: 4 * 2^level
    alpha: float  # the share of its layers in images, in [0, 1]; the rest are the next lower level's
    is_fading: bool  # whether alpha is below 1

    def grow(self, level: int, alpha: float) -> None:
        """Set both. At level 0 alpha is 1."""
        ...


class GrowingGenerator(Growing, Generator, Protocol):
    """Noise to images of the resolution of its level."""


class GrowingDiscriminator(Growing, Discriminator, Protocol):
    """Images of the resolution of its level to scores."""


class AdversarialObjective(Protocol):
    """The losses of a discriminator and a generator, scalars of scores (N,)."""

    penalty: Any  # a genlab.model.objective.penalty.Penalty on the discriminator's slope
    undecided: float | None  # the score at the decision boundary; None: scores are not logits

    def discriminator_loss(self, real_scores: Tensor, fake_scores: Tensor) -> Tensor: ...

    def generator_loss(self, fake_scores: Tensor) -> Tensor: ...


class PreferenceObjective(Protocol):
    """The losses of pairs of answers, of which the first is preferred."""

    needs_reference: bool  # log-probabilities of a reference
    needs_drift: bool  # an estimate of the KL divergence of the policy from the reference

    def loss(self, chosen: Scored, rejected: Scored, drift: Tensor | None) -> Tensor:
        """(N,) each -> (N,)."""
        ...

    def reward(self, scored: Scored) -> Tensor:
        """(N,): what is larger for preferred answers."""
        ...


class AnswerReward(Protocol):
    """How good answers are."""

    weight: float  # in the sum of rewards; 0: it is measured, and not learnt from

    def check(self, data: Any) -> None:
        """Raises ConfigError: it cannot tell of these data."""
        ...

    def score(self, answers: Answers) -> Tensor:
        """(M,), higher for better ones."""
        ...


class PictureReward(Protocol):
    """How good drawn pictures are."""

    weight: float  # in the sum of rewards; 0: it is measured, and not learnt from
    reads: frozenset[str]  # the keys of the condition that it looks at

    def check(self, data: Any) -> None:
        """Raises ConfigError: it cannot tell of pictures like these data."""
        ...

    def score(self, images: Tensor, condition: Condition | None) -> Tensor:
        """``images``: (N, C, H, W) in [-1, 1]; ``condition``: what they were drawn for. -> (N,), higher for better
        ones."""
        ...


class RewardObjective(Protocol):
    """The losses of pairs by the difference of their two rewards."""

    def loss(self, difference: Tensor, tie: Tensor, margin: Tensor) -> Tensor:
        """``difference`` (N,): of the preferred one's reward and the other's; ``tie`` (N,) bool; ``margin`` (N,): by
        how much one is better, 0 where nobody said. -> (N,)."""
        ...

    def probability(self, difference: Tensor) -> Tensor:
        """(N,) -> (N,): that the first is preferred, if one of the two is."""
        ...


class DenoisingNetwork(Protocol):
    """Tensors to tensors of the same shape, given their noise level."""

    def forward(self, x: Tensor, noise_level: Tensor, condition: Condition | None) -> Tensor:
        """``x``: (N, C, H, W) of about unit variance; ``noise_level``: (N,), whatever scalar the objective uses, of the
        order of 1. Returns (N, C, H, W)."""
        ...


class FeatureNetwork(Protocol):
    """Images to features for a linear classifier."""

    num_features: int

    def forward(self, image: Tensor) -> Tensor:
        """``image``: (N, C, H, W) in [-1, 1] -> (N, num_features)."""
        ...


class MaskedEncoder(FeatureNetwork, Protocol):
    """Images to features, and to a vector for each of their patches, of which it can be shown a part."""

    patch_size: int  # pixels
    grid: tuple[int, int]  # patches in a column and in a row of them

    def tokens(self, image: Tensor, seen: Tensor | None) -> Tensor:
        """``image``: (N, C, H, W) in [-1, 1]; ``seen``: the numbers of K patches, counted row by row, (N, K), or None,
        all of them -> (N, K, num_features), or with one more before them."""
        ...

    def of_patches(self, tokens: Tensor) -> Tensor:
        """What ``tokens`` gives, without the one more: (N, K, num_features)."""
        ...

    def pooled(self, tokens: Tensor) -> Tensor:
        """Features (N, num_features) of what ``tokens`` gives."""
        ...


class PatchPredictor(Protocol):
    """Vectors of patches that are seen to vectors of others."""

    def forward(self, tokens: Tensor, seen: Tensor, asked: Tensor) -> Tensor:
        """``tokens``: (N, K, in_features), or with one more before them; the numbers of their patches, (N, K), and of
        those that are asked for, (N, M) -> (N, M, out_features)."""
        ...


class ProjectorNetwork(Protocol):
    """Features to vectors that a self-supervised loss compares. Made for a number of features, ``num_features``."""

    num_outputs: int

    def forward(self, features: Tensor) -> Tensor:
        """``features``: (N, num_features) -> (N, num_outputs) float32."""
        ...


class ViewObjective(Protocol):
    """The loss of two views of each image of a batch."""

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        """Vectors (N, D) of each image's views, of all ranks together, float32 -> a scalar."""
        ...


class DistillationObjective(Protocol):
    """What a student learns of a momentum teacher: the heads on top of both encoders, and the loss."""

    def projector(self, num_features: int) -> nn.Module:
        """(N, num_features) -> (N, num_outputs), of the student and of the teacher."""
        ...

    def predictor(self, num_outputs: int) -> nn.Module:
        """(N, num_outputs) -> (N, num_outputs), of the student alone; ``nn.Identity``: none."""
        ...

    def loss(self, student: Tensor, teacher: Tensor, progress: float) -> Tensor:
        """``student`` (V, N, D): what it says of V views of N images; ``teacher`` (G, N, D): of the first G of these;
        ``progress`` in [0, 1]. -> a scalar."""
        ...

    def follow(self, mean: Tensor) -> None:
        """Take in the mean of what the teacher has said in a training step, over all views and ranks, (D,)."""
        ...

    def held(self, projector: nn.Module, progress: float) -> Iterable[nn.Parameter]:
        """The parameters of the student's ``projector`` that stay as they are at ``progress`` in [0, 1]."""
        ...


class FlowNetwork(Protocol):
    """An invertible map from data to standard normal noise."""

    def forward(self, x: Tensor, condition: Condition | None) -> tuple[Tensor, Tensor]:
        """``x``: (N, C, H, W) -> noise of that shape, and the logarithm of the Jacobian's determinant, (N,)."""
        ...

    def inverse(self, z: Tensor, condition: Condition | None, guidance: float) -> Tensor:
        """``z``: (N, C, H, W) -> data of that shape; inverts ``forward`` at ``guidance`` 1; above 1 the condition
        has more effect."""
        ...


class Encoder(Protocol):
    """Images to the parameters of their latents."""

    def forward(self, image: Tensor, condition: Condition | None) -> Tensor:
        """``image``: (N, C, H, W) -> (N, D, h, w); the family defines the D channels."""
        ...


class Decoder(Protocol):
    """Latents to images, or to the parameters of a distribution of images."""

    def forward(self, latent: Tensor, condition: Condition | None) -> Tensor:
        """``latent``: (N, Z, h, w) -> (N, D, H, W)."""
        ...


class PixelLikelihood(Protocol):
    """A distribution of images, whose parameters a decoder puts out."""

    levels: int | None  # gray levels that it is a distribution over; None: a density

    def num_parameters(self, channels: int) -> int:
        """Parameter channels D for images of ``channels`` channels."""
        ...

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        """Nats of images (N, C, H, W) on [-1, 1] given parameters (N, D, H, W). -> (N,)."""
        ...

    def sample(self, parameters: Tensor, generator: RandomStream) -> Tensor:
        """(N, D, H, W) -> images (N, C, H, W), each pixel drawn."""
        ...

    def mean(self, parameters: Tensor) -> Tensor:
        """(N, D, H, W) -> (N, C, H, W), the image to show for these parameters."""
        ...


class DenoisingObjective(Protocol):
    """A training loss, and the denoiser that the trained network defines."""

    def loss(self, network: nn.Module, x: Tensor, condition: Condition | None, progress: float) -> Tensor:
        """The loss of clean data ``x`` (N, C, H, W), a scalar; ``progress`` in [0, 1]."""
        ...

    def denoise(self, network: nn.Module, x: Tensor, sigma: Tensor, condition: Condition | None) -> Tensor:
        """D(x; sigma), the expected clean data given ``x`` = clean + sigma * noise. ``sigma``: (N,). -> like ``x``."""
        ...


class RatesExamples(DenoisingObjective, Protocol):
    """A training loss that is a mean over examples, and that of each."""

    def errors(self, network: nn.Module, x: Tensor, condition: Condition | None) -> Tensor:
        """The loss of each of ``x`` (N, C, H, W), drawn from torch's global generators before the network is called.
        -> (N,)."""
        ...


class ChangesCost(Protocol):
    """An objective whose loss needs a number of operations that depends on progress."""

    def step_kind(self, progress: float) -> str:
        """A name for steps that cost the same; ``progress`` in [0, 1]."""
        ...


def kind_of_step(objective: object, progress: float) -> str:
    """What an objective adds to the kind of a training step, "" if its cost never changes."""
    name: Callable[[float], str] | None = getattr(objective, "step_kind", None)  # quicker than asking the protocol
    return "" if name is None else f" {name(progress)}"


@runtime_checkable
class DenoisesToTheEnd(Protocol):
    """For an objective whose D predicts the end of the probability-flow ODE, not the expected clean data, and for a
    sampler that needs such a D. One without the other samples a wrong distribution."""

    denoises_to_the_end: ClassVar[bool]


Denoiser = Callable[[Tensor, Tensor], Tensor]  # D(x; sigma): (N, C, H, W), (N,) -> (N, C, H, W)


class ConditionalDenoiser(Protocol):
    """D(x; sigma) for any condition."""

    network: nn.Module

    def __call__(self, x: Tensor, sigma: Tensor, condition: Condition | None) -> Tensor:
        """(N, C, H, W), (N,), N rows of each key -> (N, C, H, W)."""
        ...

    def by(self, other: Any) -> Callable[[Tensor, Tensor, Condition | None], Tensor]:
        """D(x; sigma) of another trained diffusion model, whose evaluations are counted as this one's."""
        ...


class Guidance(Protocol):
    """Guidance of a denoiser: from a denoiser to another one, with which samples are drawn."""

    strength: Any  # 1: not guided; of a ChecksModel, as it says

    def guide(self, denoise: ConditionalDenoiser, condition: Condition | None, nothing: Condition | None) -> Denoiser:
        """``nothing``: the empty condition with as many rows; None, like a ``condition`` of None: for a
        model, or a call, without conditions."""
        ...


@runtime_checkable
class ChecksModel(Protocol):
    """Guidance that looks whether a model suits it. Of any other, a strength beside 1 needs a model that was trained
    without its condition, too."""

    def check_model(self, model: Any) -> None:
        """``model``: a :class:`genlab.model.diffusion.Diffusion` without its networks. Raises ValueError."""
        ...


@runtime_checkable
class ChecksNetwork(Protocol):
    """Guidance that looks whether a network suits it."""

    def check_network(self, network: nn.Module) -> None:
        """Raises ValueError."""
        ...


@runtime_checkable
class ReadsPictures(Protocol):
    """Guidance that looks at pictures, and not at latents."""

    reads_pictures: ClassVar[bool]


class PredictionGuidance(Protocol):
    """Guidance of token models and flows: mixes the outputs of two calls."""

    strength: float  # 1: not guided

    def mix(self, untold: Tensor, told: Tensor) -> Tensor:
        """(N, ...) each -> the same."""
        ...


class HintSource(Protocol):
    """What draws the hints of controlled models."""

    reads: ClassVar[str]  # the column of a batch: "image", or one that the data know

    def channels(self, told: Mapping[str, Any]) -> int:
        """K, of data with these conditions, their ``spec.condition``. Raises ValueError: they lack what it reads."""
        ...

    def draw(self, column: Tensor) -> Tensor:
        """Images (N, C, H, W) in [-1, 1], or another column -> (N, K, H, W) in [0, 1]."""
        ...


class Sampler(Protocol):
    """Noise to samples. Uses only D(x; sigma) and its own grid of sigmas; guidance is part of ``denoise``."""

    def __call__(self, denoise: Denoiser, noise: Tensor, generator: RandomStream) -> Tensor:
        """``noise``: standard normal, (N, C, H, W). Returns data of that shape."""
        ...


@runtime_checkable
class Denoises(Protocol):
    """Models of a denoiser D(x; sigma): of images, or of latents."""

    shape: tuple[int, ...]  # of what is denoised
    sampler: Any  # a Sampler with ``num_steps`` and ``grid``, as a StochasticSampler has them
    objective: Any  # a DenoisingObjective
    guidance: Guidance
    evaluations: int  # of the network so far

    def denoiser(self, condition: Condition | None, network: nn.Module | None = None) -> Denoiser:
        """D(x; sigma) under a condition, with the model's guidance."""
        ...


@runtime_checkable
class DenoisesLatents(Protocol):
    """Models of a denoiser of an autoencoder's latents."""

    diffusion: Denoises

    def latents_of(self, x: Tensor, condition: Condition | None) -> Tensor:
        """Images (N, C, H, W) -> latents (N, *diffusion.shape), as they are denoised."""
        ...

    def images_of(self, z: Tensor, condition: Condition | None) -> Tensor:
        """The inverse, approximately."""
        ...


class StochasticSampler(Sampler, Protocol):
    """A sampler each of whose steps, but for the last, draws from a Gaussian."""

    num_steps: int
    grid: Callable[[int], Tensor]  # of a number of steps: (num_steps + 1,) noise levels, descending, the last one 0

    def transition(self, clean: Tensor, x: Tensor, t: float, s: float) -> tuple[Tensor, float]:
        """The mean, like ``x``, and the standard deviation of a step from ``x`` (N, C, H, W) at level ``t`` to level
        ``s``; ``clean`` is D(x; t)."""
        ...


class Adapter(Protocol):
    """What is trained in place of a network's own weights."""

    def adapt(self, network: nn.Module) -> None:
        """Freeze ``network``, in place, and add what is trained. Raises ConfigError: it finds nothing to add to."""
        ...


class Alignment(Protocol):
    """What is added to the loss of a denoiser so that a block of it learns trained features."""

    weight: float  # 0: nothing is added
    projector: nn.Module | None  # what is trained beside the denoiser

    def prepare(self, network: nn.Module, shape: Sequence[int]) -> None:
        """Make its networks, for a denoiser of (C, H, W) that is neither compiled nor sharded."""
        ...

    def losses(self, network: nn.Module, images: Tensor, loss: Callable[[], Tensor]) -> dict[str, Tensor]:
        """``loss`` calls ``network`` once, for noisy examples of ``images`` (N, C, H, W). -> what is minimized, by the
        name ``loss``, and what else is logged, scalars."""
        ...


class SwitchableAdapter(Adapter, Protocol):
    """An adapter without which the network is what it was before."""

    def switched_off(self, network: nn.Module) -> AbstractContextManager[None]:
        """Inside the block ``network``, which has been adapted, is as it was before; afterwards as it is now."""
        ...


@runtime_checkable
class TakesAdapter(Protocol):
    """A model whose network an adapter may be put on."""

    def outputs_of_random_inputs(self, generator: torch.Generator) -> Tensor:
        """Of its network, for a few inputs: what may not change where the adapter is merged."""
        ...


class TokenNetwork(Protocol):
    """Tokens to logits: of the one after each (causal), or of those that are hidden."""

    def forward(self, tokens: Tensor, padding: Tensor | None = None, cache: Any = None) -> Tensor:
        """``tokens``: (N, T) -> (N, T, outputs); of each row the first ``padding`` (N,) are not seen; ``cache``: what
        was read before."""
        ...

    def cache(self, num_rows: int, length: int) -> Any:
        """An empty one, for ``num_rows`` rows of up to ``length`` tokens."""
        ...


class TokenEncoder(TokenNetwork, Protocol):
    """A token network that also gives what its logits are made from."""

    width: int
    head: Any  # the map to logits, a module; None: the embedding

    def forward(self, tokens: Tensor, padding: Tensor | None = None, cache: Any = None, hidden: bool = False) -> Tensor:
        """``tokens``: (N, T) -> (N, T, outputs), or with ``hidden`` (N, T, width)."""
        ...


class PlacedTokenEncoder(TokenEncoder, Protocol):
    """A token encoder that answers at some places alone, so that a large vocabulary costs little."""

    def forward(
        self,
        tokens: Tensor,
        padding: Tensor | None = None,
        cache: Any = None,
        hidden: bool = False,
        at: Tensor | None = None,
    ) -> Tensor:
        """``tokens``: (N, T) -> (N, T, outputs), or with ``hidden`` (N, T, width); with places ``at`` (N, K), of each
        row those K, in place of T."""
        ...


class ImageEncoder(Protocol):
    """Images to sequences of vectors."""

    length: int  # S, vectors of an image
    width: int  # of each

    def forward(self, images: Tensor) -> Tensor:
        """``images``: (N, C, H, W) on [-1, 1] -> (N, S, width)."""
        ...


class CaptionDecoder(Protocol):
    """Tokens to logits of the ones after them, given the vectors of a picture."""

    def forward(self, tokens: Tensor, seen: Tensor, cache: Any = None) -> Tensor:
        """``tokens``: (N, T); ``seen``: (N, S, width) -> (N, T, outputs); ``cache``: what was read before."""
        ...

    def cache(self, num_rows: int, length: int) -> Any:
        """An empty one, for ``num_rows`` rows of up to ``length`` tokens, which can be reordered."""
        ...


class UnmaskingSampler(Protocol):
    """Hidden tokens to tokens."""

    def __call__(
        self, predict: Callable[[Tensor, Tensor], Tensor], hidden: Tensor, tokens: Tensor, generator: RandomStream
    ) -> Tensor:
        """Fill in ``tokens`` (N, L) where ``hidden`` (N, L) is true. ``predict``: both -> logits (N, L, V)."""
        ...


class TokenSampler(Protocol):
    """Logits to a token."""

    def __call__(self, logits: Tensor, before: Tensor, uniform: Tensor) -> Tensor:
        """``logits``: (N, V); ``before``: (N, T) tokens so far, -1 for none; ``uniform``: (N,) on [0, 1) -> (N,)."""
        ...


class PatchNetwork(Protocol):
    """Images to a vector of the whole image, and one for each of its patches."""

    width: int

    def forward(self, images: Tensor) -> Tensor:
        """``images``: (N, C, H, W) in [-1, 1] -> (N, 1 + P, width), the whole image first."""
        ...


class CaptionNetwork(Protocol):
    """Captions to vectors."""

    width: int

    def forward(self, captions: Tensor) -> Tensor:
        """``captions``: (N, T) int64 words, filled up with 0 -> (N, width)."""
        ...


@runtime_checkable
class SequenceSearch(Protocol):
    """Logits to whole sequences, by looking ahead."""

    def search(
        self, first: Tensor, step: Callable[[Tensor, Tensor], Tensor], length: int, end: int, may_stop: bool
    ) -> Tensor:
        """``first``: (N, V), logits of the first token; ``step``: tokens (M,), and rows (M,) of its last call that they
        follow -> logits (M, V). -> (N, length), filled up with ``end``."""
        ...

"""The base classes of model families, for training and for sampling, and protocols of optional abilities."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import wraps
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self, runtime_checkable

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from genlab.errors import ConfigError
from genlab.model.accumulation import Accumulation
from genlab.model.activation_checkpointing import checkpoint_blocks
from genlab.model.agreement import Agreement
from genlab.model.clipping import clip_gradients, clips_by_known_norm
from genlab.model.condition import Condition as Condition
from genlab.model.condition import Conditions
from genlab.model.condition_kind import Caption
from genlab.model.freezing import freeze, frozen_norms
from genlab.model.renamed_weights import rename_loaded
from genlab.seeding import RandomStream, derive_seed, seed_torch

# The data by their key: image in [-1, 1] (N, C, H, W), tokens (N, T + 1), or another, as ``DataSpec.key`` says; index
# (N,); and the conditions of each example by key: label (N,), caption (N, L). Tokens may come with ``counted`` (N, T)
# bool, which predictions count, and ``segment`` (N, T + 1), which of several sequences of a row a token is of.
Batch = Mapping[str, Tensor]
COUNTED = "counted"
Draw = Callable[[int, Condition | None, RandomStream], Tensor]  # number, conditions and random numbers of samples
OptimizerFactory = Callable[[Iterable[Any]], torch.optim.Optimizer]  # of parameters, or of groups of them


@dataclass
class Progress:
    """The progress of a run, in the three units of budgets. Saved in checkpoints."""

    examples: int = 0  # training examples seen, over all ranks
    flops: float = 0.0  # floating-point operations of training, over all ranks
    seconds: float = 0.0  # of training, without evaluation and saving
    fraction: float = 0.0  # of the budget, in [0, 1]

    def logged(self) -> dict[str, float]:
        """The x axes of curves, logged in every row of metrics."""
        return {f"progress/{name}": float(getattr(self, name)) for name in ("examples", "flops", "seconds")}


class Unlogged(NamedTuple):
    """A number that a model logged in a step that no logger looks at."""

    value: Any
    hook: str | None  # in which it was logged
    kwargs: dict[str, Any]


class LearningRateSchedule(Protocol):
    """A multiple of the optimizer's learning rate, as a function of progress."""

    def scale(self, examples: int, fraction: float) -> float: ...


class Model(LightningModule, ABC):
    """The base class of all families: a LightningModule with progress, seeded randomness and averaged weights.

    Networks are made in :meth:`configure_model` (which Lightning calls more than once: make them only if they are
    missing), so that a sharding strategy can place them. Everything else arrives built, through the constructor.
    """

    counts_parts: ClassVar[bool] = False  # whether it says what its operations depend on, by ``counting``
    counts_some: ClassVar[bool] = False  # whether its loss heeds COUNTED in batches
    # What people have to have said of the data, one of these: {"preferences"}; empty: nothing.
    learns_from: ClassVar[frozenset[str]] = frozenset()
    answers_prompts: ClassVar[bool] = False  # whether it is trained on the prompts of conversations alone
    begins_trained: ClassVar[bool] = False  # whether a run has to begin with weights that were trained before
    adapts_part: ClassVar[bool] = False  # whether its adapter is put on a part that was trained elsewhere
    begins_new: tuple[str, ...] = ()  # beginnings of names of weights that start= may lack
    base_is_reference: bool = False  # whether its network without the adapter has to be what the run began with
    # The network that gives features. One of the same architecture may have another name in another family: weights of
    # that one fit this.
    feature_network: ClassVar[str | None] = None
    freezing: Sequence[str] = ()  # patterns of the names of frozen parameters
    copies: Mapping[str, str] = {}  # beginnings of names of weights that start as copies, and of what they copy
    kinds: ClassVar[frozenset[str]]  # kinds of data that it can be trained on: {"continuous"}, {"tokens"} or both
    key: str = "image"  # of the data in a batch; set from the data when a run is assembled
    most_rank: int | None = None  # the largest effective rank that features of a step can have, if it is logged
    gradient_clip_val: float | None = None  # for models that make their own optimizer steps; else the trainer has it

    def __init__(self, seed: int, schedule: LearningRateSchedule):
        super().__init__()
        self.seed = seed
        self.schedule = schedule
        self.progress = Progress()
        self.accumulation = Accumulation()
        self.agreement = Agreement()
        self.elsewhere: dict[str, nn.Module] = {}  # parts that were trained elsewhere, by their place in the config
        self.checkpoints_activations = False  # trainer.activation_checkpointing
        # Is told the norm of a gradient that was clipped, and of which optimizer it is.
        self.sees_norm: Callable[[Tensor, Any], None] | None = None
        self.unlogged: dict[str, Unlogged] | None = None  # of a step that no logger looks at; None: one does
        # Counts the operations of a part of a step, by what they depend on: for models whose steps differ in these.
        # Such a model counts all of a step so.
        self.counting: Callable[[str], AbstractContextManager[Any]] = nullcontext
        self.step_began = 0.0  # time.perf_counter; waiting for data is part of the step

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "configure_model" in vars(cls):
            cls.configure_model = _and_prepare(cls.configure_model)  # type: ignore[method-assign, assignment]

    @abstractmethod
    def configure_model(self) -> None: ...

    @abstractmethod
    def training_step(self, batch: Batch, batch_idx: int) -> Any: ...

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The training losses of a batch without dropout, as scalars by name: what validation averages."""

    def at_full_cost(self) -> None:
        """From now on make steps that cost what the dearest of a run do, for planning, which times the first ones."""

    def held_back(self) -> Sequence[str]:
        """Rewards that it is measured by and does not learn from, as they are logged: train/reward_<name>."""
        return ()

    def check_data(self, data: Any) -> None:
        """Raises ConfigError: the data do not suit it, in a way that their spec does not say."""

    def step_kind(self, batch_idx: int) -> str:
        """The kind of the next training step: steps of one kind, on batches of one shape, need the same number of
        operations, including the optimizer's, since Muon multiplies matrices."""
        return "step" if self.at_optimizer_step(batch_idx) else "accumulation"

    def at_optimizer_step(self, batch_idx: int) -> bool:
        """Whether optimizers step on this batch: only then may the state be averaged or saved, or the run stop."""
        return self.accumulation.steps

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        (loss / self.accumulation.every).backward(*args, **kwargs)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
        if self.accumulation.size == 1:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None

    def on_after_backward(self) -> None:
        if self.automatic_optimization:
            self.accumulation.rescale(self.parameters())

    def averaged(self) -> Iterator[tuple[str, Tensor]]:
        """The tensors that exponential moving averages are kept of, by their names in the state dict: those that
        sampling depends on and that may be averaged. Spectral norms of these weights are recomputed from the
        averages."""
        return ((name, p) for name, p in self.named_parameters() if p.requires_grad)

    def frozen(self) -> Iterable[nn.Module]:
        """Parts that are not trained."""
        return ()

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for part in (*self.frozen(), *self.elsewhere.values(), *frozen_norms(self, self.freezing)):
            part.eval()
        return self

    def on_train_start(self) -> None:
        self.step_began = time.perf_counter()

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        self.step_began = time.perf_counter()  # after all callbacks: evaluation and saving are not training

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Noise and dropout are a function of (seed, examples seen, rank); the learning rate of progress."""
        seed_torch(derive_seed(self.seed, self.progress.examples, self.global_rank))
        scale = self.schedule.scale(self.progress.examples, self.progress.fraction)
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * scale

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        if gradient_clip_val is not None:
            norm = clip_gradients(self, optimizer, gradient_clip_val, gradient_clip_algorithm)
            if norm is not None and self.sees_norm is not None:
                self.sees_norm(norm, optimizer)

    @property
    def tells_norm(self) -> bool:
        """Whether :attr:`sees_norm` is told the norm of every gradient, which is clipped by it."""
        clips = self.automatic_optimization and self.trainer.gradient_clip_val
        return bool(clips) and clips_by_known_norm(self, self.trainer.gradient_clip_algorithm)

    def log(self, name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        """As Lightning's; in a step that no logger looks at, the number is only kept until the step is over, which is
        a hundred times as quick. What is summed up over an epoch is taken in at every step."""
        if self.unlogged is None or kwargs.get("on_epoch") or kwargs.get("prog_bar") or args:
            super().log(name, value, *args, **kwargs)
        else:
            kept = value.detach() if isinstance(value, Tensor) else value
            self.unlogged[name] = Unlogged(kept, self._current_fx_name, kwargs)

    def log_dict(self, dictionary: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        if self.unlogged is None:
            super().log_dict(dictionary, *args, **kwargs)
        else:
            for name, value in dictionary.items():
                self.log(name, value, *args, **kwargs)

    def log_late(self) -> None:
        """Take in what was kept: a logger looks at this step after all."""
        kept, self.unlogged, now = self.unlogged or {}, None, self._current_fx_name
        for name, number in kept.items():
            self._current_fx_name = number.hook
            super().log(name, number.value, **number.kwargs)
        self._current_fx_name = now

    def latest(self) -> dict[str, Any]:
        """The numbers of training that were logged last, those that no logger looks at among them."""
        return dict(self.trainer.callback_metrics) | {name: kept.value for name, kept in (self.unlogged or {}).items()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["progress"] = asdict(self.progress)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        rename_loaded(checkpoint, self.state_dict())
        self.progress = Progress(**checkpoint["progress"])


def _and_prepare(configure_model: Callable[[Any], None]) -> Callable[[Any], None]:
    """What is the same for the networks of all families, once they are made."""

    @wraps(configure_model)
    def configure_and_prepare(self: Model) -> None:
        configure_model(self)
        freeze(self, self.freezing)  # before an optimizer or DDP sees the parameters
        for norm in frozen_norms(self, self.freezing):
            norm.eval()
        untrained = (*self.frozen(), *self.elsewhere.values())
        if self.checkpoints_activations and not checkpoint_blocks(self, untrained):
            raise ConfigError(
                f"trainer.activation_checkpointing=true: no network of this {type(self).__name__} has an "
                "nn.ModuleList named blocks, whose activations could be computed twice. Name the repeated layers of "
                "the network so, or use trainer.activation_checkpointing=false."
            )

    return configure_and_prepare


class GenerativeModel(Model):
    """A model that can also draw samples."""

    conditions: Conditions = Conditions()  # that samples can have
    negative: Condition | None = None  # of one row: what guidance leads away from; None: from no condition
    num_levels: int = 256  # gray levels of a pixel in its likelihood, if it has one
    # Evaluations of the sampling network so far, counted by rows: the cost of ``sample`` on any machine. A guided one
    # counts twice; decoding latents or tokens into images does not count.
    evaluations: int = 0
    # What draws samples in place of ``sample``, with the same arguments: the best of several, or samples that are moved
    # in a latent space. None: ``sample`` itself.
    drawn_by: "Draw | None" = None

    @abstractmethod
    def sample(
        self, num_samples: int, condition: Condition | None = None, generator: RandomStream | None = None
    ) -> Tensor:
        """Draw from the model, in data space: images (N, C, H, W), nominally in [-1, 1] and not clamped; or tokens of
        text (N, T), without their prompt."""

    def avoid(self, negative: Condition) -> None:
        """From now on have guidance lead away from ``negative``, of one row, in place of the empty condition.

        Raises ConfigError: the model has no guidance that leads away from anything.
        """
        raise ConfigError(leads_from_nothing(f"guidance of a {type(self).__name__}"))

    def avoided(self, rows: int) -> Condition | None:
        """:attr:`negative`, ``rows`` times, on the model's device; None: there is none."""
        if self.negative is None:
            return None
        told = {key: value.expand(rows, *value.shape[1:]) for key, value in self.negative.items()}
        return self.conditions.filled(told, rows, self.device)

    @property
    def num_classes(self) -> int | None:
        """The number of labels; None: the model has no labels."""
        return self.conditions.num_classes

    @property
    def empty_classes(self) -> Sequence[int]:
        """Labels without training examples, which are never sampled."""
        return self.conditions.empty_classes

    def stream(self, num_samples: int, generator: RandomStream | None) -> RandomStream:
        """``generator``, or if None, one that is seeded from torch's global generator."""
        if generator is None:
            return RandomStream.for_samples(int(torch.randint(2**62, ())), range(num_samples), self.device)
        assert len(generator) == num_samples
        return generator


@runtime_checkable
class LeadsAway(Protocol):
    """Guidance away from the prediction for the empty condition, in whose place another may stand."""

    leads_away: ClassVar[bool]
    strength: float  # 1: not guided


def leading_away(guidance: object, negative: Condition) -> Condition:
    """``negative``. Raises ConfigError: ``guidance`` leads away from nothing."""
    if not isinstance(guidance, LeadsAway):
        raise ConfigError(leads_from_nothing(f"{type(guidance).__name__}"))
    if guidance.strength == 1:
        raise ConfigError(leads_from_nothing(f"guidance of strength {guidance.strength:g}"))
    return negative


def leads_from_nothing(what: str) -> str:
    return (
        f"negative= and negative_label= say what guidance leads away from, and {what} leads away from no condition. "
        "Use model/guidance=classifier_free, of a run of model=diffusion, latent_diffusion, transformer or masked."
    )


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """All modules in eval mode inside the block."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@runtime_checkable
class HasLikelihood(Protocol):
    """Transformer (exact), VAE and flow (a bound), diffusion (an ODE's estimate of a bound)."""

    likelihood_kind: Literal["exact", "bound", "estimate"]  # of the discrete data, of which a density gives a bound

    def log_likelihood(self, x: Tensor, condition: Condition | None = None) -> Tensor:
        """Nats of each example, (N,): of an image as a density over dequantized images on [-1, 1], whose level p fills
        [p, p + 1) / 128 - 1; of text (N, T + 1) as a probability of all tokens given the first."""
        ...


@runtime_checkable
class Generates(Protocol):
    """Models whose samples can be shown during generation."""

    def generate(self, condition: Condition | None, generator: RandomStream) -> Iterator[Tensor]:
        """The tokens of ``len(generator)`` samples, one after the other: (N,) each."""
        ...


@runtime_checkable
class Grows(Protocol):
    """Models whose samples grow in resolution over a run, and are enlarged to that of the data."""

    resolution: int  # the side of samples now, before they are enlarged
    is_grown: bool  # whether nothing grows from now on


@runtime_checkable
class WritesText(Protocol):
    """Text models, which know the length of their samples in advance."""

    def continuation_length(self, prompt_length: int) -> int:
        """The number of tokens of a sample after a prompt of this length; 0: without one."""
        ...


@runtime_checkable
class HasTokenLikelihood(Protocol):
    """Models with likelihoods of single tokens, for perplexity over overlapping windows."""

    def token_log_probs(self, sequences: Tensor) -> Tensor:
        """Nats of each token of text (N, 1 + T) given those before it. -> (N, T)."""
        ...


@runtime_checkable
class HasPseudoLikelihood(Protocol):
    """Text models that know a token from those on both sides of it."""

    def pseudo_log_probs(self, tokens: Tensor) -> Tensor:
        """Nats of each token of text (N, T) given all others of its row. -> (N, T)."""
        ...


@runtime_checkable
class FillsIn(HasPseudoLikelihood, Protocol):
    """Text models that fill in masked tokens."""

    shape: tuple[int, ...]  # (T,), the tokens that are seen at once

    def fill(self, tokens: Tensor, masked: Tensor) -> tuple[Tensor, Tensor]:
        """``tokens`` (N, T), whatever they are where ``masked`` (N, T) is true -> the same with likely ones there, and
        the logits (N, T, V) of all tokens with what is masked still masked."""
        ...


@runtime_checkable
class HasCaptionLikelihood(Protocol):
    """Models with likelihoods of captions given pictures."""

    def caption_log_probs(self, captions: Tensor, condition: Condition | None) -> Tensor:
        """Nats of each token of captions (N, L), padded with 0, given ``image`` (N, C, H, W): of each word and of the
        end, 0 after it. -> (N, L)."""
        ...


@runtime_checkable
class HasLatent(Protocol):
    """Models with latents, for reconstruction, interpolation, editing and latent diffusion."""

    latent_shape: tuple[int, ...]  # of one example's z

    def encode(self, x: Tensor, condition: Condition | None = None) -> Tensor:
        """The most likely latent of data ``x`` (N, C, H, W). -> (N, *latent_shape)."""
        ...

    def decode(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """The most likely data of latents ``z`` (N, *latent_shape). -> (N, C, H, W)."""
        ...


@runtime_checkable
class HasDenoiser(Protocol):
    """Diffusion models of data themselves, not of latents, which others are put on."""

    def denoiser(self, condition: Condition | None, network: nn.Module | None = None) -> Any:
        """D(x; sigma) under a condition."""
        ...

    def loss(self, x: Tensor, condition: Condition | None, progress: float) -> Tensor:
        """The training loss of ``x`` (N, C, H, W), a scalar; ``progress`` in [0, 1]."""
        ...


@runtime_checkable
class TeachesWord(Protocol):
    """Models that have learned one more word of captions than what they were put on."""

    word: str

    def teach(self, model: nn.Module) -> None:
        """Give it to another on the same base. Raises ValueError: it knows it, or takes no captions."""
        ...


@runtime_checkable
class HasPrior(Protocol):
    """Models with one latent per image and a standard normal prior, for paths through latent space.

    GAN, VAE and flow. Not a VQ-VAE, whose prior is over codes, nor the hierarchical VAE, whose layers' priors depend on
    those above; nor diffusion, where a latent is a whole trajectory.
    """

    latent_prior: Literal["standard normal"]
    latent_shape: tuple[int, ...]  # of one example's z

    def decode(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """The image of latents ``z`` (N, *latent_shape), a smooth function of them. -> (N, C, H, W)."""
        ...


@runtime_checkable
class HasFeatures(Protocol):
    """Models of images whose features metrics can use."""

    shape: tuple[int, ...]  # of an image

    def features(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) on [-1, 1] -> (N, D), of the order of 1."""
        ...


@runtime_checkable
class FillsInImages(Protocol):
    """Models that fill in hidden parts of images."""

    def fill_in(self, x: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) on [-1, 1] with index (N,) -> like them, with hidden parts gray, and filled in."""
        ...


@runtime_checkable
class CompletesImages(Protocol):
    """Models that draw the unknown places of images given the others: of tokens."""

    def complete(self, x: Tensor, unknown: Tensor, condition: Condition | None, generator: RandomStream) -> Tensor:
        """``x``: images (N, C, H, W) on [-1, 1]; ``unknown``: (N, 1, H, W) bool, where they may be anything. -> like
        ``x``, with all tokens drawn that have an unknown place; of codes, decoded everywhere."""
        ...


@runtime_checkable
class HasScore(Protocol):
    """Models with an exact density of noisy images, and its gradient: flows."""

    noise_std: float  # of the noise

    def noisy(self, image: Tensor, generator: RandomStream) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] -> with noise, as the density sees them."""
        ...

    def clean(self, noisy: Tensor, condition: Condition | None) -> Tensor:
        """The same without noise, as samples are."""
        ...

    def score(self, noisy: Tensor, condition: Condition | None) -> Tensor:
        """The gradient of the log-density in noisy images (N, C, H, W). -> the same shape."""
        ...


@runtime_checkable
class Classifies(HasFeatures, Protocol):
    """Image classifiers, whose features and logits metrics can use. Each feature has about unit variance over the
    data."""

    def logits(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) on [-1, 1] -> (N, classes)."""
        ...


@runtime_checkable
class GivesRewards(Protocol):
    """Models that say how good people find an example."""

    objective: Any  # whose ``probability`` of a preference is that of a difference of rewards

    def rewards(self, batch: Batch) -> Tensor:
        """Of all members of an ensemble: (members, N) of what is rated, (members, N, 2) of pairs."""
        ...


@runtime_checkable
class ScoresAnswers(Protocol):
    """Reward models of text, as the reward of a policy."""

    shape: tuple[int, ...]  # (T,), the tokens that are seen at once
    members: int  # of the ensemble

    def answer_rewards(self, tokens: Tensor, last: Tensor, padding: Tensor) -> Tensor:
        """Of ``tokens`` (N, T), whose answers end at ``last`` (N,) and of which the first ``padding`` (N,) of a row are
        not seen, by all members: (members, N)."""
        ...


@runtime_checkable
class ComparesCaptions(Protocol):
    """Models that embed images and captions in one space, where a picture and its caption are near."""

    shape: tuple[int, ...]  # of an image
    caption: Caption  # the captions that it reads

    def embed_images(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) on [-1, 1] -> unit vectors (N, D)."""
        ...

    def embed_captions(self, caption: Tensor) -> Tensor:
        """Captions (N, T) int64, filled up with 0 -> unit vectors (N, D)."""
        ...


@runtime_checkable
class HasTokens(Protocol):
    """Autoencoders with discrete latents, for token models of images."""

    shape: tuple[int, ...]  # of an image
    token_shape: tuple[int, ...]  # of one image's tokens
    num_codes: int  # tokens are 0 to num_codes - 1

    def tokenize(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) on [-1, 1] -> tokens (N, *token_shape)."""
        ...

    def detokenize(self, tokens: Tensor) -> Tensor:
        """Tokens (N, *token_shape) -> images (N, C, H, W)."""
        ...

    def log_likelihood_given(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Nats of images (N, C, H, W) given their tokens, as a density on [-1, 1]. -> (N,)."""
        ...

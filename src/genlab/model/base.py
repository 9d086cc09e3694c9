"""The contract between model families and the rest of genlab: what can be trained, what can also draw samples, and
what a model may have beside."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import wraps
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self, runtime_checkable

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from genlab.model.accumulation import Accumulation
from genlab.model.clipping import clip_gradients, clips_by_known_norm
from genlab.model.condition import Condition as Condition
from genlab.model.condition import Conditions
from genlab.model.freezing import freeze
from genlab.model.renamed_weights import rename_loaded
from genlab.seeding import RandomStream, derive_seed, seed_torch

# The data by their key: image in [-1, 1] (N, C, H, W), tokens (N, T + 1), or another, as ``DataSpec.key`` says; index
# (N,); and what the data say of each example, by the keys of conditions: label (N,), caption (N, L).
Batch = Mapping[str, Tensor]
OptimizerFactory = Callable[[Iterable[Any]], torch.optim.Optimizer]  # of parameters, or of groups of them


@dataclass
class Progress:
    """How far a run has come, in the three currencies of a budget. Kept in the checkpoint."""

    examples: int = 0  # training examples seen, over all ranks
    flops: float = 0.0  # floating-point operations of training, over all ranks
    seconds: float = 0.0  # spent training, evaluation and saving left out
    fraction: float = 0.0  # of the budget, in [0, 1]

    def logged(self) -> dict[str, float]:
        """The x axes of every curve: they stand in each row of metrics that is logged."""
        return {f"progress/{name}": float(getattr(self, name)) for name in ("examples", "flops", "seconds")}


class Unlogged(NamedTuple):
    """A number that a model logged in a step that no logger looks at."""

    value: Any
    hook: str | None  # in which it was logged
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class LearningRateSchedule(Protocol):
    """A multiple of the optimizer's learning rate, as a function of progress."""

    def scale(self, examples: int, fraction: float) -> float: ...


class Model(LightningModule, ABC):
    """What every family is: a LightningModule whose progress, randomness and averaged weights the rest of genlab knows.

    Networks are made in :meth:`configure_model` (which Lightning calls more than once: make them only if they are not
    there), so that a sharding strategy can place them. Everything else arrives built, through the constructor.
    """

    kinds: ClassVar[frozenset[str]]  # of data that it can be trained on: {"continuous"}, {"tokens"} or both
    key: str = "image"  # of a batch: where the data are; assembling a run sets what the data say
    gradient_clip_val: float | None = None  # of a model that makes its own optimizer steps; else the trainer has it

    def __init__(self, seed: int, schedule: LearningRateSchedule):
        super().__init__()
        self.seed = seed
        self.schedule = schedule
        self.progress = Progress()
        self.accumulation = Accumulation()
        self.elsewhere: dict[str, nn.Module] = {}  # parts that were trained elsewhere, by their place in the config
        self.freezing: Sequence[str] = ()  # patterns of the names of parameters that training leaves as they are
        # Is told the norm of a gradient that was clipped, and of which optimizer it is.
        self.sees_norm: Callable[[Tensor, Any], None] | None = None
        self.unlogged: dict[str, Unlogged] | None = None  # of a step that no logger looks at; None: one does
        self.step_began = 0.0  # on the clock of time.perf_counter; the wait for data belongs to the step

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "configure_model" in vars(cls):  # whatever a family makes is frozen before an optimizer or DDP looks at it
            cls.configure_model = _and_freeze(cls.configure_model)  # type: ignore[method-assign, assignment]

    @abstractmethod
    def configure_model(self) -> None: ...

    @abstractmethod
    def training_step(self, batch: Batch, batch_idx: int) -> Any: ...

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The training losses of a batch without dropout, as scalars by name: what validation averages."""

    def step_kind(self, batch_idx: int) -> str:
        """Of the training step that comes: steps of one kind, on batches of one shape, cost the same number of
        operations. Those of an optimizer count too: Muon multiplies matrices."""
        return "step" if self.at_optimizer_step(batch_idx) else "accumulation"

    def at_optimizer_step(self, batch_idx: int) -> bool:
        """Whether optimizers step on this batch: only then is a state worth averaging, saving or stopping at."""
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
        """What an exponential moving average is kept of, by the names of the state dict: what its use depends on, and
        what an average of is still what it was. Spectral norms of these weights are renewed after them."""
        return ((name, p) for name, p in self.named_parameters() if p.requires_grad)

    def frozen(self) -> Iterable[nn.Module]:
        """Parts that training leaves as they are."""
        return ()

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for part in (*self.frozen(), *self.elsewhere.values()):
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
        if self.unlogged is None or kwargs.get("on_epoch") or kwargs.get("prog_bar") or len(args) > 1:
            super().log(name, value, *args, **kwargs)
        else:
            kept = value.detach() if isinstance(value, Tensor) else value
            self.unlogged[name] = Unlogged(kept, self._current_fx_name, args, kwargs)

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
            super().log(name, number.value, *number.args, **number.kwargs)
        self._current_fx_name = now

    def latest(self) -> dict[str, Any]:
        """The numbers of training that were logged last, those that no logger looks at among them."""
        return dict(self.trainer.callback_metrics) | {name: kept.value for name, kept in (self.unlogged or {}).items()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["progress"] = asdict(self.progress)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        rename_loaded(checkpoint, self.state_dict())
        self.progress = Progress(**checkpoint["progress"])


def _and_freeze(configure_model: Callable[[Any], None]) -> Callable[[Any], None]:
    @wraps(configure_model)
    def configure_and_freeze(self: Model) -> None:
        configure_model(self)
        freeze(self, self.freezing)

    return configure_and_freeze


class GenerativeModel(Model):
    """A model that can also sample."""

    conditions: Conditions = Conditions()  # what samples can be asked for
    num_levels: int = 256  # gray levels of a pixel that its likelihood, if it has one, tells apart
    # Of the network that draws, so far, by rows: what ``sample`` costs on any machine. A guided one is two; what
    # decodes latents or tokens into images does not count.
    evaluations: int = 0

    @abstractmethod
    def sample(
        self, num_samples: int, condition: Condition | None = None, generator: RandomStream | None = None
    ) -> Tensor:
        """Draw from the model, in data space: images (N, C, H, W), nominally in [-1, 1] and not clamped; or tokens of
        text (N, T), without their prompt."""

    @property
    def num_classes(self) -> int | None:
        """Labels that samples can be asked for; None: it is told none."""
        return self.conditions.num_classes

    @property
    def empty_classes(self) -> Sequence[int]:
        """Those of them that no training example had: nobody is asked for these."""
        return self.conditions.empty_classes

    def stream(self, num_samples: int, generator: RandomStream | None) -> RandomStream:
        """``generator``, or where there is none, one that is seeded from torch's global generator."""
        if generator is None:
            return RandomStream.for_samples(int(torch.randint(2**62, ())), range(num_samples), self.device)
        assert len(generator) == num_samples
        return generator


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Every module in eval mode, and afterwards as it was."""
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
    """What can be shown while it is being written."""

    def generate(self, condition: Condition | None, generator: RandomStream) -> Iterator[Tensor]:
        """The tokens of ``len(generator)`` samples, one after the other: (N,) each."""
        ...


@runtime_checkable
class WritesText(Protocol):
    """A model of text says how long its samples are before there are any."""

    def continuation_length(self, prompt_length: int) -> int:
        """Tokens that ``sample`` gives after a prompt of so many; 0: without one."""
        ...


@runtime_checkable
class HasTokenLikelihood(Protocol):
    """What perplexity over overlapping windows needs."""

    def token_log_probs(self, sequences: Tensor) -> Tensor:
        """Nats of each token of text (N, 1 + T) given those before it. -> (N, T)."""
        ...


@runtime_checkable
class HasLatent(Protocol):
    """What reconstruction, interpolation, editing and latent diffusion need."""

    latent_shape: tuple[int, ...]  # of one example's z

    def encode(self, x: Tensor, condition: Condition | None = None) -> Tensor:
        """The most likely latent of data ``x`` (N, C, H, W). -> (N, *latent_shape)."""
        ...

    def decode(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """The most likely data of latents ``z`` (N, *latent_shape). -> (N, C, H, W)."""
        ...


@runtime_checkable
class HasPrior(Protocol):
    """One latent makes an image, and its prior says which are likely: what a path through latent space needs.

    GAN, VAE and flow. Not a VQ-VAE, whose prior is over codes, nor the hierarchical VAE, whose layers' priors depend on
    those above; nor diffusion, of which a latent is a whole trajectory.
    """

    latent_prior: Literal["standard normal"]
    latent_shape: tuple[int, ...]  # of one example's z

    def decode(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """The image of latents ``z`` (N, *latent_shape), a smooth function of them. -> (N, C, H, W)."""
        ...


@runtime_checkable
class Classifies(Protocol):
    """What knows the classes of images, and so which features of them matter: a judge of samples."""

    shape: tuple[int, ...]  # of an image

    def features(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) on [-1, 1] -> (N, D), each of about unit variance over the data."""
        ...

    def logits(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) on [-1, 1] -> (N, classes)."""
        ...


class HasTokens(Protocol):
    """An autoencoder whose latents are tokens: what a transformer over images learns."""

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

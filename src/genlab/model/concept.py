"""A new word for a trained diffusion model, of a few pictures: textual inversion (Gal et al. 2022) and DreamBooth (Ruiz
et al. 2022) with LoRA."""

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from genlab.errors import ConfigError, did_you_mean
from genlab.model.base import Condition, HasDenoiser, LearningRateSchedule, OptimizerFactory
from genlab.model.condition import Conditions
from genlab.model.condition_concept import TaughtCaption, taught
from genlab.model.condition_kind import Caption
from genlab.model.diffusion import Diffusion
from genlab.model.elsewhere import FROM_ELSEWHERE, leave_shared
from genlab.model.network.embedding import CaptionEmbedding, MoreWords
from genlab.model.parts import Adapter, Guidance
from genlab.seeding import RandomStream, derive_seed

_CAPTION = "caption"  # the condition with words
_AT_A_TIME = 64  # pictures of the class: always so, since samples of other batches differ by rounding


class Concept(Diffusion):
    """A frozen diffusion model from a run, ``base``, that learns one more word of captions from a few pictures.

    Without an adapter the vector of the word is all that is trained, and all that a checkpoint holds (textual
    inversion). With ``model/adapter=lora`` low-rank updates of the network are trained too, and with ``prior_weight``
    the loss has a second term (Ruiz et al. 2022, eq. 2): that of pictures which the base itself draws for
    ``prior_prompt``, a function of the seed, so that the rest of the class stays as it was.

    Objective, sampler and shape are those of the base, and so are its words; what else it is conditioned on is left
    out.
    """

    adapts_part = True
    has_begun: Tensor  # whether the word has its first vector: 0 or 1
    prior: Tensor | None = None  # (prior_samples, C, H, W), while the run is trained

    def __init__(
        self,
        base: Annotated[HasDenoiser, FROM_ELSEWHERE],  # the model of a trained run with captions
        word: str,  # a new one
        optimizer: OptimizerFactory,
        schedule: LearningRateSchedule,
        shape: Sequence[int],  # of an image: (C, H, W)
        told: Mapping[str, Any],  # the data's conditions by key, their ``spec.condition``
        prompts: Sequence[str] | None = None,  # captions of the pictures, in turn; None: the data's, or the word alone
        starts_like: str | None = None,  # a word whose vector it begins with; None: the mean of all
        adapter: Adapter | None = None,  # of the network; None: only the word is trained
        prior_weight: float = 0.0,  # of the loss of the class; 0: without
        prior_prompt: str | Sequence[str] | None = None,  # the class, such as "a circle", or several in turn
        prior_samples: int = 64,  # pictures of the class
        condition_dropout: float | None = None,  # share of examples without their caption; None: as in the base
        guidance: Guidance | None = None,  # None: that of the base
        compile: bool = False,  # the network, with torch.compile
        seed: int = 0,
    ):
        """Raises ValueError: the base has no captions, or an argument does not suit it or is outside its range."""
        assert isinstance(base, Diffusion)
        if tuple(base.shape) != tuple(shape):
            raise ValueError(
                f"model.base was trained on images of shape {tuple(base.shape)}, the data have {tuple(shape)}. Name "
                "another run, or change the data."
            )
        known = base.conditions.kinds.get(_CAPTION)
        if not isinstance(known, Caption):
            raise ValueError(
                "model.base was trained without captions, so it knows no words. Name a run of "
                "model.conditions=[caption]."
            )
        self._check_prior(prior_weight, prior_prompt, prior_samples, adapter)
        dropout = base.conditions.dropout if condition_dropout is None else condition_dropout
        if isinstance(dropout, Mapping):
            dropout = dropout.get(_CAPTION, 0.0)
        super().__init__(
            base.make_network,
            base.objective,
            base.sampler,
            optimizer,
            schedule,
            shape,
            {},
            [],
            dropout,
            guidance or base.guidance,  # type: ignore[arg-type]
            adapter,
            compile,
            seed,
        )
        self.caption = taught(known, word, prompts, told.get(_CAPTION))
        self.conditions = Conditions({_CAPTION: self.caption}, dropout)
        self.conditions.check_guided(self.guidance.strength)
        self.base, self.word, self.starts_like = base, word, starts_like
        if starts_like is not None and starts_like not in known.names[1:]:
            guess = did_you_mean(starts_like, list(known.names[1:]))
            raise ValueError(f"model.starts_like={starts_like}: the base does not know this word.{guess}")
        self.prior_weight, self.prior_samples = prior_weight, prior_samples
        self.prior_captions: Tensor | None = None  # (how many prompts, length)
        if prior_prompt is not None:
            reads = self.caption if known.tokenized else known
            classes = [prior_prompt] if isinstance(prior_prompt, str) else prior_prompt
            try:
                self.prior_captions = torch.cat([reads.read(each) for each in classes])
            except ValueError as error:
                raise ValueError(f"model.prior_prompt: {error}") from error
        self.register_buffer("has_begun", torch.zeros(()))

    @staticmethod
    def _check_prior(weight: float, prompt: str | Sequence[str] | None, samples: int, adapter: Adapter | None) -> None:
        if not 0 <= weight < math.inf:
            raise ValueError(f"model.prior_weight={weight} must be finite and at least 0.")
        if samples < 1:
            raise ValueError(f"model.prior_samples={samples} must be 1 or more.")
        if prompt is not None and not prompt:
            raise ValueError("model.prior_prompt is empty. Name the class, such as model.prior_prompt='a circle'")
        if weight and prompt is None:
            raise ValueError(
                f"model.prior_weight={weight} needs the caption of the class that is to stay as it is, such as "
                "model.prior_prompt='a circle'"
            )
        if weight and adapter is None:
            raise ValueError(
                f"model.prior_weight={weight}: only the vector of the word is trained, so the class stays as it is. "
                "Add model/adapter=lora, or use model.prior_weight=0"
            )

    def new_network(self) -> nn.Module:
        """Modules of its own with the tensors of the base's network, the new word and the adapter."""
        self.base.configure_model()
        theirs = self.base.network
        shared = [*theirs.parameters(), *theirs.buffers()]
        network = copy.deepcopy(theirs, {id(tensor): tensor for tensor in shared})
        if self.adapter is not None:
            self.adapter.adapt(network)
        self.base.requires_grad_(False).eval()
        add_words(network, 1)
        known = {id(tensor) for tensor in shared}
        tensors = (*network.named_parameters(), *network.named_buffers())
        leave_shared(network, [name for name, tensor in tensors if id(tensor) in known])
        return network

    def placed(self, network: nn.Module) -> nn.Module:
        if self.device_mesh is not None:
            raise ConfigError("model=concept: what it trains is too small to be sharded. Use trainer.strategy=ddp")
        return super().placed(network)

    def frozen(self) -> Iterable[nn.Module]:
        return (self.base,)

    def on_fit_start(self) -> None:
        """Where the run is new, the word gets its first vector, of the base's weights, which are there by now."""
        if self.has_begun:
            return
        for embedding in word_embeddings(self.network):
            rows = embedding.weight.detach()
            like = (
                rows[1:].mean(dim=0) if self.starts_like is None else rows[self.caption.names.index(self.starts_like)]
            )
            embedding.added.data.copy_(like)
        self.has_begun.fill_(1)

    def on_train_start(self) -> None:
        if self.prior_weight:
            self.prior = self.drawn_prior()
        super().on_train_start()

    @property
    def prior_seed(self) -> int:
        """Of the pictures of the class."""
        return derive_seed(self.seed, 0)

    @torch.no_grad()
    def drawn_prior(self) -> Tensor:
        """Pictures (prior_samples, C, H, W) of the class, drawn by the base: the same on every rank, and after a
        restart."""
        parts = []
        for first in range(0, self.prior_samples, _AT_A_TIME):
            indices = range(first, min(first + _AT_A_TIME, self.prior_samples))
            stream = RandomStream.for_samples(self.prior_seed, indices, self.device)
            told = self._told(torch.tensor(indices, device=self.device))
            parts.append(self.base.sample(len(indices), told, stream).clamp(-1, 1))
        return torch.cat(parts)

    def _told(self, rows: Tensor) -> Condition:
        """Captions of the pictures of the class that have these numbers."""
        assert self.prior_captions is not None
        return {_CAPTION: self.prior_captions.to(rows.device)[rows % len(self.prior_captions)]}

    def loss(self, x: Tensor, condition: Condition | None, progress: float) -> Tensor:
        """Of ``x`` (N, C, H, W), with some captions dropped; and of as many pictures of the class, with a prior. A
        scalar."""
        loss = super().loss(x, condition, progress)
        if self.prior is None:
            return loss
        rows = torch.randint(len(self.prior), (len(x),), device=x.device)
        return loss + self.prior_weight * super().loss(self.prior[rows], self._told(rows), progress)

    def teach(self, model: nn.Module) -> None:
        """Give its word to ``model``, a diffusion model on the same base, after the words that this one has. Raises
        ValueError: it has it, or takes no captions."""
        caption = model.conditions.kinds.get(_CAPTION) if isinstance(model, Diffusion) else None
        if not isinstance(model, Diffusion) or not isinstance(caption, Caption):
            raise ValueError("the model is not conditioned on captions")
        if self.word in caption.names:
            raise ValueError(f"the model knows the word {self.word} already")
        add_words(model.network, 1)
        for own, learned in zip(word_embeddings(model.network), word_embeddings(self.network), strict=True):
            own.added.data[-1] = learned.added.data[-1]
        names = (*caption.names, self.word)
        known = TaughtCaption(caption.size + 1, caption.length, names, tuple(caption.examples))
        model.conditions = Conditions({**model.conditions.kinds, _CAPTION: known}, model.conditions.dropout)


def word_embeddings(network: nn.Module) -> list[MoreWords]:
    """Those of a network that has been taught words."""
    return [module for module in network.modules() if isinstance(module, MoreWords)]


def add_words(network: nn.Module, count: int) -> None:
    """Give ``network`` vectors, 0, for ``count`` words more than it knows. Raises ConfigError: it embeds none."""
    found = [module for module in network.modules() if isinstance(module, CaptionEmbedding)]
    if not found:
        raise ConfigError(
            f"model.base: its network, a {type(network).__name__}, has no embedding of words that it has trained. Name "
            "another run."
        )
    for module in found:
        weight = module.words.weight
        module.words = MoreWords(module.words, weight.new_zeros(count, weight.shape[1]))  # type: ignore[assignment, arg-type]

"""Captioning: an image encoder, and a transformer that writes what it sees, word by word."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from genlab.model.base import Batch, Condition, GenerativeModel, LearningRateSchedule, OptimizerFactory
from genlab.model.condition import Conditions, kinds_of
from genlab.model.condition_kind import Caption
from genlab.model.condition_picture import KEY, Picture
from genlab.model.guidance.none import NoGuidance
from genlab.model.optimizer.groups import parameter_groups
from genlab.model.parts import CaptionDecoder, ImageEncoder, PredictionGuidance, SequenceSearch, TokenSampler
from genlab.model.sharding import shard
from genlab.seeding import RandomStream

CAPTION = "caption"  # of batches, and of the data's conditions
END = 0  # what follows the last word; captions in batches are filled up with it


class Captioner(GenerativeModel):
    """Maximum likelihood of each word of a caption given the picture and the words before it (Vinyals et al. 2015, eq.
    2). Losses are nats a token; a caption's tokens are its words, and its end where it is shorter than the longest.

    The picture is the condition of samples, ``image`` (N, C, H, W) on [-1, 1], and a sample is a caption (N, L),
    numbers of words padded with 0. Without a picture it writes captions of no picture in particular, which it has
    learned if ``condition_dropout`` is above 0. Examples without a caption are not trained on.
    """

    kinds = frozenset({"continuous"})
    encoder: Any  # an ImageEncoder and an nn.Module at once: a type that Python cannot say; made in configure_model
    decoder: Any  # likewise a CaptionDecoder
    nothing: nn.Parameter  # (1, 1, width): what is seen of no picture, in all places

    def __init__(
        self,
        encoder: Callable[..., ImageEncoder],
        decoder: Callable[..., CaptionDecoder],
        sampler: TokenSampler | SequenceSearch,
        optimizer: OptimizerFactory,
        schedule: LearningRateSchedule,
        shape: Sequence[int],  # of an image (C, H, W)
        told: Mapping[
            str, Any
        ],  # the data's conditions by key, their ``spec.condition``, of which captions are learned
        condition_dropout: float = 0.0,  # share of training examples without their picture
        word_dropout: float = 0.0,  # share of the words before that the decoder does not see in training
        guidance: PredictionGuidance | None = None,  # None: captions by the conditional model itself
        seed: int = 0,
    ):
        """``word_dropout``: words that are not seen have to be read off the picture, so that the decoder relies less on
        which words follow which in training (Bowman et al. 2016, section 3.1). ``guidance``: a strength of w writes by
        p(word | picture)^w / p(word)^(w - 1), so that what a picture shows counts more than what captions usually say
        (Kornblith et al. 2023, eq. 3); it needs ``condition_dropout``.

        Raises ValueError: the data have no captions; a share outside [0, 1]; guidance of a model that has not learned
        captions of no picture.
        """
        super().__init__(seed, schedule)
        if not 0 <= word_dropout <= 1:
            raise ValueError(f"model.word_dropout={word_dropout} must be between 0 and 1.")
        self.word_dropout = word_dropout
        if not told.get(CAPTION) or told[CAPTION].get("size") is None:
            raise ValueError(
                "a captioner needs pictures with captions, and the data have none. Use data with captions, such as "
                "data=shapes."
            )
        caption = kinds_of(told, [CAPTION])[CAPTION]
        assert isinstance(caption, Caption)
        self.caption = caption
        self.conditions = Conditions({KEY: Picture(tuple(shape))}, condition_dropout)
        self.guidance = guidance or NoGuidance()
        self.conditions.check_guided(self.guidance.strength)
        self.make_encoder, self.make_decoder = encoder, decoder
        self.sampler, self.make_optimizer = sampler, optimizer
        self.shape = tuple(shape)
        for name in ("encoder", "decoder"):
            self.register_module(name, None)

    def configure_model(self) -> None:
        if self.decoder is not None:
            return
        encoder: Any = self.make_encoder()
        decoder: Any = self.make_decoder(
            num_tokens=self.caption.size + 1,  # and the start
            num_outputs=self.caption.size,
            max_length=self.caption.length,
            seen_length=encoder.length,
            seen_width=encoder.width,
        )
        self.nothing = nn.Parameter(torch.zeros(1, 1, encoder.width))
        if self.device_mesh is not None:
            shard(encoder, self.device_mesh)
            shard(decoder, self.device_mesh)
        self.encoder, self.decoder = encoder, decoder

    def configure_optimizers(self) -> Optimizer:
        return self.make_optimizer(parameter_groups(self))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.loss(batch[CAPTION], self.conditions.dropped(self.conditions.of(batch)), self.word_dropout)
        self.log("train/loss", loss, on_step=True, batch_size=len(batch["index"]))
        return loss

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """With every picture in place."""
        return {"loss": self.loss(batch[CAPTION], self.conditions.of(batch))}

    def loss(self, captions: Tensor, condition: Condition | None, word_dropout: float = 0.0) -> Tensor:
        nats, counts = self._nats(captions, self.seen(condition, len(captions)), word_dropout)
        return nats.sum() / counts.sum().clamp_min(1)

    def seen(self, condition: Condition | None, rows: int) -> Tensor:
        """What the decoder sees of pictures: (N, S, width)."""
        images = None if condition is None else condition.get(KEY)
        if images is None:
            images = self.conditions.kinds[KEY].nothing(rows, self.nothing.device)
        images = images.to(self.nothing.device)
        empty = self.conditions.kinds[KEY].is_nothing(images)[:, None, None]
        return torch.where(empty, self.nothing, self.encoder(images.nan_to_num()))

    def _nats(self, captions: Tensor, seen: Tensor, word_dropout: float = 0.0) -> tuple[Tensor, Tensor]:
        """Minus the log-probability of each token of captions (N, L), 0 after the end, and how many tokens each has:
        none, if it is empty. -> (N, L), (N,)."""
        start = captions.new_full((len(captions), 1), self.caption.size)
        before = torch.cat([start, captions[:, :-1]], dim=1)
        read = before
        if word_dropout > 0:
            dropped = torch.rand(before.shape, device=before.device) < word_dropout
            read = before.masked_fill(dropped, self.caption.size)  # the token of the start stands for any word
        logits = self.decoder(read, seen)
        nats = F.cross_entropy(logits.transpose(1, 2).float(), captions, reduction="none")
        written = (before != END) & (captions[:, :1] != END)  # each word, and the end after the last
        return nats * written, written.sum(dim=1)

    @torch.no_grad()
    def caption_log_probs(self, captions: Tensor, condition: Condition | None) -> Tensor:
        """Nats of each token of captions (N, L) given pictures: of each word and of the end, 0 after it. -> (N, L).

        The caller puts the model in eval mode. Raises ValueError: a word or a picture that the model does not know.
        """
        self.caption.check(captions)
        self.conditions.check(condition)
        return -self._nats(captions, self.seen(condition, len(captions)))[0]

    @torch.no_grad()
    def sample(
        self, num_samples: int, condition: Condition | None = None, generator: RandomStream | None = None
    ) -> Tensor:
        """Captions (N, L) int64 of the pictures of ``condition``, words from 1 on, padded with 0.

        The caller puts the model in eval mode. Without a generator, one is seeded from torch's global generator; a
        search needs none.

        Raises:
            ValueError: pictures of another shape than the model was trained on.
        """
        generator = self.stream(num_samples, generator)
        if isinstance(self.sampler, SequenceSearch):
            self.conditions.check(condition)
            return self._searched(self.sampler, self._seen_to_write(condition, num_samples))
        captions = torch.zeros(num_samples, self.caption.length, dtype=torch.long, device=self.device)
        for place, words in enumerate(self._drawn(self.sampler, condition, generator)):
            captions[:, place] = words
        return captions

    def _drawn(self, sampler: TokenSampler, condition: Condition | None, generator: RandomStream) -> Iterator[Tensor]:
        """The words of ``len(generator)`` captions, one after the other: (N,) each, 0 after the end, until all have
        ended."""
        self.conditions.check(condition)
        rows, length = len(generator), self.caption.length
        uniform = generator.rand(length).unbind(dim=1)
        seen = self._seen_to_write(condition, rows)
        cache = self.decoder.cache(len(seen), length)
        before = torch.full((rows, length + 1), -1, device=self.device)
        words = before.new_full((rows,), self.caption.size)
        ended = torch.zeros(rows, dtype=torch.bool, device=self.device)
        for place in range(length):
            logits = self._next(words, seen, cache)
            words = sampler(logits, before[:, :place], uniform[place]).masked_fill(ended, END)
            before[:, place] = words
            ended = ended | (words == END)
            yield words
            if self.device_mesh is None and bool(ended.all()):  # processes that share weights take equal steps
                return

    def _searched(self, sampler: SequenceSearch, seen: Tensor) -> Tensor:
        cache = self.decoder.cache(len(seen), self.caption.length)
        told = self._guided()

        def step(words: Tensor, rows: Tensor) -> Tensor:
            nonlocal seen
            if told:
                rows = torch.cat([rows, rows + len(seen) // 2])
            cache.reorder(rows)
            seen = seen.index_select(0, rows)
            return self._next(words, seen, cache)

        rows = len(seen) // (2 if told else 1)
        first = self._next(torch.full((rows,), self.caption.size, device=seen.device), seen, cache)
        return sampler.search(first, step, self.caption.length, END, self.device_mesh is None)

    def _guided(self) -> bool:
        return self.guidance.strength != 1

    def _seen_to_write(self, condition: Condition | None, rows: int) -> Tensor:
        """What the decoder sees: (N, S, width); with guidance that of no picture first, 2N rows."""
        seen = self.seen(condition, rows)
        return torch.cat([self.nothing.expand_as(seen), seen]) if self._guided() else seen

    def _next(self, words: Tensor, seen: Tensor, cache: Any) -> Tensor:
        """Logits (N, V) of what follows ``words`` (N,)."""
        self.evaluations += len(seen)
        if not self._guided():
            return self.decoder(words[:, None], seen, cache)[:, -1]  # type: ignore[no-any-return]
        untold, told = self.decoder(words.repeat(2)[:, None], seen, cache)[:, -1].float().chunk(2)
        return self.guidance.mix(untold.log_softmax(dim=-1), told.log_softmax(dim=-1))

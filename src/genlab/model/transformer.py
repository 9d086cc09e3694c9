"""Autoregressive transformers over text, pixels of images, or a tokenizer's codes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from genlab.model.base import (
    COUNTED,
    Batch,
    Condition,
    GenerativeModel,
    HasTokens,
    LearningRateSchedule,
    OptimizerFactory,
    leading_away,
)
from genlab.model.condition import Conditions
from genlab.model.cross_entropy import counted_nats, cross_entropy, nats
from genlab.model.elsewhere import FROM_ELSEWHERE
from genlab.model.guidance.none import NoGuidance
from genlab.model.optimizer.groups import parameter_groups
from genlab.model.parts import Adapter, PredictionGuidance, TokenNetwork, TokenSampler
from genlab.model.representation import Reading, block_output
from genlab.model.sharding import shard
from genlab.model.tokens import TokenView, dequantized_to_batch, made, view_of
from genlab.seeding import RandomStream


class Transformer(GenerativeModel):
    """Maximum likelihood of each token given those before it. Losses are nats a token.

    Images are sequences that begin with tokens of their condition; see :mod:`genlab.model.tokens`.
    """

    kinds = frozenset({"continuous", "tokens"})
    counts_some = True
    pixel_levels = 256  # gray levels in its likelihood
    reading: ClassVar[Reading] = Reading("blocks of the transformer", layer=0.5)
    token_reading: ClassVar[Reading] = reading
    network: Any  # a TokenNetwork and an nn.Module at once: a type that Python cannot say; made in configure_model
    view: TokenView

    def __init__(
        self,
        network: Callable[..., TokenNetwork],
        sampler: TokenSampler,
        optimizer: OptimizerFactory,
        schedule: LearningRateSchedule,
        shape: Sequence[int],  # of an image (C, H, W); of text (T,), the tokens that are seen at once
        vocab_size: int | None,  # of text; None: images
        start_token: int | None,  # first token of text without a prompt
        told: Mapping[str, Any],  # the data's conditions by key, their ``spec.condition``
        tokenizer: Annotated[
            HasTokens | None, FROM_ELSEWHERE
        ] = None,  # the model of a trained run, whose codes stand for images; None: pixels
        conditions: Sequence[str] | None = None,  # those that the model uses, e.g. [label,caption]; None: the label
        condition_dropout: float | Mapping[str, float] = 0.1,  # share of training examples without their condition
        guidance: PredictionGuidance | None = None,  # None: samples of the conditional model itself
        sample_length: int | None = None,  # tokens of a sample of text; None: as many as are seen at once
        adapter: Adapter | None = None,  # trained in place of the network's own weights; None: these are trained
        compile: bool = False,  # the network, with torch.compile
        seed: int = 0,
    ):
        """Raises ValueError: an argument is outside its range, or a tokenizer of images of another shape."""
        super().__init__(seed, schedule)
        self.conditions = Conditions.told(told, conditions, condition_dropout)
        self.guidance = guidance or NoGuidance()
        self.conditions.check_guided(self.guidance.strength)
        if sample_length is not None and sample_length < 1:
            raise ValueError(f"model.sample_length={sample_length} must be 1 or more.")
        self.make_network, self.sampler, self.make_optimizer = network, sampler, optimizer
        self.shape, self.vocab_size, self.start_token = tuple(shape), vocab_size, start_token
        self.sample_length, self.compile_network = sample_length, compile
        self.tokenizer, self.adapter = tokenizer, adapter
        self.likelihood_kind: Literal["exact", "bound"] = "exact" if tokenizer is None else "bound"
        self.register_module("network", None)

    def configure_model(self) -> None:
        if self.network is None:
            self.network = self.placed(self.new_network())

    def new_network(self) -> Any:
        """With random weights, and the adapter; and the view of what it predicts."""
        made(self.tokenizer)
        self.view = view_of(self.shape, self.vocab_size, self.start_token, self.conditions, self.tokenizer)
        network: Any = self.make_network(
            num_tokens=self.view.num_tokens,
            num_outputs=self.view.num_outputs,
            max_length=self.view.given_length - 1 + self.view.length,
            causal=True,
        )
        if self.adapter is not None:
            self.adapter.adapt(network)
        return network

    def placed(self, network: Any) -> Any:
        """Compiled, and sharded, where that is asked for."""
        if self.compile_network:
            network.compile()
        if self.device_mesh is not None:
            shard(network, self.device_mesh)
        return network

    def frozen(self) -> Iterable[nn.Module]:
        return () if self.tokenizer is None else (self.tokenizer,)  # type: ignore[return-value]

    def configure_optimizers(self) -> Optimizer:
        return self.make_optimizer(parameter_groups(self.network))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if COUNTED in batch:
            total, number = self.counted_loss(batch)
            self.log("train/loss", total / number, on_step=True, batch_size=len(batch["index"]))
            return self.accumulation.shared(total, number, batch[COUNTED].numel())
        loss = self.loss(batch, self.conditions.dropped(self.conditions.of(batch)))
        self.log("train/loss", loss, on_step=True, batch_size=len(batch["index"]))
        return loss

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """With every condition in place. Of data that say which predictions count, their mean."""
        if COUNTED in batch:
            total, number = self.counted_loss(batch)
            return {"loss": total / number}
        return {"loss": self.loss(batch, self.conditions.of(batch))}

    def counted_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The nats of all predictions of a batch that count, and how many these are."""
        tokens, counted, segment = batch[self.view.key], batch[COUNTED], batch.get("segment")
        given = {} if segment is None else {"segment": segment[:, :-1]}
        return counted_nats(self.network(tokens[:, :-1], **given), tokens[:, 1:], counted), counted.sum()

    def loss(self, batch: Batch, condition: Condition | None) -> Tensor:
        sequences = self.view.sequences(batch[self.view.key], condition)
        given = self.view.given_length
        logits = self.network(sequences[:, :-1])[:, given - 1 :]
        return cross_entropy(logits, sequences[:, given:])

    def outputs_of_random_inputs(self, generator: torch.Generator) -> Tensor:
        """Logits of up to 16 tokens: (1, T, num_outputs)."""
        tokens = torch.randint(self.view.num_outputs, (1, min(16, self.view.length)), generator=generator)
        return self.network(tokens.to(self.device))  # type: ignore[no-any-return]

    def represent(self, x: Tensor, layer: float, noise_level: float) -> Tensor:
        """What a block makes of the tokens of images (N, C, H, W), their mean (Chen et al. 2020, image GPT, section
        2.3); ``layer``: depth in [0, 1]. -> (N, D) float32."""
        sequences = self.view.sequences(x, None)[:, :-1]
        return block_output(self.network, lambda: self.network(sequences), layer)

    def represent_tokens(self, tokens: Tensor, layer: float) -> Tensor:
        """What a block makes of each token of text (N, T), T at most as many as are seen at once. -> (N, T, D)
        float32."""
        return block_output(self.network, lambda: self.network(tokens), layer, mean=False).float()

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, condition: Condition | None = None) -> Tensor:
        """Nats of each example: of images (N, C, H, W) on [-1, 1], dequantized or not, as a density that is constant on
        each level's bin (over codes: a bound of it); of text (N, 1 + T), of all tokens but the first. -> (N,).

        The caller puts the model in eval mode, or dropout is on.

        Raises:
            ValueError: a condition that the model does not know.
        """
        self.conditions.check(condition)
        data = dequantized_to_batch(x)
        sequences = self.view.sequences(data, condition)
        return self.view.log_density(self.token_log_probs(sequences).sum(dim=1), x, sequences)

    @torch.no_grad()
    def token_log_probs(self, sequences: Tensor) -> Tensor:
        """Nats of each token of ``sequences`` (N, P + L), but for those that are given, in float32. -> (N, L)."""
        given = self.view.given_length
        return -nats(self.network(sequences[:, :-1])[:, given - 1 :], sequences[:, given:])

    def avoid(self, negative: Condition) -> None:
        self.negative = leading_away(self.guidance, negative)

    @torch.no_grad()
    def sample(
        self, num_samples: int, condition: Condition | None = None, generator: RandomStream | None = None
    ) -> Tensor:
        """Images (N, C, H, W) in [-1, 1], or text (N, T): the tokens after ``condition["prompt"]``, if there is one.

        The caller puts the model in eval mode. Without a condition, samples are unconditional. Without a generator, one
        is seeded from torch's global generator.

        Raises:
            ValueError: a condition or a token that the model does not know.
        """
        generator = self.stream(num_samples, generator)
        return self.view.data(torch.stack(list(self.generate(condition, generator)), dim=1))

    @torch.no_grad()
    def complete(self, x: Tensor, unknown: Tensor, condition: Condition | None, generator: RandomStream) -> Tensor:
        """Images whose ``unknown`` places are drawn; see :class:`genlab.model.base.CompletesImages`. Each is drawn
        given the places before it, known or drawn; those that come later are not seen."""
        tokens = self.view.sequences(x, None)[:, self.view.given_length :]
        forced = tokens.masked_fill(self.view.touched(unknown), -1)  # type: ignore[attr-defined]
        drawn = [token for token, _ in self.drawn(condition, generator, forced)]
        return self.view.data(torch.stack(drawn, dim=1))

    @torch.no_grad()
    def generate(self, condition: Condition | None, generator: RandomStream) -> Iterator[Tensor]:
        """The tokens of ``len(generator)`` samples, one after the other: (N,) each."""
        return (token for token, _ in self.drawn(condition, generator))

    @torch.no_grad()
    def drawn(
        self, condition: Condition | None, generator: RandomStream, forced: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The tokens of ``len(generator)`` samples, one after the other, (N,) each, and the logits that each was drawn
        from, (N, V), before the sampler changes them. ``forced``: tokens (N, L) that stand where they are not -1.

        Keys and values are cached, so that a token costs one pass over one token. Text longer than the network's
        context, including padding, continues from the second half of the context.
        """
        rows = len(generator)
        beginning, padding = self.view.beginning(rows, condition, self.device)
        length = self.continuation_length(beginning.shape[1]) if self.view.open_ended else self.view.length
        uniform = generator.rand(length).unbind(dim=1)
        guided = self.guidance.strength != 1 and len(self.conditions.kinds) > 0
        if guided:
            away = self.view.given(rows, self.avoided(rows), self.device)
            beginning = torch.cat([beginning, away])  # what guidance leads away from: told nothing, as a rule
        read = beginning.shape[1]  # tokens so far
        text = beginning.new_empty(len(beginning), read + length)
        text[:, :read] = beginning
        before = text[:rows] if padding is None else _unpadded(text, padding)
        seen_at_once = self.view.given_length - 1 + self.view.length
        cache: Any = None
        for i in range(length):
            if cache is None or cache.used == seen_at_once:
                kept = seen_at_once if cache is None else max(1, seen_at_once // 2)
                dropped = max(0, read - kept)
                seen = None if padding is None else (padding - dropped).clamp(min=0)
                cache = self.network.cache(len(text), min(seen_at_once, text.shape[1]))
                logits = self.network(text[:, dropped:read], seen, cache)[:, -1]
            else:
                logits = self.network(text[:, read - 1 : read], seen, cache)[:, -1]
            self.evaluations += len(text)
            if guided:
                told, untold = logits.float().chunk(2)
                logits = self.guidance.mix(untold, told)
            token = self.sampler(logits, before[:, :read], uniform[i])
            if forced is not None:
                token = torch.where(forced[:, i] >= 0, forced[:, i], token)
            text[:, read] = token.repeat(2) if guided else token
            if padding is not None:
                before[:, read] = token
            read += 1
            yield token, logits

    def continuation_length(self, prompt_length: int) -> int:
        """Tokens of a sample of text."""
        return self.sample_length or self.shape[0]


def _unpadded(history: Tensor, padding: Tensor) -> Tensor:
    """Tokens (N, T), with -1 in place of the first ``padding`` (N,) of each row."""
    return history.masked_fill(torch.arange(history.shape[1], device=history.device) < padding[:, None], -1)

"""Masked generation: a bidirectional network that predicts the hidden tokens of a sequence from the others.

Of images it is MaskGIT (Chang et al. 2022), of text masked diffusion (Sahoo et al. 2024; Shi et al. 2024): one model.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from genlab.model.base import (
    Batch,
    Condition,
    GenerativeModel,
    HasTokens,
    LearningRateSchedule,
    OptimizerFactory,
    leading_away,
)
from genlab.model.condition import Conditions
from genlab.model.cross_entropy import nats
from genlab.model.elsewhere import FROM_ELSEWHERE
from genlab.model.guidance.none import NoGuidance
from genlab.model.optimizer.groups import parameter_groups
from genlab.model.parts import PredictionGuidance, TokenNetwork, UnmaskingSampler
from genlab.model.representation import Reading, block_output
from genlab.model.sharding import shard
from genlab.model.tokens import TokenView, dequantized_to_batch, made, view_of
from genlab.seeding import RandomStream, derive_seed


class Masked(GenerativeModel):
    """Cross-entropy of hidden tokens given the others, of which a random share is hidden.

    With ``likelihood_weighting`` the share is uniform and each sequence counts alike, however much of it is hidden: the
    loss then bounds the likelihood (Sahoo et al. 2024, eq. 10). Without, the share is cos(pi u / 2), u uniform, and
    each hidden token counts alike (Chang et al. 2022, section 3.1). Losses are nats a token. Given
    tokens are never hidden: an image's condition, the first token of text.
    """

    kinds = frozenset({"continuous", "tokens"})
    pixel_levels = 256  # gray levels in its likelihood
    reading: ClassVar[Reading] = Reading("blocks of the transformer", layer=0.5)
    token_reading: ClassVar[Reading] = reading
    likelihood_kind: ClassVar[Literal["bound"]] = "bound"
    network: Any  # a TokenNetwork and an nn.Module at once: a type that Python cannot say; made in configure_model
    view: TokenView

    def __init__(
        self,
        network: Callable[..., TokenNetwork],
        sampler: UnmaskingSampler,
        optimizer: OptimizerFactory,
        schedule: LearningRateSchedule,
        shape: Sequence[int],  # of an image (C, H, W); of text (T,), the tokens that are seen at once
        vocab_size: int | None,  # of text; None: images
        start_token: int | None,  # first token of text without a prompt
        told: Mapping[str, Any],  # the data's conditions by key, their ``spec.condition``
        tokenizer: Annotated[
            HasTokens | None, FROM_ELSEWHERE
        ] = None,  # the model of a trained run, whose codes stand for images; None: pixels
        likelihood_weighting: bool = True,
        conditions: Sequence[str] | None = None,  # those that the model uses, e.g. [label,caption]; None: the label
        condition_dropout: float | Mapping[str, float] = 0.1,  # share of training examples without their condition
        guidance: PredictionGuidance | None = None,  # None: samples of the conditional model itself
        num_likelihood_samples: int = 4,  # shares of hidden tokens that the bound is averaged over
        compile: bool = False,  # the network, with torch.compile
        seed: int = 0,
    ):
        """Raises ValueError: an argument is outside its range, or a tokenizer of images of another shape."""
        super().__init__(seed, schedule)
        self.conditions = Conditions.told(told, conditions, condition_dropout)
        self.guidance = guidance or NoGuidance()
        self.conditions.check_guided(self.guidance.strength)
        if num_likelihood_samples < 1:
            raise ValueError(f"model.num_likelihood_samples={num_likelihood_samples} must be 1 or more.")
        self.make_network, self.sampler, self.make_optimizer = network, sampler, optimizer
        self.shape, self.vocab_size, self.start_token = tuple(shape), vocab_size, start_token
        self.tokenizer, self.likelihood_weighting = tokenizer, likelihood_weighting
        self.num_likelihood_samples, self.compile_network = num_likelihood_samples, compile
        self.register_module("network", None)

    def configure_model(self) -> None:
        if self.network is not None:
            return
        made(self.tokenizer)
        self.view = view_of(self.shape, self.vocab_size, self.start_token, self.conditions, self.tokenizer)
        network: Any = self.make_network(
            num_tokens=self.view.num_tokens + 1,  # the last one is the mask token
            num_outputs=self.view.num_outputs,
            max_length=self.view.given_length + self.view.length,
            causal=False,
        )
        if self.compile_network:
            network.compile()
        if self.device_mesh is not None:
            shard(network, self.device_mesh)
        self.network = network

    def frozen(self) -> Iterable[nn.Module]:
        return () if self.tokenizer is None else (self.tokenizer,)  # type: ignore[return-value]

    def configure_optimizers(self) -> Optimizer:
        return self.make_optimizer(parameter_groups(self.network))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.loss(batch, self.conditions.dropped(self.conditions.of(batch)))
        self.log("train/loss", loss, on_step=True, batch_size=len(batch["index"]))
        return loss

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """With every condition in place. What is hidden is drawn from torch's global generator: seed it."""
        return {"loss": self.loss(batch, self.conditions.of(batch))}

    def loss(self, batch: Batch, condition: Condition | None) -> Tensor:
        sequences = self.view.sequences(batch[self.view.key], condition)
        count, length = len(sequences), self.view.length
        spread = (torch.arange(count, device=self.device) + torch.rand((), device=self.device)) / count  # evenly
        share = spread if self.likelihood_weighting else torch.cos(math.pi / 2 * spread)
        hidden_count = (share * length).ceil().long().clamp(1, length)
        hidden = torch.rand(count, length, device=self.device).argsort(dim=1) < hidden_count[:, None]
        nats = self.hidden_nats(sequences, hidden)
        if self.likelihood_weighting:
            return (nats.sum(dim=1) / hidden_count).mean()
        return nats.sum() / hidden.sum()

    def hidden_nats(self, sequences: Tensor, hidden: Tensor) -> Tensor:
        """Minus the log-probability of each hidden token, 0 where nothing is. (N, P + L), (N, L) -> (N, L)."""
        given = self.view.given_length
        targets = sequences[:, given:]
        logits = self.logits(sequences[:, :given], targets, hidden)
        return torch.where(hidden, nats(logits, targets), 0.0)

    def logits(self, given: Tensor, tokens: Tensor, hidden: Tensor) -> Tensor:
        """Of all tokens but those that are given: (N, P), (N, L), (N, L) -> (N, L, V)."""
        shown = torch.where(hidden, self.view.num_tokens, tokens)
        return self.network(torch.cat([given, shown], dim=1))[:, given.shape[1] :]

    def represent(self, x: Tensor, layer: float, noise_level: float) -> Tensor:
        """What a block makes of the tokens of images (N, C, H, W), their mean (Chen et al. 2020, image GPT, section
        2.3); ``layer``: depth in [0, 1]. None of them is hidden. -> (N, D) float32."""
        sequences = self.view.sequences(x, None)
        return block_output(self.network, lambda: self.network(sequences), layer)

    def represent_tokens(self, tokens: Tensor, layer: float) -> Tensor:
        """What a block makes of each token of text (N, T), T at most as many as are seen at once. -> (N, T, D)
        float32."""
        return block_output(self.network, lambda: self.network(tokens), layer, mean=False).float()

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, condition: Condition | None = None) -> Tensor:
        """Nats of each example, a bound: what its tokens cost if they are revealed one by one in a random order
        (Hoogeboom et al. 2022, eq. 5), estimated from ``num_likelihood_samples`` steps of such orders.

        Images (N, C, H, W) on [-1, 1], as a density that is constant on each level's bin; of text (N, 1 + T), all
        tokens but the first. What is hidden is a function of (seed, step, example), so a mean over many examples needs
        few steps of each. -> (N,).

        Raises:
            ValueError: a condition that the model does not know.
        """
        self.conditions.check(condition)
        sequences = self.view.sequences(dequantized_to_batch(x), condition)
        length = sequences.shape[1] - self.view.given_length
        nats = torch.zeros(len(sequences), device=x.device)
        names = [derive_seed(self.seed, *row) for row in sequences.tolist()]
        for k in range(self.num_likelihood_samples):
            stream = RandomStream([derive_seed(name, k) for name in names], x.device)
            place = (k + stream.rand()) / self.num_likelihood_samples  # of the step, evenly spread
            hidden_count = ((place * length).long() + 1).clamp(max=length)
            hidden = stream.rand(length).argsort(dim=1) < hidden_count[:, None]
            nats += self.hidden_nats(sequences, hidden).sum(dim=1) * length / hidden_count
        return self.view.log_density(-nats / self.num_likelihood_samples, x, sequences)

    def avoid(self, negative: Condition) -> None:
        self.negative = leading_away(self.guidance, negative)

    @torch.no_grad()
    def sample(
        self, num_samples: int, condition: Condition | None = None, generator: RandomStream | None = None
    ) -> Tensor:
        """Images (N, C, H, W) in [-1, 1], or text (N, T) as long as is seen at once, or as is left of that after
        ``condition["prompt"]`` (N, P).

        The caller puts the model in eval mode. Without a condition, samples are unconditional. Without a generator, one
        is seeded from torch's global generator.

        Raises:
            ValueError: a condition or a token that the model does not know.
        """
        generator = self.stream(num_samples, generator)
        beginning = self.beginning(num_samples, condition)
        first, length = self.view.given_length, self.view.length
        given, prompt = beginning[:, :first], beginning[:, first:]
        tokens = torch.zeros(num_samples, length, dtype=torch.long, device=self.device)
        hidden = torch.ones_like(tokens, dtype=torch.bool)
        tokens[:, : prompt.shape[1]] = prompt
        hidden[:, : prompt.shape[1]] = False
        return self.view.data(self.filled(given, tokens, hidden, generator)[:, prompt.shape[1] :])

    @torch.no_grad()
    def complete(self, x: Tensor, unknown: Tensor, condition: Condition | None, generator: RandomStream) -> Tensor:
        """Images whose ``unknown`` places are drawn given all others; see :class:`genlab.model.base.CompletesImages`.
        All tokens of the places that are known are seen from the first step on."""
        given = self.beginning(len(x), condition)
        tokens = self.view.sequences(x, None)[:, self.view.given_length :]
        hidden = self.view.touched(unknown)  # type: ignore[attr-defined]
        return self.view.data(self.filled(given, tokens, hidden, generator))

    def filled(self, given: Tensor, tokens: Tensor, hidden: Tensor, generator: RandomStream) -> Tensor:
        """``tokens`` (N, L), drawn where ``hidden`` (N, L) is true, after those that are ``given`` (N, P)."""
        num_samples = len(tokens)
        guided = self.guidance.strength != 1 and len(self.conditions.kinds) > 0
        blank = self.view.given(num_samples, self.avoided(num_samples), self.device) if guided else given

        def predict(tokens: Tensor, hidden: Tensor) -> Tensor:
            if not guided:
                self.evaluations += len(tokens)
                return self.logits(given, tokens, hidden)
            self.evaluations += 2 * len(tokens)
            both = self.logits(torch.cat([given, blank]), tokens.repeat(2, 1), hidden.repeat(2, 1)).float()
            told, untold = both.chunk(2)
            return self.guidance.mix(untold, told)

        return self.sampler(predict, hidden, tokens, generator)

    def continuation_length(self, prompt_length: int) -> int:
        """Tokens of a sample of text: the prompt but for its first token takes up places."""
        return self.shape[0] - max(0, min(prompt_length, self.shape[0]) - 1)

    def beginning(self, rows: int, condition: Condition | None) -> Tensor:
        """The tokens (N, P) that samples begin with: of a longer prompt the end."""
        tokens, padding = self.view.beginning(rows, condition, self.device)
        if padding is not None:
            raise ValueError("prompts that are filled in together must be of one length, without -1.")
        return tokens[:, -max(self.view.length, self.view.given_length) :]

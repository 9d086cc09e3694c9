"""Masked language models (BERT; Devlin et al. 2019, arXiv:1810.04805): an encoder of text that sees both sides."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from genlab.model.base import Batch, LearningRateSchedule, Model, OptimizerFactory
from genlab.model.cross_entropy import nats
from genlab.model.draws import Draws
from genlab.model.optimizer.groups import parameter_groups
from genlab.model.parts import PlacedTokenEncoder
from genlab.model.representation import Reading, block_output
from genlab.model.sharding import shard
from genlab.seeding import derive_seed


class MaskedLanguage(Model):
    """Cross-entropy of some tokens of a text, in nats, given the others and what they were replaced by (section 3.1 of
    the paper).

    Of each row of T tokens as many are chosen, ``mlm_probability`` T rounded, and at least one; but one always stays.
    A chosen token is replaced by the mask token (``mask_replace_prob``), by one drawn evenly from the vocabulary
    (``random_replace_prob``), or stays. The network predicts it in all three cases, and does not know which tokens
    were chosen.

    It is no generative model: neither a likelihood nor samples follow from predictions of 15 % of the tokens. It gives
    features of tokens, pseudo-likelihoods, and fills in what is masked. Random numbers are a function of (seed,
    examples seen, place in the global batch), so they are the same on any number of ranks.
    """

    kinds = frozenset({"tokens"})
    key = "tokens"
    token_reading: ClassVar[Reading] = Reading("blocks of the transformer", layer=0.5)
    network: Any  # a PlacedTokenEncoder and an nn.Module at once; made in configure_model

    def __init__(
        self,
        network: Callable[..., PlacedTokenEncoder],
        optimizer: OptimizerFactory,
        schedule: LearningRateSchedule,
        shape: Sequence[int],  # (T,), the tokens that are seen at once
        vocab_size: int,  # of the data; the mask token comes after it
        mlm_probability: float = 0.15,  # share of tokens that are predicted
        mask_replace_prob: float = 0.8,  # of these, the share that the mask token stands for
        random_replace_prob: float = 0.1,  # and the share that any token stands for; the others stay
        compile: bool = False,  # the network, with torch.compile
        seed: int = 0,
    ):
        """Raises ValueError: an argument is outside its range, or rows are of one token."""
        super().__init__(seed, schedule)
        if not 0 < mlm_probability < 1:
            raise ValueError(
                f"model.mlm_probability={mlm_probability:g} must be above 0 and below 1: some tokens are predicted "
                "from the others. Use model.mlm_probability=0.15"
            )
        if not (min(mask_replace_prob, random_replace_prob) >= 0 and mask_replace_prob + random_replace_prob <= 1):
            raise ValueError(
                f"model.mask_replace_prob={mask_replace_prob:g} and random_replace_prob={random_replace_prob:g} must "
                "be 0 or more, and at most 1 together."
            )
        if shape[0] < 2:
            raise ValueError(
                "a masked language model predicts tokens from others, and data.context=1 is a single one. "
                "Use data.context=64"
            )
        self.make_network, self.make_optimizer = network, optimizer
        self.shape, self.vocab_size, self.mask_token = tuple(shape), vocab_size, vocab_size
        self.mlm_probability = mlm_probability
        self.mask_replace_prob, self.random_replace_prob = mask_replace_prob, random_replace_prob
        self.compile_network = compile
        self.register_module("network", None)

    def configure_model(self) -> None:
        if self.network is not None:
            return
        network: Any = self.make_network(
            num_tokens=self.vocab_size + 1, num_outputs=self.vocab_size, max_length=self.shape[0], causal=False
        )
        if self.compile_network:
            network.compile()
        if self.device_mesh is not None:
            shard(network, self.device_mesh)
        self.network = network

    def configure_optimizers(self) -> Optimizer:
        return self.make_optimizer(parameter_groups(self.network))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        seed = derive_seed(self.seed, self.progress.examples)
        loss, accuracy = self.predicted(batch, Draws(seed, self.global_rank, self.trainer.world_size, self.device))
        self.log("train/loss", loss, on_step=True, batch_size=len(batch["index"]))
        self.log("train/accuracy", accuracy, on_step=True, batch_size=len(batch["index"]))
        return loss

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """What is chosen follows from torch's global generator: seed it."""
        loss, accuracy = self.predicted(batch, Draws(int(torch.randint(2**62, ())), 0, 1, self.device))
        return {"loss": loss, "accuracy": accuracy}

    def predicted(self, batch: Batch, draws: Draws) -> tuple[Tensor, Tensor]:
        """The mean cross-entropy of the chosen tokens, and the share of them that are the most likely ones."""
        tokens = batch[self.key][:, : self.shape[0]]  # of T + 1: the last one is the next window's first
        shown, places = self.corrupted(tokens, draws)
        targets = tokens.gather(1, places)  # (N, K)
        logits = self.network(shown, at=places)  # (N, K, V)
        return nats(logits, targets).mean(), (logits.detach().argmax(dim=2) == targets).float().mean()

    def corrupted(self, tokens: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Rows (N, T) as the network sees them, and the places (N, K) of the tokens that were chosen."""
        count, length = tokens.shape
        chosen = self.chosen_count(length)
        uniform = draws.rand(length + 2 * chosen, count)
        order, fate, other = uniform.split((length, chosen, chosen), dim=1)
        places = order.argsort(dim=1)[:, :chosen]
        drawn = (other * self.vocab_size).long().clamp(max=self.vocab_size - 1)
        put = torch.where(fate < self.mask_replace_prob + self.random_replace_prob, drawn, tokens.gather(1, places))
        put = torch.where(fate < self.mask_replace_prob, self.mask_token, put)
        return tokens.scatter(1, places, put), places

    def chosen_count(self, length: int) -> int:
        """K of ``length`` tokens, from 1 to all but one."""
        return min(max(1, round(self.mlm_probability * length)), length - 1)

    def represent_tokens(self, tokens: Tensor, layer: float) -> Tensor:
        """What a block makes of each token of text (N, T), nothing masked, T at most as many as are seen at once.
        -> (N, T, D) float32."""
        return block_output(self.network, lambda: self.network(tokens), layer, mean=False).float()

    @torch.no_grad()
    def pseudo_log_probs(self, tokens: Tensor) -> Tensor:
        """Nats of each token of text (N, T) given all others of its row, each masked alone, in T passes (Salazar et al.
        2020, arXiv:1910.14659, eq. 1). -> (N, T), float32."""
        found = []
        for place in range(tokens.shape[1]):
            shown = tokens.clone()
            shown[:, place] = self.mask_token
            logits = self.network(shown, at=torch.full_like(tokens[:, :1], place))  # (N, 1, V)
            found.append(-nats(logits, tokens[:, place : place + 1]))
        return torch.cat(found, dim=1)

    @torch.no_grad()
    def fill(self, tokens: Tensor, masked: Tensor) -> tuple[Tensor, Tensor]:
        """``tokens`` (N, T), whatever they are where ``masked`` (N, T) is true -> the same filled in, and the logits
        (N, T, V) with what is masked still masked.

        The most certain token of each row comes first, and the others are predicted anew given it.
        """
        filled, hidden = tokens.masked_fill(masked, self.mask_token), masked.clone()
        first: Tensor | None = None
        while first is None or hidden.any():
            logits = self.network(filled).float()
            first = logits if first is None else first
            probability, token = logits.softmax(dim=2).max(dim=2)
            place = probability.masked_fill(~hidden, -1).argmax(dim=1, keepdim=True)  # (N, 1)
            now = hidden.gather(1, place)  # false where a row is done
            filled.scatter_(1, place, torch.where(now, token.gather(1, place), filled.gather(1, place)))
            hidden.scatter_(1, place, False)
        return filled, first

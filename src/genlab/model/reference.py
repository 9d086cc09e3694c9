"""Transformers that have been trained and are trained further, not too far from what they were."""

import copy
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from genlab.model.base import LearningRateSchedule, OptimizerFactory, in_eval_mode
from genlab.model.parts import SwitchableAdapter, TokenNetwork, TokenSampler
from genlab.model.transformer import Transformer


class TrainedFurther(Transformer):
    """The base class of language models that learn on from ``start=``, with a reference if one is needed: the network
    as it was at the start.

    It is a frozen copy, never in training mode, which checkpoints hold; of a network with an adapter, the same network
    in eval mode with the adapter switched off, of which there is no copy.
    """

    kinds = frozenset({"tokens"})
    begins_trained = True
    adapter: SwitchableAdapter | None

    def __init__(
        self,
        network: Callable[..., TokenNetwork],
        sampler: TokenSampler,
        optimizer: OptimizerFactory,
        schedule: LearningRateSchedule,
        shape: Sequence[int],
        vocab_size: int,
        start_token: int | None,
        sample_length: int | None,
        adapter: SwitchableAdapter | None,
        needs_reference: bool,
        compile: bool,
        seed: int,
    ):
        super().__init__(
            network,
            sampler,
            optimizer,
            schedule,
            shape,
            vocab_size,
            start_token,
            told={},
            condition_dropout=0.0,
            sample_length=sample_length,
            adapter=adapter,
            compile=compile,
            seed=seed,
        )
        self.base_is_reference = needs_reference and adapter is not None
        self.copies = {"reference.": "network."} if needs_reference and adapter is None else {}
        self.register_module("reference", None)

    def configure_model(self) -> None:
        if self.network is not None:
            return
        network = self.new_network()
        if "reference." in self.copies:
            self.reference = self.placed(copy.deepcopy(network).requires_grad_(False).eval())
        self.network = self.placed(network)

    def frozen(self) -> Iterable[nn.Module]:
        return () if self.reference is None else (self.reference,)

    @torch.no_grad()
    def reference_logits(self, given: Tensor, padding: Tensor | None = None) -> Tensor:
        """``given`` (M, T), of whose rows the first ``padding`` (M,) are not seen -> (M, T, V), of the network as it
        was at the start."""
        if self.reference is not None:
            return self.reference(given, padding)  # type: ignore[no-any-return]
        assert self.adapter is not None
        with in_eval_mode(self.network), self.adapter.switched_off(self.network):
            return self.network(given, padding)  # type: ignore[no-any-return]

"""Learning from preferences between pictures without a reward model: Diffusion-DPO."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.model.base import Batch, Condition, LearningRateSchedule, OptimizerFactory
from genlab.model.diffusion import Diffusion
from genlab.model.parts import Adapter, DenoisingNetwork, Guidance, RatesExamples, Sampler
from genlab.seeding import seed_torch


class DiffusionPreference(Diffusion):
    """A diffusion model that has been trained (``start=``), and learns which of two pictures is preferred:
    Diffusion-DPO (Wallace et al. 2023, eq. 14), with whatever objective it was trained with.

    The implied reward of a picture is beta times how much smaller its denoising error is than that of the reference,
    the network as it was at the start: a frozen copy, never in training mode, which checkpoints hold. Both pictures of
    a pair have the same noise level and noise, in both networks. Errors are means over elements, with the weights of
    the objective, and differ by little, so ``beta`` is in the thousands; it is half of what the authors' code calls so.
    A tie counts half as chosen and half as rejected.

    Logged beside the loss, as means over pairs: ``accuracy``, the share of chosen pictures with the larger implied
    reward; ``margin``, by how much; ``chosen`` and ``rejected``, by how much their errors have grown.
    """

    learns_from = frozenset({"judged pictures"})
    begins_trained = True
    reference: nn.Module  # made in configure_model

    def __init__(
        self,
        network: Callable[..., DenoisingNetwork],
        objective: RatesExamples,
        sampler: Sampler,
        optimizer: OptimizerFactory,
        schedule: LearningRateSchedule,
        shape: Sequence[int],  # of an image: (C, H, W)
        told: Mapping[str, Any],  # the data's conditions by key, their ``spec.condition``
        conditions: Sequence[str] | None = None,  # those that the model uses, e.g. [label]; None: the label
        condition_dropout: float | Mapping[str, float] = 0.1,  # share of pairs without their condition
        guidance: Guidance | None = None,  # None: samples of the conditional model itself
        beta: float = 2000.0,  # strength of the pull to the reference
        adapter: Adapter | None = None,  # trained in place of the network's own weights; None: these are trained
        compile: bool = False,  # the network, with torch.compile
        seed: int = 0,
    ):
        """Raises ValueError: an argument is outside its range."""
        super().__init__(
            network,
            objective,
            sampler,
            optimizer,
            schedule,
            shape,
            told,
            conditions,
            condition_dropout,
            guidance,
            adapter,
            compile,
            seed,
        )
        if not 0 < beta < math.inf:
            raise ValueError(f"model.beta={beta} must be finite and above 0.")
        self.beta = beta
        self.copies = {"reference.": "network."}
        self.register_module("reference", None)

    def configure_model(self) -> None:
        if self.network is not None:
            return
        network = self.new_network()
        self.reference = self.placed(copy.deepcopy(network).requires_grad_(False).eval())
        self.network = self.placed(network)

    def frozen(self) -> Iterable[nn.Module]:
        return (self.reference,)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        found = self._measured(batch, self.conditions.dropped(self.conditions.of(batch)))
        for name, value in found.items():
            self.log(f"train/{name}", value.detach(), on_step=True, batch_size=len(batch[self.key]))
        return found["loss"]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """With every condition in place. Noise is drawn from torch's global generator, which the caller seeds."""
        return self._measured(batch, self.conditions.of(batch))

    def _measured(self, batch: Batch, condition: Condition | None) -> dict[str, Tensor]:
        """The loss and what is logged beside it, scalars."""
        seed = int(torch.randint(2**62, ()))
        chosen, rejected = (self._growth(batch[side], condition, seed) for side in (self.key, "rejected"))
        margin = self.beta * (rejected - chosen)
        loss = -F.logsigmoid(margin)
        loss = torch.where(batch["tie"], (loss - F.logsigmoid(-margin)) / 2, loss).mean()
        told = {
            "accuracy": (margin > 0).float().mean(),
            "margin": margin.mean(),
            "chosen": chosen.mean(),
            "rejected": rejected.mean(),
        }
        return {"loss": loss, **told}

    def _growth(self, x: Tensor, condition: Condition | None, seed: int) -> Tensor:
        """How much larger the denoising error of each picture is than that of the reference: (N,)."""
        with drawing_from(seed, x.device):
            errors = self.objective.errors(self.network, x, condition)  # type: ignore[attr-defined]
        with drawing_from(seed, x.device), torch.no_grad():
            before = self.objective.errors(self.reference, x, condition)  # type: ignore[attr-defined]
        return errors - before


@contextmanager
def drawing_from(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's global generators start from ``seed`` inside, and afterwards go on where they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        seed_torch(seed)
        yield

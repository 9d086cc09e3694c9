"""Diffusion models that learn from rewards of the pictures they draw: DDPO."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from genlab.errors import ConfigError
from genlab.model.base import Batch, Condition, LearningRateSchedule, OptimizerFactory, in_eval_mode
from genlab.model.diffusion import Diffusion
from genlab.model.float32 import exact_float32
from genlab.model.gathered import gathered, total
from genlab.model.parts import (
    DenoisingNetwork,
    DenoisingObjective,
    Guidance,
    PictureReward,
    StochasticSampler,
    SwitchableAdapter,
)
from genlab.model.rewarding import held_back, rewarded
from genlab.seeding import RandomStream, derive_seed

_SAMPLES = 1  # a key of random numbers
_FLOOR = 1e-4  # added to a standard deviation of rewards


class Rollout(NamedTuple):
    """N samples, and the S random steps that they were drawn by."""

    condition: Condition | None
    states: Tensor  # (S + 1, N, C, H, W): before each random step, and after the last
    log_prob: Tensor  # (S, N): of each step, a mean over pixels
    reference: Tensor  # (S, N, C, H, W): where the reference's step leads on average
    divergence: Tensor  # (N,): of the steps from the reference's, in nats, a mean over steps and pixels
    images: Tensor  # (N, C, H, W) in [-1, 1]


class Asked(NamedTuple):
    """A batch whose samples are drawn when its optimizer step is due."""

    condition: Condition | None
    rows: int
    examples: int  # seen before it


class DiffusionPolicy(Diffusion):
    """A diffusion model that has been trained (``start=``), and learns from rewards of its own samples: DDPO (Black et
    al. 2023). Denoising is a decision process whose steps are draws from Gaussians, by the sampler.

    An example is a sample, drawn for the condition of an example of the data, whose picture nobody looks at. A step
    draws the samples of a batch, has them scored, and makes ``passes`` * ``minibatches`` steps of the optimizer on the
    clipped surrogate of each denoising step (eq. 4, section 4.3). The last denoising step, which draws nothing, has no
    probability and is not learnt from. Log-probabilities are means over pixels, as in the authors' code, which
    ``clip`` is a range for. Guidance is in what is drawn and in what is learnt. The network is in eval mode throughout:
    dropout would change a sample's probability between drawing and learning.

    A sample is a function of (seed, examples seen), whatever the batch and the number of processes.

    The reward of a picture is the sum of ``rewards``, by their weights; one with weight 0 is only measured, as a judge
    that was held back. ``advantages`` are rewards less their mean, over their standard deviation, of all samples of a
    step, or of those with the same condition where there are several.

    The reference is the network as it was at the start: a frozen copy, which checkpoints hold; of a network with an
    adapter, the same network with the adapter switched off. ``kl_weight`` adds the divergence of each denoising step
    from the reference's to the loss (Fan et al. 2023, DPOK).

    Logged beside the loss, as means over samples: ``reward``, and each reward by its name; ``reward_std``; ``kl``, the
    divergence from the reference, in nats for each pixel and denoising step; ``clipped``, the share of probability
    ratios outside ``clip``; and ``ratio_gap``, how far ratios are from 1, at most, before the first step of the
    optimizer: 0, but for rounding.
    """

    automatic_optimization = False
    begins_trained = True
    repeats_steps = True
    reference: nn.Module | None  # made in configure_model
    sampler: StochasticSampler
    adapter: SwitchableAdapter | None

    def __init__(
        self,
        network: Callable[..., DenoisingNetwork],
        objective: DenoisingObjective,
        rewards: Mapping[str, PictureReward],
        sampler: StochasticSampler,
        optimizer: OptimizerFactory,
        schedule: LearningRateSchedule,
        shape: Sequence[int],  # of an image: (C, H, W)
        told: Mapping[str, Any],  # the data's conditions by key, their ``spec.condition``
        conditions: Sequence[str] | None = None,  # those that the model uses, e.g. [label]; None: the label
        condition_dropout: float | Mapping[str, float] = 0.1,  # of the model in start=; nothing is dropped here
        guidance: Guidance | None = None,  # None: samples of the conditional model itself
        passes: int = 1,  # over the samples of a batch
        minibatches: int = 1,  # optimizer steps in a pass
        clip: float = 1e-4,  # probability ratios beyond 1 +- this do not count
        advantages: Literal["batch", "condition"] = "batch",  # what a reward is compared with
        advantage_clip: float = 5.0,  # the largest advantage
        kl_weight: float = 0.0,  # of the divergence from the reference in the loss
        adapter: SwitchableAdapter | None = None,  # trained in place of the network's own weights; None: these are
        compile: bool = False,  # the network, with torch.compile
        seed: int = 0,
    ):
        """Raises ValueError: an argument is outside its range, or a part does not fit the others."""
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
        if passes < 1 or minibatches < 1:
            raise ValueError(f"model.passes={passes} and model.minibatches={minibatches} must be >= 1.")
        for name, value in {"clip": clip, "advantage_clip": advantage_clip}.items():
            if not 0 < value < math.inf:
                raise ValueError(f"model.{name}={value} must be finite and above 0.")
        if not 0 <= kl_weight < math.inf:
            raise ValueError(f"model.kl_weight={kl_weight} must be finite and not below 0.")
        if len(held_back(rewards)) == len(rewards):
            raise ValueError("no reward has a weight, so there is nothing to learn. Use model/rewards=[jpeg_size].")
        for name, reward in rewards.items():
            for key in sorted(reward.reads - set(self.conditions.kinds)):
                raise ValueError(
                    f"model.rewards.{name} reads the {key} that a picture was drawn for, and the model has none. Use "
                    f"model.conditions=[{','.join([*self.conditions.kinds, key])}] if the data have it, or other "
                    "rewards: model/rewards=[jpeg_size]."
                )
        if advantages == "condition" and not self.conditions.kinds:
            raise ValueError(
                "model.advantages=condition compares pictures of one condition, and the model has none. Use "
                "model.advantages=batch."
            )
        self.levels: list[float] = sampler.grid(sampler.num_steps).tolist()
        self.random_steps = [(t, s) for t, s in pairwise(self.levels) if s > 0]
        nothing = torch.zeros(1)
        if not self.random_steps or any(
            sampler.transition(nothing, nothing, t, s)[1] <= 0 for t, s in self.random_steps
        ):
            raise ValueError(
                "this sampler draws nothing on its way, so that a sample has no probability. Use "
                "model/sampler=ancestral with model.sampler.num_steps=2 or more, or model/sampler=ddim with "
                "model.sampler.eta=1."
            )
        self.rewards = dict(rewards)
        self.passes, self.minibatches, self.clip = passes, minibatches, clip
        self.advantages, self.advantage_clip, self.kl_weight = advantages, advantage_clip, kl_weight
        self.waiting: list[Asked] = []  # the batches of a step so far
        self.base_is_reference = adapter is not None
        self.copies = {"reference.": "network."} if adapter is None else {}
        self.register_module("reference", None)

    def configure_model(self) -> None:
        if self.network is not None:
            return
        if self.device_mesh is not None:
            raise ValueError("model=diffusion_policy cannot be sharded (trainer=fsdp). Use trainer=ddp.")
        network = self.new_network()
        if self.copies:
            self.reference = self.placed(copy.deepcopy(network).requires_grad_(False).eval())
        self.network = self.placed(network)

    def frozen(self) -> Iterable[nn.Module]:
        return () if self.reference is None else (self.reference,)

    def check_data(self, data: Any) -> None:
        """Raises ConfigError: a reward cannot tell of such pictures, or samples cannot be shared out among steps."""
        self._check_minibatches(data.batch_size, f"data.batch_size={data.batch_size}")
        for reward in self.rewards.values():
            reward.check(data)

    def held_back(self) -> list[str]:
        """The rewards with weight 0."""
        return held_back(self.rewards)

    def _check_minibatches(self, rows: int, of: str) -> None:
        if rows % self.minibatches:
            fitting = max(number for number in range(1, self.minibatches) if rows % number == 0)
            raise ConfigError(
                f"model.minibatches={self.minibatches} does not divide the {rows} samples of a batch on a device "
                f"({of}). Use model.minibatches={fitting}"
            )

    # --- training ---------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> None:  # type: ignore[override]
        rows = len(batch[self.key])
        self._check_minibatches(rows, f"{rows * self.trainer.world_size} on {self.trainer.world_size}")
        self.waiting.append(Asked(self.conditions.of(batch), rows, self.progress.examples))
        if self.at_optimizer_step(batch_idx):
            with in_eval_mode(self), exact_float32(self.device):
                self.learn(self.waiting)
            self.waiting = []

    def learn(self, asked: Sequence[Asked]) -> None:
        """Draw the samples of the batches of a step, and make the optimizer's steps on them."""
        rollouts = [self.rolled_out(*one) for one in self._minibatches(asked)]
        condition = _joined([one.condition for one in rollouts])
        reward, scores = self.rewarded(torch.cat([one.images for one in rollouts]), condition)
        advantage, everyones = self._advantage(reward, condition)
        optimizer: Any = self.optimizers()
        told = []
        for _ in range(self.passes):
            for rollout, part in zip(rollouts, advantage.chunk(self.minibatches), strict=True):
                told.append(self._learn_from(rollout, part))
                optimizer.step()
                optimizer.zero_grad()
        loss, clipped = _mean_over_ranks(torch.stack([torch.stack(each[:2]) for each in told]).mean(dim=0))
        divergence = torch.cat([one.divergence for one in rollouts])
        means = _mean_over_ranks(torch.stack([divergence.mean(), *(score.mean() for score in scores.values())]))
        self.log_dict(
            {
                "train/loss": loss,
                "train/reward": everyones.mean(),
                "train/reward_std": everyones.std(correction=0),
                "train/kl": means[0],
                **{f"train/reward_{name}": mean for name, mean in zip(scores, means[1:], strict=True)},
                "train/clipped": clipped,
                "train/ratio_gap": told[0][2],
            },
            on_step=True,
        )

    def step_kind(self, batch_idx: int) -> str:
        return f"step of {self.accumulation.size}" if self.at_optimizer_step(batch_idx) else "accumulation"

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """The loss is of all batches of a step together."""
        loss.backward(*args, **kwargs)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self.configure_gradient_clipping(optimizer, self.gradient_clip_val)

    def _minibatches(self, asked: Sequence[Asked]) -> Iterator[tuple[Condition | None, RandomStream]]:
        """What the samples of each minibatch are drawn for, and by which random numbers: minibatches follow each other
        in the order of the data, so that they have the same samples on any number of processes."""
        condition = _joined([one.condition for one in asked])
        numbers = [
            one.examples + self.global_rank + self.trainer.world_size * row for one in asked for row in range(one.rows)
        ]
        rows = len(numbers) // self.minibatches
        for start in range(0, len(numbers), rows):
            mine = slice(start, start + rows)
            some = None if condition is None else {key: value[mine] for key, value in condition.items()}
            seeds = [derive_seed(self.seed, _SAMPLES, number) for number in numbers[mine]]
            yield some, RandomStream(seeds, self.device)

    def _learn_from(self, rollout: Rollout, advantage: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Add to the gradients, of ``advantage`` (N,) of the samples: a backward pass for each denoising step. -> the
        loss, the share of ratios that are clipped, and how far one is from 1 at most."""
        losses, clipped, gaps = [], [], []
        for step in range(len(self.random_steps)):
            loss, ratio = self.loss_of_step(rollout, advantage, step)
            self.manual_backward(loss / len(self.random_steps))
            losses.append(loss.detach())
            gap = (ratio.detach() - 1).abs()
            clipped.append((gap > self.clip).float().mean())
            gaps.append(gap.max())
        return torch.stack(losses).mean(), torch.stack(clipped).mean(), torch.stack(gaps).max()

    def loss_of_step(self, rollout: Rollout, advantage: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The clipped surrogate of a denoising step, a scalar, and the probability ratios (N,)."""
        x, drawn = rollout.states[step], rollout.states[step + 1]
        mean, std = self._transition(self.denoiser(rollout.condition), x, step)
        ratio = (log_probability(drawn, mean, std) - rollout.log_prob[step]).exp()
        within = ratio.clamp(1 - self.clip, 1 + self.clip)
        loss = torch.maximum(-advantage * ratio, -advantage * within).mean()
        if self.kl_weight:
            loss = loss + self.kl_weight * divergence_of(mean, rollout.reference[step], std).mean()
        return loss, ratio

    def _advantage(self, reward: Tensor, condition: Condition | None) -> tuple[Tensor, Tensor]:
        """The advantages of the samples of this process (N,), and the rewards of all (M,), in the order of the data."""
        world, rank = self.trainer.world_size, self.global_rank
        everyones = gathered(reward).view(world, -1).T.flatten()
        groups = None
        if self.advantages == "condition" and condition is not None:
            told = torch.cat(
                [value.flatten(1) if value.ndim > 1 else value[:, None] for value in condition.values()], 1
            )
            told = gathered(told).unflatten(0, (world, -1)).transpose(0, 1).flatten(0, 1)
            groups = told.unique(dim=0, return_inverse=True)[1]
        advantage = standardised(everyones, groups).clamp(-self.advantage_clip, self.advantage_clip)
        return advantage[rank::world], everyones

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Of a sample for each condition of a batch: minus the mean reward, and each reward. Noise is drawn from
        torch's global generator, which the caller seeds."""
        condition = self.conditions.of(batch)
        images = self.sample(len(batch[self.key]), condition)
        reward, scores = self.rewarded(images.clamp(-1, 1), condition)
        return {"loss": -reward.mean(), **{f"reward_{name}": score.mean() for name, score in scores.items()}}

    # --- samples ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def rolled_out(self, condition: Condition | None, stream: RandomStream) -> Rollout:
        """Samples as :meth:`sample` draws them, and how they were drawn. The caller puts the network in eval mode."""
        denoise = self.denoiser(condition)
        x = self.levels[0] * stream.randn(*self.shape)
        states, log_probs, references, divergences = [x], [], [], []
        for step in range(len(self.random_steps)):
            mean, std = self._transition(denoise, x, step)
            with nullcontext() if self.adapter is None else self.adapter.switched_off(self.network):
                reference, _ = self._transition(self.denoiser(condition, self.reference), x, step)
            x = mean + std * stream.randn_like(mean)
            states.append(x)
            log_probs.append(log_probability(x, mean, std))
            references.append(reference)
            divergences.append(divergence_of(mean, reference, std))
        for t, s in list(pairwise(self.levels))[len(self.random_steps) :]:  # the last one
            x, _ = self.sampler.transition(denoise(x, x.new_full((len(x),), t)), x, t, s)
        return Rollout(
            condition,
            torch.stack(states),
            torch.stack(log_probs),
            torch.stack(references),
            torch.stack(divergences).mean(dim=0),
            x.float().clamp(-1, 1),
        )

    def _transition(self, denoise: Callable[[Tensor, Tensor], Tensor], x: Tensor, step: int) -> tuple[Tensor, float]:
        t, s = self.random_steps[step]
        return self.sampler.transition(denoise(x, x.new_full((len(x),), t)), x, t, s)

    @torch.no_grad()
    def rewarded(self, images: Tensor, condition: Condition | None) -> tuple[Tensor, dict[str, Tensor]]:
        """The reward of pictures (N, C, H, W) in [-1, 1], (N,), and each of the rewards that it consists of. Raises
        NumericsError: one of them fails, or is not finite."""
        told = (
            f"That was a sample after {self.progress.examples:,} examples. Mend it, or leave it out of model/rewards=."
        )
        return rewarded(self.rewards, (images, condition), len(images), images.device, lambda row: told)


def log_probability(x: Tensor, mean: Tensor, std: float) -> Tensor:
    """Of ``x`` (N, ...) under a Gaussian, in nats, a mean over dimensions. -> (N,), float32."""
    standard = (x.float() - mean.float()) / std
    return -0.5 * standard.square().flatten(1).mean(dim=1) - math.log(std) - 0.5 * math.log(2 * math.pi)


def divergence_of(mean: Tensor, reference: Tensor, std: float) -> Tensor:
    """The KL divergence of two Gaussians (N, ...) with the same standard deviation, in nats, a mean over dimensions.
    -> (N,), float32."""
    return ((mean.float() - reference.float()) / std).square().flatten(1).mean(dim=1) / 2


def standardised(reward: Tensor, groups: Tensor | None) -> Tensor:
    """Rewards (M,) less their mean, over their standard deviation; of those that are alone in their one of ``groups``
    (M,), of all."""
    whole = (reward - reward.mean()) / (reward.std(correction=0) + _FLOOR)
    if groups is None:
        return whole
    empty = reward.new_zeros(int(groups.max()) + 1)
    count = empty.index_add(0, groups, torch.ones_like(reward))
    gap = reward - (empty.index_add(0, groups, reward) / count)[groups]
    std = (empty.index_add(0, groups, gap.square()) / count).sqrt()[groups]
    return torch.where(count[groups] > 1, gap / (std + _FLOOR), whole)


def _mean_over_ranks(x: Tensor) -> Tensor:
    return total(x) / (dist.get_world_size() if dist.is_initialized() else 1)


def _joined(conditions: Sequence[Condition | None]) -> Condition | None:
    first = conditions[0]
    if first is None:
        return None
    return {key: torch.cat([one[key] for one in conditions if one is not None]) for key in first}

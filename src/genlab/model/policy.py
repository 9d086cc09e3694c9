"""Language models that learn from the rewards of their own answers: PPO, GRPO and others."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from genlab.errors import ConfigError
from genlab.model.answers import Answers
from genlab.model.base import Batch, LearningRateSchedule, OptimizerFactory, in_eval_mode
from genlab.model.cross_entropy import MOST, nats
from genlab.model.gathered import total
from genlab.model.objective.policy import Drawn, Lesson, PolicyObjective, count
from genlab.model.optimizer.groups import parameter_groups
from genlab.model.parts import AnswerReward, SwitchableAdapter, TokenEncoder, TokenSampler
from genlab.model.reference import TrainedFurther
from genlab.model.rewarding import held_back, rewarded
from genlab.model.rollout import Rollout, joined
from genlab.seeding import RandomStream, derive_seed

_ANSWERS, _ORDER = 1, 2  # keys of random numbers


class Policy(TrainedFurther):
    """A transformer that has been trained (``start=``), answers prompts, and learns from the rewards of its answers.

    An example is a prompt. A step draws ``answers`` answers to each prompt of a batch from the whole distribution of
    the sampler at its temperature, has them scored, and makes ``passes`` * ``minibatches`` steps of the optimizer. An
    answer is a function of (seed, examples seen, its number), whatever the number of processes, so a run that is
    continued answers alike. All networks are in eval mode throughout: with dropout, an answer would have another
    probability when it is learnt from than when it was drawn.

    The reward of an answer is the sum of ``rewards``, by their weights; one with weight 0 is only measured, as a judge
    that was held back. An answer that does not end within ``sample_length`` tokens is cut there, and scored as it is,
    or with ``learn_cut=false`` not learnt from.

    With an objective that needs values there is a second network, the critic: a copy at the start, with a head that
    starts at zero.

    What is logged, as means over answers: ``reward``, and each reward by its name; ``kl``, the divergence of an answer
    from the reference, in nats; ``length`` in tokens; ``cut``, the share that was cut; ``entropy`` of a token;
    ``distinct``, the share of different answers of a group, and ``equal_groups``, the share of groups with equal
    rewards; ``clipped``, the share of probability ratios that are clipped; and ``ratio_gap``, by how much the
    log-probability of a token differs between drawing and learning, at most.
    """

    answers_prompts = True
    counts_parts = True
    begins_new = ("value.",)
    critic: Any  # made in configure_model, as the next
    value: nn.Linear | None

    def __init__(
        self,
        network: Callable[..., TokenEncoder],
        objective: PolicyObjective,
        rewards: Mapping[str, AnswerReward],
        sampler: TokenSampler,
        optimizer: OptimizerFactory,
        schedule: LearningRateSchedule,
        shape: Sequence[int],  # (T,), the tokens that are seen at once
        vocab_size: int,
        start_token: int | None,  # first token of text without a prompt
        answers: int = 8,  # to each prompt
        passes: int = 1,  # over the answers of a batch
        minibatches: int = 1,  # optimizer steps in a pass
        rows_at_once: int | None = None,  # answers in a forward and backward pass; None: all of a minibatch
        learn_cut: bool = True,  # whether answers that were cut are learnt from
        sample_length: int | None = None,  # tokens of an answer at most; None: as many as are seen at once
        adapter: SwitchableAdapter | None = None,  # trained in place of the network's own weights; None: these are
        compile: bool = False,  # the networks, with torch.compile
        seed: int = 0,
    ):
        """Raises ValueError: an argument is outside its range."""
        super().__init__(
            network,
            sampler,
            optimizer,
            schedule,
            shape,
            vocab_size,
            start_token,
            sample_length,
            adapter,
            objective.needs_reference,
            compile,
            seed,
        )
        self.automatic_optimization = False
        given = {"answers": answers, "passes": passes, "minibatches": minibatches, "rows_at_once": rows_at_once or 1}
        for name, number in given.items():
            if number < 1:
                raise ValueError(f"{name}={number} must be 1 or more.")
        if objective.needs_group and answers < 2:
            raise ValueError(
                f"answers={answers}: this objective compares answers to one prompt. Use model.answers=8, or "
                "model/objective=reinforce."
            )
        if len(held_back(rewards)) == len(rewards):
            raise ValueError("no reward has a weight, so there is nothing to learn. Use model/rewards=[checker].")
        self.objective, self.rewards, self.num_answers = objective, dict(rewards), answers
        self.passes, self.minibatches, self.rows_at_once = passes, minibatches, rows_at_once
        self.learn_cut = learn_cut
        self.waiting: list[Rollout] = []  # of the batches of a step so far
        if objective.needs_value:
            self.copies = {**self.copies, "critic.": "network."}
        for name in ("critic", "value"):
            self.register_module(name, None)

    def configure_model(self) -> None:
        if self.network is not None:
            return
        if self.device_mesh is not None:
            raise ValueError("model=policy cannot be sharded (trainer=fsdp). Use trainer=ddp.")
        super().configure_model()
        if self.objective.needs_value:
            self.critic = self.placed(self.new_network())
            if self.critic.head is not None:
                self.critic.head.requires_grad_(False)  # it is not used
            self.value = nn.Linear(self.critic.width, 1)
            nn.init.zeros_(self.value.weight)
            nn.init.zeros_(self.value.bias)

    def configure_optimizers(self) -> Optimizer:
        return self.make_optimizer(parameter_groups(self))

    def averaged(self) -> Iterator[tuple[str, Tensor]]:
        return ((name, p) for name, p in super().averaged() if name.startswith("network."))

    def check_data(self, data: Any) -> None:
        """Raises ConfigError: a prompt leaves no room for an answer, the sampler leaves tokens out, a reward cannot
        tell of the data, or answers cannot be shared out among the steps."""
        longest, where = data.longest_prompt()
        room = self.shape[0] - longest
        if self.limit > room:
            raise ConfigError(
                f"answers of model.sample_length={self.limit} tokens do not fit after the longest prompt, which has "
                f"{longest} tokens ({where}). Use data.context={longest + self.limit}"
                + (f", or model.sample_length={room}." if room > 0 else ".")
            )
        if (reason := getattr(self.sampler, "changes", None)) is not None:
            raise ConfigError(
                f"{reason} changes with what probability an answer is drawn, and a policy has to know it. Leave it "
                f"out of the training: {reason.partition('=')[0]}={_NEUTRAL[reason.partition('=')[0]]}"
            )
        drawn = data.batch_size * self.num_answers
        if drawn % self.minibatches:
            raise ConfigError(
                f"model.minibatches={self.minibatches} does not divide the {drawn} answers of a step "
                f"(data.batch_size={data.batch_size} prompts with model.answers={self.num_answers} each). Use "
                f"model.minibatches={max(n for n in range(1, self.minibatches) if drawn % n == 0)}."
            )
        for reward in self.rewards.values():
            reward.check(data)

    def held_back(self) -> list[str]:
        """The rewards with weight 0."""
        return held_back(self.rewards)

    @property
    def limit(self) -> int:
        """Of the length of an answer, in tokens."""
        return self.continuation_length(0)

    # --- training ---------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> None:  # type: ignore[override]
        with in_eval_mode(self):
            numbers = self.global_rank + self.trainer.world_size * torch.arange(len(batch["prompt"]))
            seeds = [
                derive_seed(self.seed, _ANSWERS, self.progress.examples + number, answer)
                for number in numbers.tolist()
                for answer in range(self.num_answers)
            ]
            self.waiting.append(self.rolled_out(batch, RandomStream(seeds, self.device), self.num_answers))
            if self.at_optimizer_step(batch_idx):
                self.learn(joined(self.waiting), len(batch["prompt"]))
                self.waiting = []

    def learn(self, rollout: Rollout, batch_size: int) -> None:
        """Steps of the optimizer on all answers of a step. ``batch_size``: prompts of a batch of this process."""
        optimizer: Any = self.optimizers()
        drawn, answers = rollout.drawn, rollout.answers
        lesson = self.objective.lesson(drawn, total)
        places = self._places(len(drawn.reward), batch_size)
        told = [self._step(optimizer, answers, drawn, lesson, rows) for rows in self._minibatches(places)]
        of_steps = {name: torch.stack([one[name] for one in told]).mean() for name in told[0]}
        self.log_all(**self._of_answers(rollout), **of_steps)

    def _places(self, answers: int, batch_size: int) -> Tensor:
        """The number of each answer of this process among those of all of a step, (M,)."""
        prompts = torch.arange(answers // self.num_answers)
        place = prompts % batch_size * self.trainer.world_size + self.global_rank
        place = place + prompts // batch_size * batch_size * self.trainer.world_size  # those of earlier batches
        return (place[:, None] * self.num_answers + torch.arange(self.num_answers)).flatten()

    def _minibatches(self, places: Tensor) -> Iterator[Tensor]:
        """The rows of this process for each optimizer step: where all answers of a step go is drawn for each pass."""
        number = len(places) * self.trainer.world_size
        for one in range(self.passes):
            order = torch.Generator().manual_seed(derive_seed(self.seed, _ORDER, self.progress.examples, one))
            step_of = torch.randperm(number, generator=order) % self.minibatches
            for step in range(self.minibatches):
                yield (step_of[places] == step).nonzero()[:, 0]

    def _step(self, optimizer: Any, answers: Answers, drawn: Drawn, lesson: Lesson, rows: Tensor) -> dict[str, Tensor]:
        """A step of the optimizer on some answers; the loss, and the share of ratios that are clipped."""
        rows = rows.to(drawn.reward.device)
        counts = count(drawn.counted[rows], total)
        weight = 1.0
        if len(rows) == 0:  # they are all with other processes; this one has to have gradients too
            rows, weight = torch.zeros(1, dtype=torch.long, device=rows.device), 0.0
        losses, clipped = [], []
        for some in rows.split(self.rows_at_once or len(rows)):
            mine, taught = drawn.some(some), lesson.some(some)
            sequences, padding = answers.sequences[some], answers.padding[some]
            with self.counting(f"learn {tuple(sequences.shape)}"):
                log_prob = self.log_probs(sequences, padding, mine.log_prob.shape[1])[0]
                loss, share = self.objective.loss(log_prob, mine, taught, counts)
                if self.objective.needs_value:
                    value = self.values(sequences, padding, mine.log_prob.shape[1])[:, :-1]
                    loss = loss + self.objective.value_loss(value, mine, taught, counts)  # type: ignore[attr-defined]
                self.manual_backward(weight * loss * self.trainer.world_size)  # processes average their gradients
            losses.append(weight * loss.detach())
            clipped.append(weight * share.detach())
        with self.counting("optimizer"):
            optimizer.step()
        optimizer.zero_grad()
        both = total(torch.stack([torch.stack(losses).sum(), torch.stack(clipped).sum().float()]))
        return {"loss": both[0], "clipped": both[1]}

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """The loss is of all batches of a step together."""
        loss.backward(*args, **kwargs)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self.configure_gradient_clipping(optimizer, self.gradient_clip_val)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Of an answer to each prompt: minus the mean reward, and each reward. Answers are drawn from torch's global
        generator, which the caller seeds."""
        stream = self.stream(len(batch["prompt"]), None)
        rollout = self.rolled_out(batch, stream, 1)
        return {"loss": -rollout.drawn.reward.mean(), **{name: x.mean() for name, x in rollout.told.items() if x.ndim}}

    # --- answers ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def rolled_out(self, batch: Batch, stream: RandomStream, each: int) -> Rollout:
        """``each`` answers to the prompts (N, P) of a batch, -1 before short ones, and all that is known of them.

        Raises NumericsError: a reward fails, or is not finite.
        """
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        prompts = batch["prompt"].repeat_interleave(each, dim=0)
        tokens, entropy, drawn_with = self._answered(prompts, stream, data.chat.end)
        steps = torch.arange(tokens.shape[1], device=tokens.device)
        is_end = tokens == data.chat.end
        ended = is_end.any(dim=1)
        length = torch.where(ended, is_end.long().argmax(dim=1) + 1, tokens.shape[1])
        counted = steps < length[:, None]
        tokens = torch.where(counted, tokens, 0)
        padding = (prompts == -1).sum(dim=1)
        answers = Answers(
            data=data,
            split="val" if bool(batch["held_out"][0]) else "train",
            numbers=batch["index"].repeat_interleave(each).tolist(),
            texts=[
                data.chat.answer(row[: size - end])
                for row, size, end in zip(tokens.tolist(), length.tolist(), ended.long().tolist(), strict=True)
            ],
            sequences=torch.cat([prompts.clamp(min=0), tokens], dim=1),
            padding=padding,
            length=length,
            ended=ended,
            limit=self.limit,
        )
        reward, scores = self._rewarded(answers)
        log_prob, reference, divergence = self._read(answers.sequences, padding, tokens.shape[1], counted)
        learnt = counted if self.learn_cut else counted & ended[:, None]
        values = self.values(answers.sequences, padding, tokens.shape[1]) if self.objective.needs_value else None
        drawn = Drawn(reward, learnt, ended, log_prob, reference, values, each, self.limit)
        told = {
            **{f"reward_{name}": score for name, score in scores.items()},
            "length": length.float(),
            "cut": (~ended).float(),
            "entropy": (entropy * counted).sum(dim=1) / length,
            "ratio_gap": ((drawn_with - log_prob).abs() * counted).max(),
        }
        return Rollout(answers, drawn, told if divergence is None else {**told, "kl": divergence})

    def _answered(self, prompts: Tensor, stream: RandomStream, end: int) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (M, L) until the last answer has ended, with anything after the end; the entropy of each prediction
        and the log-probability of each token when it was drawn, (M, L)."""
        tokens, entropy, log_prob = [], [], []
        open_ones = torch.ones(len(prompts), dtype=torch.bool, device=prompts.device)
        for token, logits in self.drawn({"prompt": prompts}, stream):
            log_probs = (logits.float() / self.temperature).log_softmax(dim=-1)
            tokens.append(token)
            entropy.append(-(log_probs.exp() * log_probs).sum(dim=-1))
            log_prob.append(log_probs.gather(1, token[:, None])[:, 0])
            open_ones &= token != end
            if not open_ones.any():
                break
        return torch.stack(tokens, dim=1), torch.stack(entropy, dim=1), torch.stack(log_prob, dim=1)

    @property
    def temperature(self) -> float:
        """Of the sampler, above 0 in training."""
        return float(getattr(self.sampler, "temperature", 1.0)) or 1.0

    def _rewarded(self, answers: Answers) -> tuple[Tensor, dict[str, Tensor]]:
        """The reward of each answer, (M,), and each of the rewards that it consists of."""
        sequences = answers.sequences
        return rewarded(self.rewards, (answers,), len(sequences), sequences.device, partial(_about, answers))

    def _read(
        self, sequences: Tensor, padding: Tensor, length: int, counted: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The log-probabilities of the last ``length`` tokens of each row by the policy and by the reference, (M, L),
        and the divergence of each answer: the sum over its places of that of the predictions, (M,)."""
        of_policy, of_reference, divergences = [], [], []
        rows = self.rows_at_once or len(sequences)
        for some, pad, counts in zip(sequences.split(rows), padding.split(rows), counted.split(rows), strict=True):
            passed = f"read {tuple(some.shape)}"
            with self.counting(passed):
                log_prob, logits = self.log_probs(some, pad, length)
            with self.counting(passed):
                pass  # the answers were drawn by as many operations
            of_policy.append(log_prob)
            if self.objective.needs_reference:
                with self.counting(f"reference {tuple(some.shape)}"):
                    theirs = self.reference_logits(some[:, :-1], pad)[:, -length:].float() / self.temperature
                of_reference.append(-nats(theirs, some[:, -length:]))
                divergences.append((divergence(logits, theirs) * counts).sum(dim=1))
        if not of_reference:
            return torch.cat(of_policy), None, None
        return torch.cat(of_policy), torch.cat(of_reference), torch.cat(divergences)

    def log_probs(self, sequences: Tensor, padding: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Of the last ``length`` tokens of each row of ``sequences`` (M, P + L), (M, L), and the logits by the
        temperature, (M, L, V)."""
        logits = self.network(sequences[:, :-1], padding)[:, -length:].float() / self.temperature
        return -nats(logits, sequences[:, -length:]), logits

    def values(self, sequences: Tensor, padding: Tensor, length: int) -> Tensor:
        """What the critic expects before each of the last ``length`` tokens, and after the last: (M, L + 1)."""
        assert self.value is not None
        states = self.critic(sequences, padding, hidden=True)[:, -length - 1 :]
        return self.value(states).float()[..., 0]

    # --- what is logged ---------------------------------------------------------------------------------------------

    def _of_answers(self, rollout: Rollout) -> dict[str, Tensor]:
        """Means over the answers of all processes."""
        reward, texts, each = rollout.drawn.reward, rollout.answers.texts, rollout.drawn.group
        groups = reward.view(-1, each)
        distinct = [len({*texts[i : i + each]}) / each for i in range(0, len(texts), each)]
        sums = {
            "reward": reward,
            **{name: values for name, values in rollout.told.items() if values.ndim},
        }
        if each > 1:
            sums["equal_groups"] = (groups == groups[:, :1]).all(dim=1).float()
            sums["distinct"] = torch.tensor(distinct, device=reward.device)
        both = total(
            torch.stack([torch.stack([x.double().sum(), x.new_tensor(len(x)).double()]) for x in sums.values()])
        )
        means = {name: (summed / number).float() for name, (summed, number) in zip(sums, both, strict=True)}
        gap = rollout.told["ratio_gap"].clone()
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(gap, dist.ReduceOp.MAX)
        return {**means, "ratio_gap": gap}

    def log_all(self, **values: Tensor) -> None:
        self.log_dict({f"train/{name}": value.detach() for name, value in values.items()}, on_step=True)


_NEUTRAL = {
    "model.sampler.temperature": "1.0",
    "model.sampler.top_k": "null",
    "model.sampler.top_p": "1.0",
    "model.sampler.min_p": "0.0",
    "model.sampler.repetition_penalty": "1.0",
}


def divergence(policy: Tensor, reference: Tensor) -> Tensor:
    """KL of predictions, in nats, by their logits (M, L, V). -> (M, L)."""
    rows = max(1, MOST // (policy.shape[1] * policy.shape[2]))
    found = []
    for ours, theirs in zip(policy.split(rows), reference.split(rows), strict=True):
        p, q = ours.log_softmax(dim=-1), theirs.log_softmax(dim=-1)
        found.append((p.exp() * (p - q)).sum(dim=-1))
    return torch.cat(found)


def _about(answers: Answers, row: int) -> str:
    conversation = answers.data.known(answers.split)[answers.numbers[row]]
    shown = answers.texts[row] if len(answers.texts[row]) <= 80 else answers.texts[row][:80] + "..."
    return f"The answer was {shown!r}, to the prompt of {conversation.where}. Leave the reward out, or mend it."

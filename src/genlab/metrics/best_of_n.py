"""Best of n: what a model reaches that answers several times, and of which the best answer, or the most frequent, is
taken."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from genlab.data.base import DataModule, Split
from genlab.errors import ConfigError
from genlab.machine.rank import rank, world
from genlab.metrics.answer_score import HasChecker
from genlab.metrics.base import Direction
from genlab.metrics.held_out_answers import check_answered, conversations_of
from genlab.model.answering import answers
from genlab.model.base import GenerativeModel
from genlab.progress import progress

_MOST = 1024


class BestOfN(Metric):
    """The baseline of all learning from rewards: ``n`` answers to each held-out problem, by the checker of the data.

    ``best_of_n``: the mean score of the best of them, which only a checker can pick; ``most_frequent_of_n``: that of
    the answer given most often, the first of several, which anybody can pick (Wang et al. 2022, self-consistency); and
    ``mean_of_n``: that of all. The best of n has a divergence from the model of at most log n - (n - 1) / n nats
    (Stiennon et al. 2020): ``best_of_n_kl``.
    """

    directions: ClassVar[Mapping[str, Direction | None]] = {
        "best_of_n": "higher",
        "most_frequent_of_n": "higher",
        "mean_of_n": "higher",
        "best_of_n_kl": None,
    }
    full_state_update = False

    def __init__(self, n: int = 8, num_problems: int | None = None, whole: bool = False):
        """
        Args:
            n: answers to each problem
            num_problems: spread evenly over the split; None: all
            whole: a score of less than 1 counts as 0
        """
        super().__init__()
        if not 2 <= n <= _MOST:
            raise ConfigError(f"metrics.best_of_n.n must be a whole number from 2 to {_MOST}, got {n}.")
        if num_problems is not None and num_problems < 1:
            raise ConfigError(f"metrics.best_of_n.num_problems must be a whole number >= 1, got {num_problems}.")
        self.n, self.num_problems, self.whole = n, num_problems, whole
        self._facts: dict[str, int | float | str] = {}
        for name in ("best", "frequent", "mean_score", "total"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.best: Tensor
        self.frequent: Tensor
        self.mean_score: Tensor
        self.total: Tensor

    def update(self, texts: Sequence[str], scores: Sequence[float]) -> None:
        """Take in the answers to a problem and their scores."""
        self.best += max(scores)
        plain = [" ".join(text.split()) for text in texts]
        self.frequent += scores[plain.index(Counter(plain).most_common(1)[0][0])]
        self.mean_score += float(np.mean(scores))
        self.total += 1

    def compute(self) -> dict[str, Tensor]:
        """``best_of_n``, ``most_frequent_of_n``, ``mean_of_n`` and ``best_of_n_kl``."""
        return {
            "best_of_n": self.best / self.total,
            "most_frequent_of_n": self.frequent / self.total,
            "mean_of_n": self.mean_score / self.total,
            "best_of_n_kl": torch.tensor(math.log(self.n) - (self.n - 1) / self.n),
        }

    def settings(self) -> dict[str, int | float | str]:
        count = "all" if self.num_problems is None else self.num_problems
        return {"n": self.n, "num_problems": count, "whole": self.whole, **self._facts}

    @torch.no_grad()
    def measure(self, model: GenerativeModel, data: DataModule, split: Split, batch_size: int, seed: int = 0) -> None:
        """Take in the answers to this rank's problems. Raises ConfigError as :meth:`check`."""
        self.check(model, data)
        assert isinstance(data, HasChecker)
        text = conversations_of(data, "best_of_n")
        self._facts = {"seed": seed, "problems": text.text_hash(split)[:16]}
        known, chat = text.known(split), text.chat
        numbers = np.arange(len(known))
        if self.num_problems is not None and self.num_problems < len(known):
            numbers = np.linspace(0, len(known) - 1, self.num_problems).round().astype(np.int64)
        mine = [int(number) for number in numbers[rank() :: world()] for _ in range(self.n)]
        prompts = [chat.prompt(known[i].prompt, known[i].where) for i in mine]
        numbered = [number * self.n + i % self.n for i, number in enumerate(mine)]
        texts: list[str] = []
        with progress(f"answering {len(mine):,} times", len(mine), quiet=rank() != 0) as advance:
            for batch in answers(model, prompts, numbered, seed, chat.end, batch_size):
                texts += [chat.answer(answer) for answer in batch]
                advance(len(batch))
        for start in range(0, len(mine), self.n):
            given = texts[start : start + self.n]
            scores = [data.score(known[mine[start]], one, split) for one in given]
            self.update(given, [float(score >= 1) for score in scores] if self.whole else scores)

    def check(self, model: GenerativeModel, data: DataModule) -> None:
        """Raises ConfigError: the data have no checker, or the model does not answer."""
        check_answered("best_of_n", model, data)
        if not isinstance(data, HasChecker):
            raise ConfigError(
                f"metrics=best_of_n: {type(data).__name__} has no checker of answers. Leave it out of metrics=[...]."
            )

    def subject(self, model: GenerativeModel, split: Split) -> str:
        return f"{self.n}_{split}"

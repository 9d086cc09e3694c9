"""Exact match: accuracy on questions with one right answer, for text models."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from genlab.data.base import DataModule, Split
from genlab.errors import ConfigError
from genlab.metrics.base import Direction
from genlab.metrics.problems import Problems, answers, check_answers, read_problems
from genlab.model.base import GenerativeModel


class ExactMatch(Metric):
    """The share of answers that are the right one, letter for letter, spaces at either end aside: in [0, 1].

    Problems are lines of JSON with ``prompt`` and ``answer``. The model continues the prompt with its sampler; for
    greedy decoding set ``model.sampler.temperature=0``. An answer ends at the end token or before one of ``stop``, or
    where the model's samples do. The mean over problems of that over their samples.
    """

    directions: ClassVar[Mapping[str, Direction | None]] = {"exact_match": "higher"}
    full_state_update = False

    def __init__(
        self,
        problems: str,  # a file of JSON lines
        num_samples: int = 1,  # answers to each
        stop: Sequence[str] = ("\n",),
    ):
        """Raises ConfigError if an argument is out of its range."""
        super().__init__()
        if num_samples < 1:
            raise ConfigError(f"metrics.exact_match.num_samples must be a whole number >= 1, got {num_samples}.")
        self.path, self.num_samples, self.stop = problems, num_samples, tuple(stop)
        self._problems: Problems | None = None
        self._seed = 0
        for name in ("right", "total"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.right: Tensor
        self.total: Tensor

    def update(self, given: Sequence[str], answer: str) -> None:
        """Take in the answers to a problem."""
        self.right += sum(text.strip() == answer.strip() for text in given)
        self.total += len(given)

    def compute(self) -> dict[str, Tensor]:
        """``exact_match``."""
        return {"exact_match": self.right / self.total}

    def settings(self) -> dict[str, int | float | str]:
        asked = "" if self._problems is None else self._problems.sha256
        return {"problems": asked, "num_samples": self.num_samples, "stop": repr(self.stop), "seed": self._seed}

    @torch.no_grad()
    def measure(self, model: GenerativeModel, data: DataModule, split: Split, batch_size: int, seed: int = 0) -> None:
        """Take in the answers to this rank's problems. The split is not used. Raises ConfigError as :meth:`check`."""
        self.check(model, data)
        assert self._problems is not None
        self._seed = seed
        for i, given in answers(model, data, self._problems, self.num_samples, self.stop, batch_size, seed):
            self.update(given, self._problems.items[i]["answer"])

    def check(self, model: GenerativeModel, data: DataModule) -> None:
        """Raises ConfigError: the data or the model's samples are not text, or there is no file of problems; DataError:
        it has no problems."""
        check_answers("exact_match", model, data)
        self._problems = read_problems(self.path, ("prompt", "answer"), "exact_match")

    def subject(self, model: GenerativeModel, split: Split) -> str:
        """The file's name."""
        return Path(self.path).stem

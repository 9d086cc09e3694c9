"""Exact match: accuracy on questions with one right answer, for text models."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from genlab.data.base import DataModule, Split
from genlab.data.conversation_data import ConversationData
from genlab.errors import ConfigError
from genlab.metrics.base import Direction
from genlab.metrics.held_out_answers import answered, check_answered, conversations_of
from genlab.metrics.problems import Problems, answers, check_answers, read_problems
from genlab.model.base import GenerativeModel


class ExactMatch(Metric):
    """The share of answers that are the right one, letter for letter, spaces at either end aside: in [0, 1].

    Problems are held-out conversations, each asked without its last answer, which is the right one; or lines of JSON
    with ``prompt`` and ``answer``, where the data are other text. The model continues the prompt with its sampler; for
    greedy decoding set ``model.sampler.temperature=0``. An answer ends at the end token or before one of ``stop``, or
    where the model's samples do. The mean over problems of that over their samples.
    """

    directions: ClassVar[Mapping[str, Direction | None]] = {"exact_match": "higher"}
    full_state_update = False

    def __init__(
        self,
        problems: str | None = None,  # a file of JSON lines; None: the held-out conversations
        num_samples: int = 1,  # answers to each
        stop: Sequence[str] = ("\n",),
    ):
        """Raises ConfigError if an argument is out of its range."""
        super().__init__()
        if num_samples < 1:
            raise ConfigError(f"metrics.exact_match.num_samples must be a whole number >= 1, got {num_samples}.")
        self.path, self.num_samples, self.stop = problems, num_samples, tuple(stop)
        self._problems: Problems | None = None
        self._asked = ""  # a hash of the problems
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
        return {"problems": self._asked, "num_samples": self.num_samples, "stop": repr(self.stop), "seed": self._seed}

    @torch.no_grad()
    def measure(self, model: GenerativeModel, data: DataModule, split: Split, batch_size: int, seed: int = 0) -> None:
        """Take in the answers to this rank's problems. The split is not used. Raises ConfigError as :meth:`check`."""
        self.check(model, data)
        self._seed = seed
        if self._problems is None:
            known = conversations_of(data, "exact_match")
            self._asked = known.text_hash(split)[:16]
            for conversation, answer in answered(model, known, split, None, batch_size, seed):
                self.update([answer], conversation.answer)
            return
        self._asked = self._problems.sha256
        for i, given in answers(model, data, self._problems, self.num_samples, self.stop, batch_size, seed):
            self.update(given, self._problems.items[i]["answer"])

    def check(self, model: GenerativeModel, data: DataModule) -> None:
        """Raises ConfigError: the data or the model's samples are not text, or there is no file of problems; DataError:
        it has no problems."""
        if self.path is None:
            if not isinstance(data, ConversationData):
                raise ConfigError(
                    "metrics=exact_match: the data have no conversations to answer. Name a file of problems: "
                    "metrics.exact_match.problems=file.jsonl"
                )
            if self.num_samples != 1:
                raise ConfigError(
                    f"metrics.exact_match.num_samples={self.num_samples} is for a file of problems; held-out "
                    "conversations are answered once. Use metrics.exact_match.num_samples=1."
                )
            check_answered("exact_match", model, data)
            return
        check_answers("exact_match", model, data)
        self._problems = read_problems(self.path, ("prompt", "answer"), "exact_match")

    def subject(self, model: GenerativeModel, split: Split) -> str:
        """The file's name, or the split."""
        return split if self.path is None else Path(self.path).stem

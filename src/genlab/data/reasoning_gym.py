"""Problems that are generated and can be checked, of the package reasoning-gym (Stojanovski et al. 2025)."""

import logging
import os
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal

from genlab.data.base import Split
from genlab.data.conversation import ANSWERS, Conversation
from genlab.data.conversation_data import ConversationData
from genlab.data.tokenizer.base import Tokenizer
from genlab.errors import ConfigError, DataError, did_you_mean

_FAR = 1 << 40  # problem i of seed s is problem i - 1 of seed s + 1: held-out ones are from this far
_log = logging.getLogger(__name__)


class ReasoningGym(ConversationData):
    """Problems of one generator, each a question and its answer; the package's own checker scores other answers.

    A generator repeats itself: held-out problems whose text is that of a training problem, or of another one held
    out, are left out, and their number is reported.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        task: str,  # the generator: chain_sum, gcd, spell_backward ...
        options: Mapping[str, Any] | None = None,  # its settings, by the package's names
        num_train: int = 20_000,
        num_val: int = 500,  # before repeated ones are left out
        problem_seed: int = 0,  # of the problems; the run's seed does not change them
        template: str | None = None,
        counted: Literal["answers", "all"] = "answers",
        packing: bool = True,
        context: int = 256,
        cache_dir: str | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
        limit: int | None = None,
        seed: int = 0,
    ):
        """Raises ConfigError if a value is out of its range."""
        super().__init__(
            tokenizer, template, counted, packing, context, cache_dir, batch_size, num_workers, limit, seed
        )
        for option, value in (("num_train", num_train), ("num_val", num_val)):
            if value < 1:
                raise ConfigError(f"data.{option} must be a whole number >= 1, got {value}.")
        self.task, self.options, self.problem_seed = task, dict(options or {}), problem_seed
        self.sizes: dict[Split, int] = {"train": num_train, "val": num_val}

    def conversations(self, split: Split) -> Sequence[Conversation]:
        """Raises ConfigError: there is no such generator, or no such setting; DataError: no held-out problem is new."""
        problems = self._problems(split)
        found = [self._conversation(problem["question"], problem["answer"], i) for i, problem in enumerate(problems)]
        if split == "train":
            return found
        seen, new = {one.question for one in self.known("train")}, []
        for one in found:
            if one.question not in seen:
                seen.add(one.question)
                new.append(one)
        if not new:
            raise DataError(
                f"all {len(found):,} held-out problems of {self.task} are among the training problems too. Use fewer "
                f"of these, such as data.num_train={max(1, self.sizes['train'] // 10)}, or let data.options have more "
                "of them."
            )
        if len(new) < len(found) and os.environ.get("LOCAL_RANK", "0") == "0":
            _log.warning(
                f"{len(found) - len(new):,} of the {len(found):,} held-out problems of {self.task} are also among the "
                f"training problems, or twice: they are left out, and {len(new):,} remain."
            )
        return new

    def score(self, conversation: Conversation, answer: str, split: Split) -> float:
        """The checker's score of an answer, in [0, 1]."""
        problems = self._problems(split)
        return float(problems.score_answer(answer.strip(), problems[int(conversation.facts)]))

    def _conversation(self, question: Any, answer: Any, number: int) -> Conversation:
        messages = ({"role": "user", "content": str(question)}, {"role": ANSWERS, "content": str(answer)})
        return Conversation(messages, f"problem {number} of {self.task}", str(number))

    def _problems(self, split: Split) -> Any:
        seed = self.problem_seed + (0 if split == "train" else _FAR)
        return _generated(self.task, tuple(sorted(self.options.items())), self.sizes[split], seed)

    def title(self, split: Split) -> str:
        return f"the {'training' if split == 'train' else 'held-out'} problems of {self.task}"


@cache
def _generated(task: str, options: tuple[tuple[str, Any], ...], size: int, seed: int) -> Any:
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise ConfigError("data=reasoning_gym needs a package: pip install 'genlab[reasoning]'") from error
    if task not in DATASETS:
        raise ConfigError(
            f"data.task={task}: reasoning-gym has no such generator.{did_you_mean(task, sorted(DATASETS))} "
            f"It has {len(DATASETS)}, such as chain_sum."
        )
    try:
        return reasoning_gym.create_dataset(task, size=size, seed=seed, **dict(options))
    except (TypeError, ValueError, AssertionError) as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"data.options do not suit the generator {task} ({cause}).") from error

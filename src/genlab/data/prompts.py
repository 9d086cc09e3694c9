"""Prompts whose answers can be checked, in files of JSON lines or of a Hugging Face data set."""

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Literal

from genlab.data.array_cache import digest
from genlab.data.base import Split
from genlab.data.conversation import Conversation
from genlab.data.conversations import Conversations
from genlab.data.tokenizer.base import Tokenizer
from genlab.errors import ConfigError

Checker = Literal["exact", "contains", "number"]
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?|[-+]?\.\d+")
_LONGEST = 100  # digits of a number


class Prompts(Conversations):
    """Rows with the columns ``prompt`` and ``answer``, the right one, by which a checker scores answers: 1 or 0.

    * ``exact``: equal, but for case and space around and between words.
    * ``contains``: the right answer stands in it, as whole words, in any case.
    * ``number``: the last number in it is the last number of the right answer: 1,200 and 1200.0 are equal, 1/2 and 0.5.

    Held out are the rows of another file, or those whose prompt has a hash below ``val_fraction``.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        path: str,  # of JSON lines; or hf: and the name of a data set at the Hub, or a folder of one
        checker: Checker = "exact",
        val_path: str | None = None,  # the held-out rows, likewise; null: a part of path, see val_fraction
        val_fraction: float = 0.1,  # in (0, 1)
        prompt: str = "prompt",  # the column of prompts
        answer: str = "answer",  # the column of right answers
        system: str | None = None,  # the column of system messages, where there is one
        config: str | None = None,  # of a data set at the Hub that has several
        split: str = "train",  # of a data set at the Hub
        val_split: str | None = None,  # its held-out rows; null: see val_path
        revision: str | None = None,  # branch, tag or commit at the Hub; null: the newest
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
            tokenizer,
            path,
            val_path,
            val_fraction,
            prompt=prompt,
            answer=answer,
            system=system,
            config=config,
            split=split,
            val_split=val_split,
            revision=revision,
            template=template,
            counted=counted,
            packing=packing,
            context=context,
            cache_dir=cache_dir,
            batch_size=batch_size,
            num_workers=num_workers,
            limit=limit,
            seed=seed,
        )
        if checker not in CHECKERS:
            raise ConfigError(f"data.checker must be {', '.join(CHECKERS)}, got {checker}.")
        self.checker = checker

    def score(self, conversation: Conversation, answer: str, split: Split) -> float:
        """1 if the checker finds the answer right, else 0."""
        return float(CHECKERS[self.checker](answer, conversation.answer))

    def _hash_of_text(self, split: Split) -> str:
        found = super()._hash_of_text(split)
        return digest(1, found, self.checker)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _exact(answer: str, right: str) -> bool:
    return _plain(answer) == _plain(right)


def _contains(answer: str, right: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(_plain(right))}(?!\w)", _plain(answer)) is not None


def _number(answer: str, right: str) -> bool:
    found, wanted = _last_number(answer), _last_number(right)
    return found is not None and found == wanted


def _last_number(text: str) -> Fraction | None:
    for match in reversed(_NUMBER.findall(text)):
        if len(match) <= _LONGEST:
            whole, _, below = match.replace(",", "").partition("/")
            if not below or int(below):
                return Fraction(whole) / (int(below) if below else 1)
    return None


CHECKERS: Mapping[str, Callable[[str, str], bool]] = {"exact": _exact, "contains": _contains, "number": _number}

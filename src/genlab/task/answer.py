"""Answers to held-out conversations, compared with the answers that are there."""

import copy
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self, cast

import numpy as np

from genlab.data.base import DataModule, DataSpec, Split
from genlab.data.conversation import Conversation
from genlab.data.conversation_data import ConversationData
from genlab.data.tokenizer.base import CaptionTokenizer, Tokenizer
from genlab.errors import ConfigError
from genlab.machine.rank import rank
from genlab.model.answering import answers, check_answers
from genlab.model.base import GenerativeModel
from genlab.progress import progress
from genlab.sampling.examples import Examples
from genlab.sampling.texts import Texts
from genlab.seeding import derive_seed


class Answer:
    """Sample i answers conversation i of ``count``, which are spread evenly over the split: all its messages but the
    last answer, which is reference i. With more samples than conversations, the first come again after the last.

    The model's sampler draws the answers; ``model.sampler.temperature=0`` takes the most likely token always.
    """

    key: ClassVar[str] = "text"
    suited: ClassVar[str] = "metrics=[perplexity]"
    of_samples: ClassVar[str] = "metrics=[chrf]"
    data: ConversationData
    split: Split

    def __init__(self) -> None:
        self.count = 0

    def form(self, spec: Mapping[str, Any], tokenizer: CaptionTokenizer | None) -> Texts:
        assert tokenizer is not None, "conversations have one"
        return Texts(cast(Tokenizer, tokenizer))

    def check(self, spec: DataSpec) -> None:
        """Raises ConfigError: the data are not text."""
        if spec.modality != "text":
            raise ConfigError(f"task=answer is for conversations; the data are {spec.modality}. Leave task= out.")

    def on(self, data: DataModule, split: Split) -> Self:
        self.check(data.spec)
        if not isinstance(data, ConversationData):
            raise ConfigError(
                f"task=answer is for conversations; {type(data).__name__} has none. Use task=continue_text."
            )
        bound = copy.copy(self)
        bound.data, bound.split = data, split
        return bound

    def gives(self, model: GenerativeModel) -> frozenset[str]:
        return frozenset({self.key})

    def sized(self, count: int, of: GenerativeModel | Examples) -> Self:
        """Raises ConfigError: the model does not answer."""
        if isinstance(of, GenerativeModel):
            check_answers(of, "task=answer")
        sized = copy.copy(self)
        sized.count = count
        return sized

    def chosen(self, indices: Sequence[int]) -> list[Conversation]:
        """The conversations that samples of these numbers answer."""
        known = self.data.known(self.split)
        numbers = np.array(indices, dtype=np.int64) % len(known)
        if 0 < self.count < len(known):
            numbers = np.linspace(0, len(known) - 1, self.count).round().astype(np.int64)[numbers]
        return [known[number] for number in numbers.tolist()]

    def reference(self) -> Examples:
        count = self.count or len(self.data.known(self.split))
        return Examples({"text": [one.answer for one in self.chosen(range(count))]})

    def reference_hash(self) -> str:
        """A hash of the conversations, and of how many are answered."""
        return f"{self.data.text_hash(self.split)[:16]}-{self.count}"

    def facts(self) -> dict[str, Any]:
        template = hashlib.sha256(self.data.template.source.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return {
            "reference": self.split,
            "reference_sha256": self.data.text_hash(self.split)[:16],
            "tokenizer": self.data.tokenizer.fingerprint(),
            "vocab_size": self.data.tokenizer.vocab_size,
            "context": self.data.context,
            "template": template,
        }

    def condition_facts(self, keys: Iterable[str]) -> dict[str, str]:
        return {}

    def asked_facts(self, model: GenerativeModel) -> dict[str, Any]:
        return {"sample_length": getattr(model, "sample_length", None)}

    def asked(self, model: GenerativeModel, indices: Sequence[int]) -> None:
        """Prompts of different lengths are padded where they are drawn."""

    def draw(self, model: GenerativeModel, indices: Sequence[int], seed: int, batch_size: int) -> Examples:
        """Answers without their end."""
        chat = self.data.chat
        prompts = [chat.prompt(one.prompt, one.where) for one in self.chosen(indices)]
        texts: list[str] = []
        with progress(f"drawing {len(indices):,} answers", len(indices), quiet=rank() != 0) as advance:
            for found in answers(model, prompts, indices, seed, chat.end, batch_size):
                texts += [chat.answer(answer) for answer in found]
                advance(len(found))
        return Examples({"text": texts})

    def check_examples(self, examples: Examples) -> None:
        """Nothing to check: answers of any length are compared."""

    def baselines(self, count: int, seed: int) -> dict[str, Examples]:
        """As many answers of each kind as samples.

        * ``most_frequent_answer``: that of the training conversations, always. What a model must beat.
        * ``other_answers``: those of training conversations, drawn at random. The score of chance.
        """
        known = [one.answer for one in self.data.known("train")]
        ((common, _),) = Counter(known).most_common(1)
        drawn = np.random.default_rng(derive_seed(seed, 0)).integers(0, len(known), count)
        return {
            "most_frequent_answer": Examples({"text": [common] * count}),
            "other_answers": Examples({"text": [known[i] for i in drawn]}),
        }

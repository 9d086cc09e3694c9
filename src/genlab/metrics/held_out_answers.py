"""Lets a model answer held-out conversations."""

from collections.abc import Iterator

import numpy as np

from genlab.data.base import DataModule, Split
from genlab.data.conversation import Conversation
from genlab.data.conversation_data import ConversationData
from genlab.errors import ConfigError
from genlab.machine.rank import rank, world
from genlab.metrics.data_of import text_of
from genlab.model.answering import answers, check_answers
from genlab.model.base import GenerativeModel
from genlab.progress import progress


def conversations_of(data: DataModule, metric: str) -> ConversationData:
    """Raises ConfigError if the data are not conversations. ``metric``: its name, for the message."""
    text = text_of(data, metric)
    if not isinstance(text, ConversationData):
        raise ConfigError(f"metrics={metric} is for conversations; the data are text. Leave it out of metrics=[...].")
    return text


def check_answered(metric: str, model: GenerativeModel, data: DataModule) -> None:
    """Raises ConfigError: the data are not conversations, or the model does not answer."""
    conversations_of(data, metric)
    check_answers(model, f"metrics={metric}")


def answered(
    model: GenerativeModel,
    data: ConversationData,
    split: Split,
    count: int | None,  # conversations, spread evenly over the split; None: all
    batch_size: int,
    seed: int,
) -> Iterator[tuple[Conversation, str]]:
    """This rank's conversations and the model's answers, each a function of (seed, number of the conversation)."""
    known, chat = data.known(split), data.chat
    numbers = np.arange(len(known))
    if count is not None and count < len(known):
        numbers = np.linspace(0, len(known) - 1, count).round().astype(np.int64)
    mine = numbers[rank() :: world()].tolist()
    prompts = [chat.prompt(known[i].prompt, known[i].where) for i in mine]
    with progress(f"answering {len(mine):,} questions", len(mine), quiet=rank() != 0) as advance:
        drawn = answers(model, prompts, mine, seed, chat.end, batch_size)
        texts = []
        for batch in drawn:
            texts += [chat.answer(answer) for answer in batch]
            advance(len(batch))
    yield from zip([known[i] for i in mine], texts, strict=True)

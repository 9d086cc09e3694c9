"""The captions of a model that is taught a new word."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genlab.model.condition_kind import Caption


@dataclass(frozen=True)
class TaughtCaption(Caption):
    """Captions with one more word than a trained model has, the last of ``names``. Training pictures have those that
    the data give them, whose words are numbered in ``table``, or without these ``examples`` in turn."""

    table: Sequence[int] = ()  # the number here of each word of the data

    def of(self, batch: Mapping[str, Tensor]) -> Tensor:
        """(N, length), by ``caption`` (N, T), or by ``index`` (N,)."""
        if not self.table:
            return self.example(batch["index"].tolist()).to(batch["index"].device)
        told = torch.tensor(self.table, device=batch["caption"].device)[batch["caption"]]
        value = self.nothing(len(told), told.device)
        value[:, : told.shape[1]] = told[:, : self.length]
        return value


def taught(base: Caption, word: str, prompts: Sequence[str] | None, data: Mapping[str, Any] | None) -> TaughtCaption:
    """Captions of ``base`` with ``word`` too.

    Args:
        prompts: captions for all pictures, in turn; None: those of the data, or the word alone
        data: the data's captions, of their ``spec.condition``; None: they have none

    Raises ValueError: the words of the base are not known, the word is one of them, or a caption has another one.
    """
    if not base.names:
        raise ValueError(
            "model.base: its captions are not made of whole words, so none can be added. Train the base with "
            "data/tokenizer=words."
        )
    if word != word.lower() or len(word.split()) != 1:
        raise ValueError(f"model.word={word!r} must be one word in lower case, such as model.word=sks")
    if word in base.names:
        raise ValueError(f"model.word={word}: the base knows this word. Choose another, such as model.word={word}2")
    names = (*base.names, word)
    theirs = list((data or {}).get("names") or ())
    table: list[int] = []
    if prompts is None and theirs:
        strange = [name for name in theirs[1:] if name not in names]
        if strange:
            raise ValueError(
                f"the captions of the data have the word '{strange[0]}', which the base does not know. Change them, or "
                f"give all pictures one: model.prompts=[{word}]"
            )
        table = [0, *(names.index(name) for name in theirs[1:])]
        if names.index(word) not in table:
            raise ValueError(
                f"no caption of the data has the word model.word={word}. Write it into them, or give all pictures one: "
                f"model.prompts=[{word}]"
            )
        prompts = list((data or {}).get("examples") or ()) or None
    found = TaughtCaption(base.size + 1, base.length, names, tuple(prompts or (word,)), table=tuple(table))
    for prompt in found.examples:
        try:
            value = found.read(prompt)
        except ValueError as error:
            raise ValueError(f"model.prompts: {error}") from error
        if not table and not (value == base.size).any():
            raise ValueError(
                f"model.prompts: '{prompt}' has not the word model.word={word}, which is to be learned. Write it into "
                f"the prompt: model.prompts=[{word}]"
            )
    return found

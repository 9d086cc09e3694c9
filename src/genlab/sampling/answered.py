"""Samples of a run of conversations: the prompt is a question, and samples answer it."""

from pathlib import Path

import torch
from torch import Tensor

from genlab.data.chat_tokens import ChatTokens
from genlab.model.base import Condition, GenerativeModel
from genlab.sampling.form import Typed
from genlab.sampling.texts import Texts


class Answered(Texts):
    """Answers to ``prompt``, each up to its end. Without a prompt, text that begins anywhere."""

    def __init__(self, chat: ChatTokens):
        super().__init__(chat.tokenizer)
        self.chat, self.end = chat, chat.end

    def content(self, samples: Tensor) -> list[str]:
        rows = (row[: row.index(self.end)] if self.end in row else row for row in samples.cpu().tolist())
        return [self.tokenizer.decode(row, self.before) for row in rows]

    def read(self, model: GenerativeModel, typed: Typed, run: Path) -> Condition:
        """``prompt``, (1, P) tokens of a conversation. Raises ConfigError for a character that the run has no token
        for."""
        if not super().read(model, typed, run):
            return {}
        question = self._prompt
        self._prompt = f"{question}\n"
        asked = self.chat.prompt([{"role": "user", "content": question}], "the prompt")
        self.before = int(asked[-1])
        return {"prompt": torch.from_numpy(asked)[None]}

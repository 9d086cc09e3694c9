"""Conversations for runs of seconds, and tokenizers with special tokens."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from genlab.data.conversation_data import ConversationData
from genlab.data.tokenizer.base import Tokenizer
from genlab.data.tokenizer.bytes import Bytes

SMALL = ("model.network.width=8", "model.network.num_heads=1", "model.network.depth=1")


def said(*contents: str) -> list[dict[str, str]]:
    """A user and an assistant in turn."""
    return [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]


def lines(rows: Iterable[Any], path: Path) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def chats(folder: Path, count: int = 40) -> tuple[str, ...]:
    """The overrides that train on a file of conversations, of one or two questions each."""
    rows = [{"messages": said(f"{i}?", f"= {i}", *(("and?", "no") if i % 3 == 0 else ()))} for i in range(count)]
    path = lines(rows, folder / "chats.jsonl")
    return ("data=conversations", f"data.path={path}", f"data.cache_dir={folder / 'cache'}", "data.context=64")


class Given(ConversationData):
    """The same conversations in both splits."""

    def __init__(self, conversations: Any, folder: Path, tokenizer: Tokenizer | None = None, **options: Any):
        super().__init__(tokenizer or Bytes(), cache_dir=str(folder), **options)
        self.given = conversations

    def conversations(self, split: Any) -> Any:
        return self.given

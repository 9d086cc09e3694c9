"""Conversations in files of JSON lines, or of a Hugging Face data set."""

import json
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from genlab.data import hub
from genlab.data.array_cache import cached_array, digest
from genlab.data.base import Split
from genlab.data.conversation import Columns, Conversation, part_of, read_lines
from genlab.data.conversation_data import ConversationData
from genlab.data.text_files import read_text
from genlab.data.tokenizer.base import Tokenizer
from genlab.errors import ConfigError, DataError

_HUB = "hf:"


class Conversations(ConversationData):
    """Rows of ``messages``, as OpenAI has them ([{"role": ..., "content": ...}]); of ``conversations``, as ShareGPT has
    them ([{"from": ..., "value": ...}]); or with a column for a question and one for its answer.

    Held out are the rows of another file, or those whose question, all that precedes the first answer, has a hash below
    ``val_fraction``: so equal questions are on one side. A data set of the Hub is kept in the cache; later runs need no
    network.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        path: str,  # of JSON lines; or hf: and the name of a data set at the Hub, or a folder of one
        val_path: str | None = None,  # the held-out rows, likewise; null: a part of path, see val_fraction
        val_fraction: float = 0.1,  # in (0, 1)
        prompt: str | None = None,  # the column of questions; null: rows have messages
        answer: str | None = None,  # the column of answers
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
            tokenizer, template, counted, packing, context, cache_dir, batch_size, num_workers, limit, seed
        )
        if not 0 < val_fraction < 1:
            raise ConfigError(f"data.val_fraction must lie between 0 and 1, got {val_fraction}.")
        if (prompt is None) != (answer is None):
            raise ConfigError("a question needs an answer: set both, data.prompt=... data.answer=...")
        if val_split is not None and (val_path is not None or not path.startswith(_HUB)):
            raise ConfigError(f"data.val_split={val_split} is of a data set of hf:... Leave it out.")
        self.path, self.val_path, self.val_fraction = path, val_path, val_fraction
        self.columns: Columns = Columns(prompt, answer, system)
        self.config, self.split, self.val_split, self.revision = config, split, val_split, revision

    def conversations(self, split: Split) -> Sequence[Conversation]:
        """Raises DataError: there is no such file or data set, a row is no conversation, or there are too few."""
        own_val = self.val_path is not None or self.val_split is not None
        path = self.val_path if split == "val" and self.val_path is not None else self.path
        rows = self.val_split if split == "val" and self.val_split is not None else self.split
        found = list(self._of_hub(path.removeprefix(_HUB), rows) if path.startswith(_HUB) else self._of_file(path))
        if not found:
            raise DataError(f"{path} has no conversations.")
        return found if own_val else part_of(found, split == "val", self.val_fraction)

    def _of_file(self, path: str) -> Iterator[Conversation]:
        return read_lines(read_text(path).split("\n"), path, self.columns)

    def _of_hub(self, name: str, split: str) -> Iterator[Conversation]:
        hub.require_datasets("conversations", "text")
        version = hub.version(name, self.revision, self.cache)

        def lines() -> Iterator[np.ndarray]:
            yield np.zeros(0, np.uint8)
            for row in hub.read(hub.open_stream(name, self.config, split, version), name, split):
                yield np.frombuffer(json.dumps(row, default=str).encode() + b"\n", np.uint8)

        key = digest(1, name, version, self.config, split)
        text = cached_array(self.cache, f"rows-{key}", lines).tobytes().decode()
        return read_lines(text.removesuffix("\n").split("\n"), f"{_HUB}{name} ({split})", self.columns)

    def title(self, split: Split) -> str:
        if split == "train":
            return self.path
        return f"the held-out part of {self.path}" if self.val_path is None else self.val_path

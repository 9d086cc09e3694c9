"""A text file."""

from collections.abc import Iterable

from genlab.data.base import Split
from genlab.data.text import TextDataModule
from genlab.data.text_files import read_text, stamp_of
from genlab.data.tokenizer.base import Tokenizer, place_of
from genlab.errors import ConfigError


class TextFile(TextDataModule):
    """One file in UTF-8, as one document. Its end, or a separate file, is held out."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        path: str,
        val_path: str | None = None,  # the held-out text; null: the end of path, see val_fraction
        val_fraction: float = 0.1,  # in (0, 1), of the characters
        context: int = 64,  # tokens that the model sees at once
        cache_dir: str | None = None,  # null: $GENLAB_CACHE, else ~/.cache/genlab
        batch_size: int = 32,  # windows in a step, over all ranks together
        num_workers: int = 0,
        limit: int | None = None,
        seed: int = 0,  # of the order of the windows, and of where they are cut
    ):
        """Raises ConfigError if a value is out of its range."""
        super().__init__(tokenizer, context, cache_dir, batch_size, num_workers, limit, seed)
        if not 0 < val_fraction < 1:
            raise ConfigError(f"data.val_fraction must lie between 0 and 1, got {val_fraction}.")
        self.path, self.val_path, self.val_fraction = path, val_path, val_fraction

    def documents(self, split: Split) -> Iterable[str]:
        if self.val_path is not None:
            return [read_text(self.path if split == "train" else self.val_path)]
        text = read_text(self.path)
        held_out = int((1 - self.val_fraction) * len(text))
        return [text[:held_out] if split == "train" else text[held_out:]]

    def stamp(self, split: Split) -> str | None:
        path = self.path if split == "train" or self.val_path is None else self.val_path
        return stamp_of([path], self.val_fraction if self.val_path is None else None)

    def place(self, split: Split, document: str, position: int) -> str:
        """The position in the whole file, for both splits."""
        if split == "val" and self.val_path is None:
            text = read_text(self.path)
            document, position = text, position + len(text) - len(document)
        path = self.val_path if split == "val" and self.val_path is not None else self.path
        return f"{place_of(document, position)} of {path}"

    def title(self, split: Split) -> str:
        if split == "train":
            return self.path
        return f"the held-out part of {self.path}" if self.val_path is None else self.val_path

"""A folder of text files."""

from collections.abc import Iterable

from genlab.data.base import Split
from genlab.data.held_out import held_out_names
from genlab.data.text import TextDataModule
from genlab.data.text_files import list_texts, read_texts, stamp_of
from genlab.data.tokenizer.base import Tokenizer
from genlab.errors import ConfigError, DataError
from genlab.files.paths import read_path


class TextFolder(TextDataModule):
    """Files in UTF-8 under a folder, at any depth, sorted by name. Each is a document."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        root: str,  # folder of texts
        pattern: str = "**/*.txt",  # of the files; **/ is any depth
        val_root: str | None = None,  # the held-out texts; null: a fixed part of root, see val_fraction
        val_fraction: float = 0.1,  # in (0, 1): held out by the hash of the file name, so it stays when files are added
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
        self.root, self.pattern, self.val_root, self.val_fraction = root, pattern, val_root, val_fraction

    def documents(self, split: Split) -> Iterable[str]:
        if split == "val" and self.val_root is not None:
            return read_texts(self.val_root, list_texts(self.val_root, self.pattern))
        names = list_texts(self.root, self.pattern)
        if self.val_root is None:
            if len(names) < 2:
                raise DataError(f"{self.root} has one text; at least one to train and one to hold out are needed.")
            held_out = held_out_names(names, self.val_fraction)
            names = [name for name in names if (name in held_out) == (split == "val")]
        return read_texts(self.root, names)

    def stamp(self, split: Split) -> str | None:
        root = self.root if split == "train" or self.val_root is None else self.val_root
        names = list_texts(root, self.pattern)
        return stamp_of(
            [read_path(root) / name for name in names],
            None if self.val_root is not None else (self.val_fraction, names),
        )

    def title(self, split: Split) -> str:
        root = self.val_root if split == "val" and self.val_root is not None else self.root
        return f"the text in {root}" if self.val_root is not None else f"{super().title(split)} in {root}"

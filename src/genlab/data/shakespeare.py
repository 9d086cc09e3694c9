"""Tiny Shakespeare, as published with char-rnn."""

import os
from collections.abc import Iterable
from pathlib import Path

from genlab.data.base import Split
from genlab.data.download import Archive, fetch, is_there
from genlab.data.folder import locked_folder
from genlab.data.text import TextDataModule
from genlab.data.text_files import read_text
from genlab.data.tokenizer.base import Tokenizer
from genlab.errors import DataError
from genlab.files.paths import read_path

_ARCHIVE = Archive(
    "input.txt",
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ("https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",),
    "sha256",
)


class Shakespeare(TextDataModule):
    """1,115,394 characters, 65 different ones, of plays by Shakespeare (Karpathy 2015), one document.

    As in nanoGPT, the first 90 % are for training and the last 10 % are held out.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        root: str = "data",  # holds, or gets, tinyshakespeare/input.txt
        path: str | None = None,  # of a copy elsewhere
        download: bool = True,  # 1.1 MB, if it is not there
        context: int = 64,  # tokens that the model sees at once
        cache_dir: str | None = None,  # null: $GENLAB_CACHE, else ~/.cache/genlab
        batch_size: int = 32,  # windows in a step, over all ranks together
        num_workers: int = 0,
        limit: int | None = None,
        seed: int = 0,  # of the order of the windows, and of where they are cut
    ):
        super().__init__(tokenizer, context, cache_dir, batch_size, num_workers, limit, seed)
        self.folder, self.path, self.download = os.path.join(root, "tinyshakespeare", ""), path, download

    def documents(self, split: Split) -> Iterable[str]:
        """The part of the text. Raises DataError if it is missing and cannot be downloaded, or is a different text."""
        text = read_text(self._file())
        held_out = int(0.9 * len(text))
        return [text[:held_out] if split == "train" else text[held_out:]]

    def _file(self) -> Path:
        if self.path is not None:
            path = read_path(self.path)
            if path.is_file() and not is_there(_ARCHIVE, path):
                raise DataError(f"{self.path} is not Tiny Shakespeare. For another text: data=text_file.")
            return path
        path = read_path(self.folder) / _ARCHIVE.name
        if not is_there(_ARCHIVE, path):
            with locked_folder(self.folder) as folder:
                try:
                    fetch("Tiny Shakespeare", [_ARCHIVE], folder, self.folder, self.download)
                except DataError as error:
                    raise DataError(f"{error} Or set data.path to a copy of it.") from error
        return path

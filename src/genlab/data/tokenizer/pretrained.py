"""Pretrained tokenizers from a file or the Hugging Face Hub."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from genlab.data.tokenizer.byte_level import ByteLevel
from genlab.errors import DataError
from genlab.files.paths import read_path

if TYPE_CHECKING:
    import tokenizers

_FILE = "tokenizer.json"
_TIMEOUT = 5.0  # seconds in which the Hub has to answer


class Pretrained(ByteLevel):
    """A byte-level tokenizer from a file, or of a model at the Hugging Face Hub: GPT-2's, Llama 3's, Qwen's.

    It is read when it is first needed, and downloaded only once. A file holds rules and
    tokens, no code.
    """

    def __init__(
        self,
        name: str,  # of a model at the Hub, like gpt2; or a tokenizer.json, or a folder that holds one
        end_token: str | None = "<|endoftext|>",  # at the end of a document; null: none
        vocab_size: int | None = None,  # of the model, which may have tokens that no text has; null: as in the file
    ):
        super().__init__(end_token)
        self.name, self._wanted = name, vocab_size

    def train(self, documents: Iterable[str]) -> None:
        """Only reads the file. Raises DataError if it is missing or of another kind."""
        assert self.core

    def load_state(self, state: str) -> None:
        """Raises DataError also if there are more tokens than ``vocab_size``."""
        super().load_state(state)
        if self._wanted is None:
            return
        if self._wanted < len(self._bytes):
            raise DataError(f"it has {len(self._bytes)} tokens, and data.tokenizer.vocab_size={self._wanted}.")
        self._bytes += [b""] * (self._wanted - len(self._bytes))

    @property
    def core(self) -> "tokenizers.Tokenizer":
        if self._core is None:
            file = self._file()
            try:
                self.load_state(file.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"cannot read {file}, which data.tokenizer.name={self.name} leads to.") from error
            except DataError as error:
                raise DataError(f"data.tokenizer.name={self.name}: {error}") from error
        assert self._core is not None
        return self._core

    def _file(self) -> Path:
        path = read_path(self.name)
        if path.is_file():
            return path
        if (path / _FILE).is_file():
            return path / _FILE
        return Path(self._from_the_hub())

    @property
    def end_token(self) -> str | None:
        return self._end_token

    def beside(self, name: str) -> Path | None:
        """Another file of the same folder, or of the same model at the Hub; None: there is none."""
        path = read_path(self.name)
        if path.exists():
            found = (path.parent if path.is_file() else path) / name
            return found if found.is_file() else None
        from huggingface_hub import hf_hub_download

        try:
            return Path(hf_hub_download(self.name, name, etag_timeout=_TIMEOUT))
        except Exception:  # of many kinds: it is not there, or cannot be reached
            return None

    def _from_the_hub(self) -> str:
        from huggingface_hub import HfApi, hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        try:
            return hf_hub_download(self.name, _FILE, local_files_only=True)
        except HFValidationError as error:
            raise DataError(
                f"there is no file {self.name}. Set data.tokenizer.name to a {_FILE}, or to a name like gpt2."
            ) from error
        except LocalEntryNotFoundError:
            pass
        try:
            HfApi().model_info(self.name, timeout=_TIMEOUT)  # the next line would try for half a minute
            return hf_hub_download(self.name, _FILE)
        except Exception as error:  # of the network, in the classes of whichever HTTP library is below
            if isinstance(error, HfHubHTTPError) and getattr(error.response, "status_code", 0) in (401, 403, 404):
                text = f"the Hugging Face Hub has no {_FILE} of {self.name} that you may read."
                raise DataError(text) from error
            raise self._unreachable() from error

    def _unreachable(self) -> DataError:
        return DataError(
            f"the tokenizer {self.name} is not here and the Hugging Face Hub cannot be reached. "
            f"Fetch https://huggingface.co/{self.name}/resolve/main/{_FILE} and set data.tokenizer.name to that file."
        )

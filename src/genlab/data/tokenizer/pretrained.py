"""Pretrained tokenizers from a file or the Hugging Face Hub."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genlab.data.tokenizer import sentence_piece
from genlab.data.tokenizer.base import utf8
from genlab.data.tokenizer.byte_level import ByteLevel, is_byte_level, made_core, pieces
from genlab.errors import DataError
from genlab.files.paths import read_path

if TYPE_CHECKING:
    import tokenizers

_FILE = "tokenizer.json"
_TIMEOUT = 5.0  # seconds in which the Hub has to answer


class Pretrained(ByteLevel):
    """A tokenizer from a file, or of a model at the Hugging Face Hub: a byte-level one, such as GPT-2's, Llama 3's or
    Qwen's, or one of SentencePiece with bytes for what has no token, such as Llama 2's or Mistral's.

    It is read when it is first needed, and downloaded only once. A file holds rules and
    tokens, no code. Of SentencePiece, the character U+2581 comes back as a space; and a first space of a text is lost
    where the tokenizer adds one only to texts without (Metaspace).
    """

    def __init__(
        self,
        name: str,  # of a model at the Hub, like gpt2; or a tokenizer.json, or a folder that holds one
        end_token: str | None = "<|endoftext|>",  # at the end of a document; null: none
        vocab_size: int | None = None,  # of the model, which may have tokens that no text has; null: as in the file
        begin_token: str | None = None,  # before a document and before a prompt, as Llama's <s>; null: none
    ):
        super().__init__(end_token, begin_token)
        self.name, self._wanted = name, vocab_size
        self._added: sentence_piece.Added = "never"
        self._cut = True  # long texts
        self._within: tokenizers.Tokenizer  # encodes what does not begin a text
        self._starts = self._precede = np.zeros(0, dtype=bool)  # (V,), see _find_added

    def train(self, documents: Iterable[str]) -> None:
        """Only reads the file. Raises DataError if it is missing or of another kind."""
        assert self.core

    def load_state(self, state: str) -> None:
        """Raises DataError also if there are more tokens than ``vocab_size``."""
        super().load_state(state)
        if self._wanted is not None:
            if self._wanted < len(self._bytes):
                raise DataError(f"it has {len(self._bytes)} tokens, and data.tokenizer.vocab_size={self._wanted}.")
            self._bytes += [b""] * (self._wanted - len(self._bytes))
        self._find_added(json.loads(state))

    def bytes_by(self, content: dict[str, Any]) -> Callable[[str], bytes]:
        """Raises DataError: it is of neither kind, and why."""
        self._added, self._cut = "never", True
        if is_byte_level(content):
            return super().bytes_by(content)
        try:
            self._added = sentence_piece.added_space(content)
        except DataError as error:
            raise DataError(
                "it has to be byte-level, as GPT-2's and Llama 3's are, or of SentencePiece, as Llama 2's is; and "
                f"{error}."
            ) from error
        self._is_plain, self._cut = True, sentence_piece.stays_before_spaces(content)
        return sentence_piece.bytes_of

    def _find_added(self, content: Mapping[str, Any]) -> None:
        """Which tokens begin with a space, and which are those that one may be added after."""
        self._within = self.core
        if self._added == "never":
            return
        self._within = made_core(json.dumps(sentence_piece.without_added_space(content)))
        self._starts = np.array([found.startswith(b" ") for found in self._bytes])
        self._precede = np.zeros(len(self._bytes), dtype=bool)
        around = [token for token in (self.begin, self.end) if token is not None]  # documents begin after these
        self._precede[[token["id"] for token in content["added_tokens"]] if self._added == "always" else around] = True

    def encode(self, text: str) -> np.ndarray:
        return self._by(self.core, text)

    def encode_within(self, text: str, after_special: bool) -> np.ndarray:
        core = self.core
        return self._by(core if after_special and self._added == "always" else self._within, text)

    def _by(self, first: "tokenizers.Tokenizer", text: str) -> np.ndarray:
        """A text whose first part is encoded by ``first``, the others where no space is added."""
        utf8(text)
        parts = pieces(text) if self._cut else [text] if text else []
        return self.joined((self._within if i else first, part) for i, part in enumerate(parts))

    def bytes_after(self, token: int, before: int | None) -> bytes:
        found = self.bytes_of(token)
        if self._added == "never" or not self._starts[token]:
            return found
        return found[1:] if before is None or self._precede[before] else found

    def added_spaces(self, tokens: np.ndarray, before: np.ndarray) -> int:
        is_never = not self.core or self._added == "never"
        return 0 if is_never else int((self._starts[tokens] & self._precede[before]).sum())

    def fingerprint(self) -> str:
        own = super().fingerprint()
        if self._begin_token is None:
            return own
        return hashlib.blake2b(f"{own} {self._begin_token}".encode(), digest_size=8).hexdigest()

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


def token_before(content: Mapping[str, Any]) -> str | None:
    """The special token that a tokenizer.json puts before a text, as transformers does; None: there is none. Raises
    ValueError: it puts several there, or has rules that are not known."""
    after = content.get("post_processor") or {}
    for part in after.get("processors", [after]):
        kind = part.get("type")
        if kind == "TemplateProcessing":
            first = takewhile(lambda one: "SpecialToken" in one, part["single"])
            found = [name for one in first for name in part["special_tokens"][one["SpecialToken"]["id"]]["tokens"]]
            if len(found) > 1:
                raise ValueError(f"its tokenizer puts several tokens before a text ({' '.join(found)})")
            if found:
                return str(found[0])
        elif kind not in (None, "ByteLevel"):
            raise ValueError(f"the post_processor {kind} of its tokenizer is not supported")
    return None

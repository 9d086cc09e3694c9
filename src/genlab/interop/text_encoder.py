"""Frozen text encoders of Hugging Face's transformers: captions to vectors, as a whole and token by token."""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genlab.data.array_cache import default_folder
from genlab.data.tokenizer.rules import check_rules
from genlab.errors import ConfigError
from genlab.files.regular_file import read_bytes
from genlab.interop.text_features import TextFeatures, fingerprint
from genlab.model.network.embedding import Words

TOKENIZER = "tokenizer"  # its file, as a tensor of bytes beside the weights, which need exactly this tokenizer


class TextEncoder(nn.Module):
    """A frozen encoder with its tokenizer. Texts longer than its context are cut, which a warning says once.

    A text is encoded alone, and padded to the whole context, so that its outputs depend on nothing else; then they are
    kept (:class:`TextFeatures`).
    """

    network: Any  # made in configure_model
    tokenizer: Tensor  # (tokenizer_bytes,) uint8, made with the network
    gives_padding = False  # outputs for padding too, which some networks were trained to read

    def __init__(self, tokenizer_bytes: int, width: int, length: int, pad: int):
        super().__init__()
        self.tokenizer_bytes, self.width, self.length, self.pad = tokenizer_bytes, width, length, pad
        self.register_module("network", None)
        self._core: Any = None
        self._features: TextFeatures | None = None
        self._has_said = False

    def make(self) -> nn.Module:
        """The network. Raises ImportError: transformers is not installed."""
        raise NotImplementedError

    def run(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(1, T) tokens and which of them are no padding -> the vector (1, width), and all outputs (1, T, width)."""
        raise NotImplementedError

    def configure_model(self) -> None:
        """Make the network. Raises ConfigError: transformers is not installed, or the sizes do not go together."""
        if self.network is not None:
            return
        try:
            self.network = self.make()
        except ImportError as error:
            raise ConfigError("a text encoder needs a package: pip install 'genlab[clip]'") from error
        self.register_buffer(TOKENIZER, torch.zeros(self.tokenizer_bytes, dtype=torch.uint8))
        self.requires_grad_(False).eval()

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """-> (N, width), on the device that the weights are on."""
        return torch.stack([self._of(text)[0] for text in texts]).to(self.tokenizer.device)

    def encode_words(self, texts: Sequence[str]) -> tuple[Tensor, Words]:
        """The vectors, (N, width), and the outputs for all tokens up to the longest text's last."""
        found = [self._of(text) for text in texts]
        longest = max(len(rows) - 1 for rows in found)
        tokens = torch.stack([nn.functional.pad(rows[1:], (0, 0, 0, longest + 1 - len(rows))) for rows in found])
        seen = torch.tensor([[place < len(rows) - 1 for place in range(longest)] for rows in found])
        device = self.tokenizer.device
        vectors = torch.stack([rows[0] for rows in found]).to(device)
        return vectors, Words(tokens.to(device), seen.to(device))

    @torch.no_grad()
    def _of(self, text: str) -> Tensor:
        """The vector of a text, and below it the outputs for its tokens without padding. On the CPU, in float32."""
        if self._features is None:
            padded = "padded-" * self.gives_padding
            self._features = TextFeatures(default_folder(), padded + fingerprint(self.state_dict()), self.width)
        if (found := self._features.get(text)) is not None:
            return found
        row = self.core.encode(text)
        if row.overflowing and not self._has_said:
            self._has_said = True
            count = sum(sum(part.attention_mask) for part in (row, *row.overflowing))
            warnings.warn(
                f"captions longer than the {self.length} tokens that the encoder reads are cut, such as "
                f"{text[:60]!r}, which has {count}.",
                stacklevel=2,
            )
        device = self.tokenizer.device
        mask = torch.tensor([row.attention_mask], device=device)
        with torch.autocast(device.type, enabled=False):  # what is kept does not depend on a run's precision
            vector, outputs = self.run(torch.tensor([row.ids], device=device), mask)
        kept = outputs[0] if self.gives_padding else outputs[0, mask[0] > 0]
        found = torch.cat([vector, kept]).float().cpu()
        self._features.put(text, found)
        return found

    @property
    def core(self) -> Any:
        """The tokenizer, once the weights are there. Raises DataError: its rules take too long, or fail."""
        if self._core is None:
            from tokenizers import Tokenizer

            state = bytes(self.tokenizer.cpu().numpy()).decode("utf-8")
            check_rules(state, json.loads(state))  # it may come from an untrusted run
            self._core = Tokenizer.from_str(state)
            self._core.enable_truncation(self.length)
            self._core.enable_padding(pad_id=self.pad, length=self.length)
        return self._core


def mean_of(outputs: Tensor, mask: Tensor) -> Tensor:
    """(N, T, width), (N, T) -> (N, width), of what is no padding."""
    share = mask[..., None].to(outputs.dtype)
    return (outputs * share).sum(dim=1) / share.sum(dim=1)


def settings_in(config: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Those of a folder's config.json that are plain values."""
    return {name: config[name] for name in names if type(config.get(name)) in (bool, int, float, str)}


def tokenizer_of(folder: Path, kind: str) -> bytes:
    """The tokenizer's file, or one made from files of the older format by transformers' class ``kind``. Raises
    ConfigError."""
    path = folder / "tokenizer.json"
    if path.is_file():
        return read_bytes(path.resolve())
    try:
        import transformers

        for name in ("vocab.json", "merges.txt") if kind.startswith("CLIP") else ():
            if not (folder / name).is_file():  # without them an empty tokenizer would be made
                raise FileNotFoundError(name)
        kinds: Any = transformers  # whose types do not know these
        made = getattr(kinds, kind).from_pretrained(folder, local_files_only=True)
        return str(made.backend_tokenizer.to_str()).encode()
    except Exception as error:  # of many kinds: a file is missing, or not what its name says
        raise ConfigError(
            f"{folder} has no tokenizer.json and no other readable tokenizer files. Save it there too: "
            f"{kind}.from_pretrained(...).save_pretrained(folder)."
        ) from error

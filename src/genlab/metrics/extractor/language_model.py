"""Text features from a language model of Hugging Face transformers: a folder, or a name at the Hub."""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from genlab.data.hub import model_folder
from genlab.errors import ConfigError, DataError, ResourceError
from genlab.files.paths import read_path
from genlab.metrics.extractor.fingerprint import network_fingerprint
from genlab.metrics.extractor.precision import full_precision

_OF_THE_FILE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype")  # not of what it computes


class LanguageModel:
    """The last layer's state at the last token of a text, as MAUVE takes it (Pillutla et al. 2021, section 4).

    Any model with weights as safetensors and a tokenizer will do: causal ones, whose last token has seen the whole text
    (``gpt2``, ``gpt2-large`` of the paper), are meant. Code and pickles that come with a model are not run.
    """

    modality: Literal["text"] = "text"
    gives = frozenset({"features"})

    def __init__(
        self,
        name: str,  # a folder with config.json, *.safetensors and a tokenizer; or a name at the Hub, like gpt2
        revision: str | None = None,  # at the Hub: a branch, tag or commit
        max_length: int = 512,  # tokens; longer texts are cut
        batch_size: int = 16,  # texts per pass
    ):
        """
        Raises:
            ConfigError: transformers is not installed, or an argument is out of its range.
            ResourceError: the model is neither here nor can be downloaded, or its weights are not safetensors.
        """
        if max_length < 1 or batch_size < 1:
            raise ConfigError(f"metrics.extractor: max_length={max_length}, batch_size={batch_size} must be >= 1.")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads hang, or warn, in forked processes
        try:
            import transformers
        except ImportError as error:
            raise ConfigError("this extractor needs a package: pip install 'genlab[text]'") from error
        folder = read_path(name)
        folder = folder if folder.is_dir() else model_folder(name, revision)
        if not list(folder.glob("*.safetensors")):
            raise ResourceError(f"{folder} has no *.safetensors. Save the model with save_pretrained of transformers.")
        transformers.utils.logging.disable_progress_bar()  # of loading, which takes no time
        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, **options)
            self.network: Any = transformers.AutoModel.from_pretrained(
                folder, use_safetensors=True, dtype=torch.float32, **options
            )
        except Exception as error:  # of many kinds, safetensors' own among them
            raise ResourceError(
                f"cannot load a language model from {folder}: {' '.join(str(error).split())}"
            ) from error
        self.network.eval().requires_grad_(False)
        most = getattr(self.network.config, "max_position_embeddings", max_length)  # not every kind has a bound
        self.max_length, self.batch_size = min(max_length, most, self.tokenizer.model_max_length), batch_size
        self.name = re.sub(r"[^A-Za-z0-9.-]", "-", read_path(name).name)
        self.preprocessing = f"the first {self.max_length} tokens; last layer, last token"

    def fingerprint(self) -> str:
        config = {k: v for k, v in self.network.config.to_dict().items() if k not in _OF_THE_FILE}
        words = json.dumps(sorted(self.tokenizer.get_vocab().items()))
        return network_fingerprint(
            self.network,
            json.dumps(config, sort_keys=True, default=str),
            self.preprocessing,
            f"{type(self.tokenizer).__name__} {hashlib.sha256(words.encode()).hexdigest()}",
        )

    def extract(self, examples: Sequence[str], wanted: frozenset[str]) -> dict[str, Tensor]:
        """N texts -> ``features`` (N, width), float32. A text without tokens is replaced by the end token."""
        rows = []
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network.to(device)
        for start in range(0, len(examples), self.batch_size):
            rows.append(self._states(list(examples[start : start + self.batch_size]), device))
        return {"features": torch.cat(rows)}

    def _states(self, texts: list[str], device: torch.device) -> Tensor:
        """(N, width). Padding comes after the text: causal attention does not see it, for others it is masked."""
        encoded = self.tokenizer(texts, truncation=True, max_length=self.max_length)["input_ids"]
        tokens = [row or [self._end()] for row in encoded]
        longest = max(map(len, tokens))
        ids = torch.tensor([row + [row[-1]] * (longest - len(row)) for row in tokens], device=device)  # (N, T)
        lengths = torch.tensor([len(row) for row in tokens], device=device)
        mask = (torch.arange(longest, device=device) < lengths[:, None]).long()
        with full_precision(device):
            states = self.network(input_ids=ids, attention_mask=mask).last_hidden_state  # (N, T, width)
        return states[torch.arange(len(tokens), device=device), lengths - 1].float()

    def _end(self) -> int:
        if self.tokenizer.eos_token_id is None:
            raise DataError(f"a text is empty, and the tokenizer of {self.name} has no token that ends one.")
        return int(self.tokenizer.eos_token_id)

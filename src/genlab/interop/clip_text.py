"""CLIP's text tower (Radford et al. 2021, arXiv:2103.00020), by Hugging Face's transformers: captions to vectors."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genlab.data.tokenizer.rules import check_rules
from genlab.errors import ConfigError
from genlab.files.regular_file import read_bytes

TOKENIZER = "tokenizer"  # its file, as a tensor of bytes beside the weights, which need exactly this tokenizer
_SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
          "max_position_embeddings", "hidden_act", "layer_norm_eps", "eos_token_id", "pad_token_id")  # fmt: skip


class ClipText(nn.Module):
    """Frozen encoder of a sentence to a vector: the output at its end token, after the last norm."""

    network: Any  # made in configure_model
    tokenizer: Tensor  # (tokenizer_bytes,) uint8, made with the network

    def __init__(
        self,
        tokenizer_bytes: int,
        vocab_size: int = 49408,
        hidden_size: int = 512,
        intermediate_size: int = 2048,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 8,
        max_position_embeddings: int = 77,
        hidden_act: str = "quick_gelu",
        layer_norm_eps: float = 1e-5,
        eos_token_id: int = 49407,
        pad_token_id: int = 49407,
    ):
        super().__init__()
        self.width, self.length, self.pad = hidden_size, max_position_embeddings, pad_token_id
        self.settings = {name: value for name, value in locals().items() if name in _SIZES}
        self.tokenizer_bytes = tokenizer_bytes
        self.register_module("network", None)
        self._core: Any = None

    def configure_model(self) -> None:
        """Make the network. Raises ConfigError: transformers is not installed, or the sizes do not go together."""
        if self.network is not None:
            return
        try:
            from transformers import CLIPTextConfig, CLIPTextModel
        except ImportError as error:
            raise ConfigError("a text tower of CLIP needs a package: pip install 'genlab[clip]'") from error
        made = CLIPTextModel(CLIPTextConfig(**self.settings))
        self.network = getattr(made, "text_model", made)  # earlier versions have it inside
        self.register_buffer(TOKENIZER, torch.zeros(self.tokenizer_bytes, dtype=torch.uint8))
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """-> (N, width). Texts longer than the tower's context are cut."""
        rows = self.core.encode_batch(list(texts))
        device = self.tokenizer.device
        ids = torch.tensor([row.ids for row in rows], device=device)
        mask = torch.tensor([row.attention_mask for row in rows], device=device)
        vectors: Tensor = self.network(input_ids=ids, attention_mask=mask).pooler_output
        return vectors

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


def knows(config: Mapping[str, Any]) -> bool:
    return config.get("model_type") in ("clip", "clip_text_model")


def node(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The config node for a text tower, alone or of a whole CLIP. Raises ValueError."""
    sizes = config.get("text_config", config)
    if not isinstance(sizes, Mapping):
        raise ValueError("its text_config is not a mapping")
    known = {name: sizes[name] for name in _SIZES if type(sizes.get(name)) in (int, float, str)}
    return {
        "_target_": f"{ClipText.__module__}.{ClipText.__qualname__}",
        "tokenizer_bytes": len(beside(folder)),
        **known,
    }


def weights(tensors: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Tensors by their names in :class:`ClipText`; those of the image tower are left out."""
    inside = any(name.startswith("text_model.") for name in tensors)
    found = {}
    for name, value in tensors.items():
        own = name.removeprefix("text_model.")
        if own.endswith("position_ids") or (inside and own == name):
            continue
        found[f"network.{own}"] = value.float()
    file = torch.frombuffer(bytearray(beside(folder)), dtype=torch.uint8)
    return {**found, TOKENIZER: file}


def beside(folder: Path) -> bytes:
    """The tokenizer's file, or one made from files of the older format. Raises ConfigError."""
    path = folder / "tokenizer.json"
    if path.is_file():
        return read_bytes(path.resolve())
    try:
        import transformers

        for name in ("vocab.json", "merges.txt"):  # without them an empty tokenizer would be made
            if not (folder / name).is_file():
                raise FileNotFoundError(name)
        kinds: Any = transformers  # whose types do not know this one
        made = kinds.CLIPTokenizerFast.from_pretrained(folder, local_files_only=True)
        return str(made.backend_tokenizer.to_str()).encode()
    except Exception as error:  # of many kinds: a file is missing, or not what its name says
        raise ConfigError(
            f"{folder} has no tokenizer.json and no other readable tokenizer files. Save it there too: "
            "CLIPTokenizerFast.from_pretrained(...).save_pretrained(folder)."
        ) from error

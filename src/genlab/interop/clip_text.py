"""CLIP's text tower (Radford et al. 2021, arXiv:2103.00020), by Hugging Face's transformers: captions to vectors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genlab.interop.text_encoder import TOKENIZER, TextEncoder, settings_in, tokenizer_of

_SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
          "max_position_embeddings", "hidden_act", "layer_norm_eps", "eos_token_id", "pad_token_id")  # fmt: skip


class ClipText(TextEncoder):
    """Frozen encoder of a sentence to a vector: the output at its end token, after the last norm."""

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
        settings = {name: value for name, value in locals().items() if name in _SIZES}
        super().__init__(tokenizer_bytes, hidden_size, max_position_embeddings, pad_token_id)
        self.settings = settings

    def make(self) -> nn.Module:
        from transformers import CLIPTextConfig, CLIPTextModel

        made = CLIPTextModel(CLIPTextConfig(**self.settings))
        network: nn.Module = getattr(made, "text_model", made)  # earlier versions have it inside
        return network

    def run(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        found = self.network(input_ids=ids, attention_mask=mask)
        return found.pooler_output, found.last_hidden_state


def knows(config: Mapping[str, Any]) -> bool:
    return config.get("model_type") in ("clip", "clip_text_model")


def node(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The config node for a text tower, alone or of a whole CLIP. Raises ValueError."""
    sizes = config.get("text_config", config)
    if not isinstance(sizes, Mapping):
        raise ValueError("its text_config is not a mapping")
    return {
        "_target_": f"{ClipText.__module__}.{ClipText.__qualname__}",
        "tokenizer_bytes": len(beside(folder)),
        **settings_in(sizes, _SIZES),
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
    return tokenizer_of(folder, "CLIPTokenizerFast")

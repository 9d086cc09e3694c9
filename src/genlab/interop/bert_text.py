"""BERT's encoder (Devlin et al. 2019, arXiv:1810.04805) and its relatives of one shape, such as MiniLM's sentence
encoders, by Hugging Face's transformers: captions to vectors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genlab.interop.text_encoder import TOKENIZER, TextEncoder, mean_of, settings_in, tokenizer_of

_SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
          "max_position_embeddings", "type_vocab_size", "hidden_act", "layer_norm_eps", "pad_token_id")  # fmt: skip


class BertText(TextEncoder):
    """Frozen encoder of a sentence to the mean of its outputs, as sentence encoders are trained."""

    def __init__(
        self,
        tokenizer_bytes: int,
        vocab_size: int = 30522,
        hidden_size: int = 384,
        intermediate_size: int = 1536,
        num_hidden_layers: int = 6,
        num_attention_heads: int = 12,
        max_position_embeddings: int = 512,
        type_vocab_size: int = 2,
        hidden_act: str = "gelu",
        layer_norm_eps: float = 1e-12,
        pad_token_id: int = 0,
        length: int = 128,  # tokens, at most max_position_embeddings
    ):
        settings = {name: value for name, value in locals().items() if name in _SIZES}
        super().__init__(tokenizer_bytes, hidden_size, min(length, max_position_embeddings), pad_token_id)
        self.settings = settings

    def make(self) -> nn.Module:
        from transformers import BertConfig, BertModel

        return BertModel(BertConfig(**self.settings), add_pooling_layer=False)

    def run(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.network(input_ids=ids, attention_mask=mask).last_hidden_state
        return mean_of(outputs, mask), outputs


def knows(config: Mapping[str, Any]) -> bool:
    return config.get("model_type") == "bert"


def node(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The config node for the encoder of a BERT."""
    return {
        "_target_": f"{BertText.__module__}.{BertText.__qualname__}",
        "tokenizer_bytes": len(beside(folder)),
        **settings_in(config, _SIZES),
    }


def weights(tensors: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Tensors by their names in :class:`BertText`; those of a pooler or of a head are left out."""
    kept = {name.removeprefix("bert."): value for name, value in tensors.items()}
    found = {
        f"network.{name}": value.float()
        for name, value in kept.items()
        if name.startswith(("embeddings.", "encoder.")) and not name.endswith("position_ids")
    }
    file = torch.frombuffer(bytearray(beside(folder)), dtype=torch.uint8)
    return {**found, TOKENIZER: file}


def beside(folder: Path) -> bytes:
    """The tokenizer's file, or one made from files of the older format. Raises ConfigError."""
    return tokenizer_of(folder, "BertTokenizerFast")

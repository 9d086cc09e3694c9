"""T5's encoder (Raffel et al. 2020, arXiv:1910.10683), by Hugging Face's transformers: captions to vectors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genlab.interop.text_encoder import TOKENIZER, TextEncoder, mean_of, settings_in, tokenizer_of

_SIZES = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads", "relative_attention_num_buckets",
          "relative_attention_max_distance", "layer_norm_epsilon", "feed_forward_proj", "pad_token_id")  # fmt: skip


class T5Text(TextEncoder):
    """Frozen encoder of a sentence to the mean of its outputs. T5 has no longest text: ``length`` is what is read."""

    def __init__(
        self,
        tokenizer_bytes: int,
        vocab_size: int = 32128,
        d_model: int = 512,
        d_kv: int = 64,
        d_ff: int = 2048,
        num_layers: int = 6,
        num_heads: int = 8,
        relative_attention_num_buckets: int = 32,
        relative_attention_max_distance: int = 128,
        layer_norm_epsilon: float = 1e-6,
        feed_forward_proj: str = "relu",
        pad_token_id: int = 0,
        length: int = 128,  # tokens
    ):
        settings = {name: value for name, value in locals().items() if name in _SIZES}
        super().__init__(tokenizer_bytes, d_model, length, pad_token_id)
        self.settings = settings

    def make(self) -> nn.Module:
        from transformers import T5Config, T5EncoderModel

        return T5EncoderModel(T5Config(**self.settings, use_cache=False, is_encoder_decoder=False))

    def run(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.network(input_ids=ids, attention_mask=mask).last_hidden_state
        return mean_of(outputs, mask), outputs


def knows(config: Mapping[str, Any]) -> bool:
    return config.get("model_type") == "t5"


def node(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The config node for the encoder of a T5."""
    return {
        "_target_": f"{T5Text.__module__}.{T5Text.__qualname__}",
        "tokenizer_bytes": len(beside(folder)),
        **settings_in(config, _SIZES),
    }


def weights(tensors: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Tensors by their names in :class:`T5Text`; those of the decoder are left out. Raises KeyError."""
    kept = {name: value for name, value in tensors.items() if name.startswith("encoder.")}
    words = next(tensors[name] for name in ("shared.weight", "encoder.embed_tokens.weight") if name in tensors)
    kept |= {"shared.weight": words, "encoder.embed_tokens.weight": words}  # one table under two names
    file = torch.frombuffer(bytearray(beside(folder)), dtype=torch.uint8)
    return {**{f"network.{name}": value.float() for name, value in kept.items()}, TOKENIZER: file}


def beside(folder: Path) -> bytes:
    """The tokenizer's file, or one made from files of the older format. Raises ConfigError."""
    return tokenizer_of(folder, "T5TokenizerFast")

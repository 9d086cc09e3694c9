"""``start=`` a .gguf file as llama.cpp writes it, made here of random weights: network, weights and tokenizer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from genlab.config.build import build
from genlab.data.tokenizer.byte_level import characters_of_bytes
from genlab.data.tokenizer.pretrained import Pretrained
from genlab.interop.gguf import GgufOrigin
from hugging_face import scrambled
from sentence_pieces import WORDS, sentence_piece
from test_language_models import LLAMA, network_of

transformers, gguf = pytest.importorskip("transformers"), pytest.importorskip("gguf")
pytest.importorskip("accelerate")

NAMES = {  # of llama.cpp
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
NORMAL, CONTROL, BYTE = 1, 3, 6  # kinds of tokens


def model_of(size: int) -> Any:
    torch.manual_seed(4)
    ends = {"bos_token_id": 1, "eos_token_id": 2}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**LLAMA, **ends, "vocab_size": size})).eval()
    scrambled(model)
    return model


def written(path: Path, model: Any, tokenizer: dict[str, Any]) -> Path:
    """``tokenizer``: the keys of the file below ``tokenizer.ggml``."""
    config, writer = model.config, gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model(tokenizer["model"])
    writer.add_token_list(tokenizer["tokens"])
    writer.add_token_types(tokenizer["types"])
    if "merges" in tokenizer:
        writer.add_token_merges(tokenizer["merges"])
    if "scores" in tokenizer:
        writer.add_token_scores(tokenizer["scores"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for name, value in model.state_dict().items():
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        count = next((number for part, number in heads.items() if part in name), 0)
        writer.add_tensor(their_name(name), np.ascontiguousarray(interleaved(value, count) if count else value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def their_name(name: str) -> str:
    own = name.removesuffix(".weight")
    if not own.startswith("model.layers."):
        return f"{NAMES[own]}.weight"
    number, _, part = own.removeprefix("model.layers.").partition(".")
    return f"blk.{number}.{NAMES[part]}.weight"


def interleaved(weight: Tensor, heads: int) -> Tensor:
    """Rows of queries or keys in llama.cpp's order: what positions turn together is side by side."""
    return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def byte_level() -> dict[str, Any]:
    found = characters_of_bytes()
    tokens = ["<unk>", "<s>", "</s>", *sorted(found, key=lambda c: found[c]), "th", "the"]
    types = [CONTROL] * 3 + [NORMAL] * 258
    return {"model": "gpt2", "tokens": tokens, "types": types, "merges": ["t h", "th e"]}


def of_sentence_piece() -> dict[str, Any]:
    model = sentence_piece()["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    merged = {"".join(pair): -float(rank) for rank, pair in enumerate(model["merges"])}
    types = [CONTROL if i < 3 else BYTE if i < 259 else NORMAL for i in range(len(tokens))]
    return {"model": "llama", "tokens": tokens, "types": types, "scores": [merged.get(t, -1e4) for t in tokens]}


@torch.no_grad()
@pytest.mark.parametrize("kind", [byte_level, of_sentence_piece])
def test_a_file_is_read(kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "cache"))
    tokenizer = kind()
    theirs = model_of(len(tokenizer["tokens"]))
    origin = GgufOrigin(str(written(tmp_path / "m.gguf", theirs, tokenizer)), "start")
    tokens = torch.randint(260, (2, 40))
    torch.testing.assert_close(
        network_of(origin, num=len(tokenizer["tokens"]))(tokens), theirs(tokens).logits, rtol=0, atol=1e-4
    )
    made: Any = build(origin.tokenizer(), Pretrained, "data.tokenizer")
    text = f"{WORDS}\n\t the \U0001f600 "
    assert made.decode(made.encode(text)) == text
    assert made.vocab_size == len(tokenizer["tokens"])
    assert (made.begin, made.end) == ((1, 2) if kind is of_sentence_piece else (None, 2))
    assert made.encode("the\n").tolist() == tokens_of(kind)


def tokens_of(kind: Any) -> list[int]:
    """Of "the" and a new line: in order of what stands for it, where tokens are bytes; of the package, where not."""
    if kind is byte_level:
        return [260, 3 + ord("\n")]
    from tokenizers import Tokenizer

    return list(Tokenizer.from_str(json.dumps(sentence_piece())).encode("the\n", add_special_tokens=False).ids)

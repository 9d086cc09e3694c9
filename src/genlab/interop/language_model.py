"""Causal language models of transformers as :class:`TokenTransformer`: Llama, Mistral, Qwen2, Qwen3 and GPT-2.

What changes the function is read from config.json, with transformers' defaults where a key is missing; what is not
built, and a key that is not known, is refused by its name.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from genlab.data.tokenizer.pretrained import token_before
from genlab.errors import ConfigError
from genlab.files.regular_file import read_text
from genlab.interop import language_model_weights
from genlab.model.network.token_transformer import TokenTransformer

NETWORK = f"{TokenTransformer.__module__}.{TokenTransformer.__qualname__}"
KINDS = ("llama", "mistral", "qwen2", "qwen3", "gpt2")  # of model_type
ACTIVATIONS: dict[str, dict[str, Any]] = {  # of GPT-2's layout, by their names there
    "gelu_new": {"_target_": "torch.nn.GELU", "approximate": "tanh"},
    "gelu_pytorch_tanh": {"_target_": "torch.nn.GELU", "approximate": "tanh"},
    "gelu": {"_target_": "torch.nn.GELU"},
    "relu": {"_target_": "torch.nn.ReLU"},
    "silu": {"_target_": "torch.nn.SiLU"},
}
_POSITIONS = "genlab.model.network.positions"
_FEED_FORWARD = "genlab.model.network.feed_forward"
# Keys that say nothing about the function of the network: names, versions, tokens, training, and the form of outputs.
_OTHER = frozenset(
    [
        "architectures",
        "attention_dropout",
        "attn_pdrop",
        "bos_token_id",
        "dtype",
        "embd_pdrop",
        "eos_token_id",
        "gradient_checkpointing",
        "id2label",
        "initializer_range",
        "is_llama_config",
        "label2id",
        "max_length",
        "model_type",
        "n_ctx",
        "num_labels",
        "output_attentions",
        "output_hidden_states",
        "pad_token_id",
        "pretraining_tp",
        "problem_type",
        "reorder_and_upcast_attn",
        "resid_pdrop",
        "return_dict",
        "summary_activation",
        "summary_first_dropout",
        "summary_proj_to_labels",
        "summary_type",
        "summary_use_proj",
        "task_specific_params",
        "tokenizer_class",
        "torch_dtype",
        "transformers.js_config",
        "transformers_version",
        "unsloth_fixed",
        "unsloth_version",
        "use_cache",
        "use_mrope",
    ]
)
_OF_ALL = frozenset(["vocab_size", "tie_word_embeddings"])
_OF_LLAMA = frozenset(
    [
        "attention_bias",
        "head_dim",
        "hidden_act",
        "hidden_size",
        "intermediate_size",
        "layer_types",
        "max_position_embeddings",
        "max_window_layers",
        "mlp_bias",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "rms_norm_eps",
        "rope_parameters",
        "rope_scaling",
        "rope_theta",
        "sliding_window",
        "use_sliding_window",
    ]
)
_OF_GPT2 = frozenset(
    [
        "activation_function",
        "layer_norm_epsilon",
        "n_embd",
        "n_head",
        "n_inner",
        "n_layer",
        "n_positions",
        "scale_attn_weights",
    ]
)


def knows(config: Mapping[str, Any]) -> bool:
    return config.get("model_type") in KINDS


def node(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The config node of the network, in plain values. Raises ValueError and KeyError: it is not built."""
    kind = config["model_type"]
    known = _OF_ALL | _OTHER | (_OF_GPT2 if kind == "gpt2" else _OF_LLAMA)
    for name, value in config.items():
        if name not in known and not name.startswith("_") and value not in (None, False):
            raise ValueError(f"{name}={json.dumps(value)[:80]} is not supported")
    architectures = config.get("architectures") or []
    if architectures and not any(str(name).endswith(("LMHeadModel", "ForCausalLM")) for name in architectures):
        raise ValueError(f"architectures={architectures} is not a model that predicts the next token")
    return _gpt2(config) if kind == "gpt2" else _llama(config)


def _gpt2(config: Mapping[str, Any]) -> dict[str, Any]:
    activation = config.get("activation_function", "gelu_new")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation_function={activation} is not supported")
    if not config.get("scale_attn_weights", True):
        raise ValueError("scale_attn_weights=false is not supported")
    width = _size(config, "n_embd")
    return {
        "_target_": NETWORK,
        "_partial_": True,
        "positions": {
            "_target_": f"{_POSITIONS}.Learned",
            "_partial_": True,
            "length": _size(config, "n_positions", 1024),
        },
        "norm": {
            "_target_": "torch.nn.LayerNorm",
            "_partial_": True,
            "eps": float(config.get("layer_norm_epsilon", 1e-5)),
        },
        "feed_forward": {
            "_target_": f"{_FEED_FORWARD}.FeedForward",
            "_partial_": True,
            "activation": dict(ACTIVATIONS[activation]),
            "hidden": _size(config, "n_inner", 4 * width),
            "bias": True,
        },
        "head_norm": None,
        "width": width,
        "depth": _size(config, "n_layer"),
        "num_heads": _size(config, "n_head"),
        "bias": True,
        "tied": bool(config.get("tie_word_embeddings", True)),
    }


def _llama(config: Mapping[str, Any]) -> dict[str, Any]:
    kind, depth = config["model_type"], _size(config, "num_hidden_layers")
    if config.get("hidden_act", "silu") != "silu":
        raise ValueError(f"hidden_act={config['hidden_act']} is not supported")
    num_heads = _size(config, "num_attention_heads")
    width = _size(config, "hidden_size")
    head_width = _size(config, "head_dim", 128 if kind == "qwen3" else width // num_heads)
    for name, known in (("attention_bias", ("llama", "qwen3")), ("mlp_bias", ("llama",))):
        if config.get(name) and kind not in known:
            raise ValueError(f"{name} is not supported in model_type={kind}")
    window, windowed = _windows(config, kind, depth)
    longest = {"llama": 2048, "mistral": 131072, "qwen2": 32768, "qwen3": 32768}[kind]
    norm = {"_target_": "torch.nn.RMSNorm", "_partial_": True, "eps": float(config.get("rms_norm_eps", 1e-6))}
    missing = "num_key_value_heads" not in config  # null is as many as of queries
    kv_heads = {"mistral": 8, "qwen2": 32, "qwen3": 32}.get(kind, num_heads) if missing else num_heads
    return {
        "_target_": NETWORK,
        "_partial_": True,
        "positions": {
            "_target_": f"{_POSITIONS}.Rotary",
            "_partial_": True,
            **_rope(config),
            "length": _size(config, "max_position_embeddings", longest),
        },
        "norm": norm,
        "feed_forward": {
            "_target_": f"{_FEED_FORWARD}.SwiGLU",
            "_partial_": True,
            "hidden": _size(config, "intermediate_size"),
            "bias": bool(config.get("mlp_bias", False)),
        },
        "head_norm": dict(norm) if kind == "qwen3" else None,
        **({"own_key_norm": True} if kind == "qwen3" else {}),
        "width": width,
        "depth": depth,
        "num_heads": num_heads,
        "num_kv_heads": _size(config, "num_key_value_heads", kv_heads),
        "bias": bool(config.get("attention_bias", False)),
        "qkv_bias": True if kind == "qwen2" else None,
        "head_width": None if head_width * num_heads == width else head_width,
        "window": window,
        "windowed_blocks": windowed,
        "tied": bool(config.get("tie_word_embeddings", False)),
    }


def _windows(config: Mapping[str, Any], kind: str, depth: int) -> tuple[int | None, list[int] | None]:
    """The sliding window, and the blocks that have it where not all do."""
    window = config.get("sliding_window", 4096 if kind != "llama" else None)
    if kind in ("qwen2", "qwen3") and not config.get("use_sliding_window", False):
        window = None
    types = config.get("layer_types")
    if window is None:
        if types and any(one != "full_attention" for one in types):
            raise ValueError("layer_types without a sliding_window are not supported")
        return None, None
    if kind == "llama":
        raise ValueError(f"sliding_window={window} is not supported in model_type=llama")
    if kind == "mistral":
        if types and any(one != "sliding_attention" for one in types):
            raise ValueError("layer_types are not supported in model_type=mistral")
        return _size(config, "sliding_window", 4096), None
    if types is None:
        first = int(config.get("max_window_layers", 28))
        windowed = list(range(min(first, depth), depth))
    elif len(types) == depth and set(types) <= {"full_attention", "sliding_attention"}:
        windowed = [number for number, one in enumerate(types) if one == "sliding_attention"]
    else:
        raise ValueError(f"layer_types={types} is not supported")
    if not windowed:
        return None, None
    return int(window), None if len(windowed) == depth else windowed


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """Base and scaling of rotary positions: ``rope_parameters``, or ``rope_theta`` and ``rope_scaling`` of versions
    before 5."""
    own = config.get("rope_parameters") or config.get("rope_scaling") or {}
    base = own.get("rope_theta", config.get("rope_theta", 10_000.0))
    kind = own.get("rope_type", own.get("type", "default"))
    if own.get("partial_rotary_factor", 1.0) != 1.0:
        raise ValueError(f"partial_rotary_factor={own['partial_rotary_factor']} is not supported")
    if kind == "default":
        scaling = None
    elif kind == "linear":
        scaling = {"_target_": f"{_POSITIONS}.LinearScaling", "factor": float(own["factor"])}
    elif kind == "llama3":
        scaling = {
            "_target_": f"{_POSITIONS}.Llama3Scaling",
            "factor": float(own["factor"]),
            "low_freq_factor": float(own["low_freq_factor"]),
            "high_freq_factor": float(own["high_freq_factor"]),
            "original_max_position_embeddings": int(own["original_max_position_embeddings"]),
        }
    else:
        raise ValueError(f"rope_type={kind} is not supported; default, linear and llama3 are")
    return {"base": float(base), "scaling": scaling}


def _size(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """A size. Raises KeyError and ValueError: it is missing without a default, or is none."""
    value = config[name] if default is None else config.get(name)
    value = default if value is None else value
    if type(value) is not int or value < 1:
        raise ValueError(f"{name}={value} is not a whole number >= 1")
    return value


def weights(tensors: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Tensors by their names in :class:`TokenTransformer`. Raises ConfigError: config.json is of another model."""
    config = json.loads(read_text((folder / "config.json").resolve()))
    return weights_for(tensors, config)


def weights_for(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Raises ConfigError: a tensor is missing, has another shape than config.json says, or no place."""
    try:
        return language_model_weights.to_ours(tensors, config, node(config, Path()))
    except (ValueError, KeyError) as error:
        raise ConfigError(f"its weights are not those that its config.json describes: {error}") from error


def beside(folder: Path) -> bytes:
    """No further file is needed beside the weights; the tokenizer is a part of the data."""
    return b""


def tokenizer_node(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The config node of a folder's tokenizer, with as many tokens as the network has. Raises ValueError: there is no
    tokenizer.json, or it has more tokens than the network."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ValueError("there is no tokenizer.json, and other tokenizers are not read. Save it there with a fast one")
    content = json.loads(read_text(path.resolve(), largest=1 << 30))
    return {**of_tokenizer(content, config), "name": str(folder.absolute())}


def of_tokenizer(content: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    added = {token["id"]: token for token in content.get("added_tokens") or []}
    vocabulary = content["model"]["vocab"]
    ids = vocabulary.values() if isinstance(vocabulary, Mapping) else range(len(vocabulary))
    count, has = max([*ids, *added], default=-1) + 1, _size(config, "vocab_size")
    if count > has:
        raise ValueError(f"its vocab_size={has} is smaller than its tokenizer's, which has {count} tokens")
    end = config.get("eos_token_id", 50256 if config["model_type"] == "gpt2" else 2)
    end = end[0] if isinstance(end, list) and end else end
    named = added.get(end) if isinstance(end, int) else None
    begin = token_before(content)
    return {
        "_target_": "genlab.data.tokenizer.pretrained.Pretrained",
        "name": "",
        "end_token": named["content"] if named is not None and named["special"] else None,
        "vocab_size": has,
        **({} if begin is None else {"begin_token": begin}),
    }

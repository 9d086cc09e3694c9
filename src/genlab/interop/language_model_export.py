"""A :class:`TokenTransformer` as a model of transformers: Llama, Mistral, Qwen2, Qwen3 or GPT-2, whichever has its
parts."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, finfo, float32

from genlab.interop import language_model_weights
from genlab.interop.language_model import ACTIVATIONS, NETWORK

_SCALINGS = {"LinearScaling": "linear", "Llama3Scaling": "llama3"}


def exported(
    network: Mapping[str, Any], weights: Mapping[str, Tensor], context: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The content of config.json, and the tensors by their names there.

    Args:
        network: the config node, resolved
        weights: of the network, by our names
        context: tokens that it sees at once

    Raises ValueError, naming the option: a part has no equivalent.
    """
    if network["_target_"] != NETWORK:
        raise ValueError(f"model/network ({_class(network)})")
    if network.get("logit_cap") is not None:
        raise ValueError(f"model.network.logit_cap={network['logit_cap']}")
    positions = _class(network["positions"])
    if positions not in ("Rotary", "Learned"):
        raise ValueError(f"model/network/positions ({positions})")
    return (_as_gpt2 if positions == "Learned" else _as_llama)(network, weights, context)


def _class(node: Mapping[str, Any]) -> str:
    return str(node["_target_"]).rpartition(".")[2]


def _require(network: Mapping[str, Any], norm: str, feed_forward: str, positions: str) -> None:
    for part, wanted in (("norm", norm), ("feed_forward", feed_forward)):
        if _class(network[part]) != wanted:
            raise ValueError(f"model/network/{part} ({_class(network[part])}) beside positions that are {positions}")


def _as_gpt2(
    network: Mapping[str, Any], weights: Mapping[str, Tensor], context: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    _require(network, "LayerNorm", "FeedForward", "learned")
    depth, heads = network["depth"], network["num_heads"]
    activation = next(
        (name for name, node in ACTIVATIONS.items() if _same(network["feed_forward"]["activation"], node)), ""
    )
    if not activation:
        raise ValueError(f"model.network.feed_forward.activation ({_class(network['feed_forward']['activation'])})")
    for name in ("head_norm", "head_width", "window"):
        if network.get(name) is not None:
            raise ValueError(f"model.network.{name} beside positions that are learned")
    if network.get("num_kv_heads") not in (None, heads):
        raise ValueError(f"model.network.num_kv_heads={network['num_kv_heads']} beside positions that are learned")
    if "norm.weight" not in weights:
        raise ValueError("model.network.norm without weights")
    theirs = language_model_weights.to_gpt2(weights, depth)
    vocabulary, width = weights["embedding.weight"].shape
    tied = "head.weight" not in weights
    config = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": vocabulary,
        "n_positions": len(weights["positions.table.weight"]),
        "n_embd": width,
        "n_layer": depth,
        "n_head": heads,
        "n_inner": len(weights["blocks.0.feed_forward.expand.weight"]) if depth else 4 * width,
        "activation_function": activation,
        "layer_norm_epsilon": network["norm"].get("eps", 1e-5),
        "tie_word_embeddings": tied,
        **dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0),
    }
    return config, _untied(theirs, tied)


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    is_gelu = one["_target_"] == "torch.nn.GELU"
    return one["_target_"] == other["_target_"] and (
        not is_gelu or one.get("approximate", "none") == other.get("approximate", "none")
    )


def _untied(theirs: dict[str, Tensor], tied: bool) -> dict[str, Tensor]:
    return {name: value for name, value in theirs.items() if not (tied and name == "lm_head.weight")}


def _as_llama(
    network: Mapping[str, Any], weights: Mapping[str, Tensor], context: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    _require(network, "RMSNorm", "SwiGLU", "rotary")
    if "norm.weight" not in weights:
        raise ValueError("model.network.norm without weights")
    depth, heads = network["depth"], network["num_heads"]
    vocabulary, width = weights["embedding.weight"].shape
    kv_heads = network.get("num_kv_heads") or heads
    head_width = network.get("head_width") or width // heads
    out_bias = bool(network.get("bias", False))
    qkv_bias = out_bias if network.get("qkv_bias") is None else bool(network["qkv_bias"])
    mlp_bias = bool(network["feed_forward"].get("bias", False))
    eps, tied = _eps(network["norm"]), "head.weight" not in weights
    kind, more = _kind(network, qkv_bias, out_bias, mlp_bias, eps)
    positions = network["positions"]
    config = {
        "architectures": [f"{kind.capitalize()}ForCausalLM"],
        "model_type": kind,
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": weights["blocks.0.feed_forward.out.weight"].shape[1] if depth else 4 * width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_width,
        "hidden_act": "silu",
        "rms_norm_eps": eps,
        "max_position_embeddings": positions.get("length") or context,
        **_rope(positions),
        "tie_word_embeddings": tied,
        **more,
    }
    sizes = (heads * head_width, kv_heads * head_width, kv_heads * head_width)
    return config, _untied(language_model_weights.to_llama(weights, depth, sizes), tied)


def _kind(
    network: Mapping[str, Any], qkv_bias: bool, out_bias: bool, mlp_bias: bool, eps: float
) -> tuple[str, dict[str, Any]]:
    """The model_type that has these parts, and what is said of it alone."""
    window, windowed = network.get("window"), network.get("windowed_blocks")
    head_norm = network.get("head_norm")
    if head_norm is not None:
        if _class(head_norm) != "RMSNorm" or _eps(head_norm) != eps:
            raise ValueError(f"model.network.head_norm ({_class(head_norm)}, of another kind or eps than the norm)")
        if mlp_bias or qkv_bias != out_bias:
            name = "feed_forward.bias" if mlp_bias else "qkv_bias"
            raise ValueError(f"model.network.{name} beside normalized queries and keys (head_norm)")
        return "qwen3", {"attention_bias": qkv_bias, **_of_windows(network)}
    if window is None and qkv_bias == out_bias:
        return "llama", {"attention_bias": qkv_bias, "mlp_bias": mlp_bias}
    if mlp_bias or out_bias:
        name = "feed_forward.bias" if mlp_bias else "bias"
        raise ValueError(f"model.network.{name} beside {'a window' if window is not None else 'a qkv_bias of its own'}")
    if not qkv_bias:
        if windowed is not None:
            raise ValueError("model.network.windowed_blocks without a qkv_bias")
        return "mistral", {"sliding_window": window}
    return "qwen2", _of_windows(network)


def _of_windows(network: Mapping[str, Any]) -> dict[str, Any]:
    """What Qwen's config.json says of them."""
    window, windowed, depth = network.get("window"), network.get("windowed_blocks"), network["depth"]
    if window is None:
        return {"use_sliding_window": False}
    windows = range(depth) if windowed is None else windowed
    types = ["sliding_attention" if number in windows else "full_attention" for number in range(depth)]
    return {"use_sliding_window": True, "sliding_window": window, "layer_types": types}


def _eps(norm: Mapping[str, Any]) -> float:
    eps = norm.get("eps")
    return float(finfo(float32).eps if eps is None else eps)


def _rope(positions: Mapping[str, Any]) -> dict[str, Any]:
    """In the words of versions before 5, which later ones read too."""
    base, scaling = float(positions.get("base", 10_000.0)), positions.get("scaling")
    if scaling is None:
        return {"rope_theta": base, "rope_scaling": None}
    if _class(scaling) not in _SCALINGS:
        raise ValueError(f"model.network.positions.scaling ({_class(scaling)})")
    values = {name: value for name, value in scaling.items() if name != "_target_"}
    return {"rope_theta": base, "rope_scaling": {"rope_type": _SCALINGS[_class(scaling)], **values}}

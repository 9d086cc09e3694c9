"""``start=`` a language model of transformers: its network and its tokenizer take their places in the config."""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from genlab.config.build import build
from genlab.config.overrides import name_of, parse
from genlab.data.tokenizer.base import CaptionTokenizer
from genlab.data.tokenizer.byte_level import ByteLevel
from genlab.errors import ConfigError
from genlab.run.origin import is_of_another_library, origin_of

FAMILIES = (
    "genlab.model.transformer.Transformer",
    "genlab.model.preference.Preference",
    "genlab.model.reward.Reward",
)
NETWORK = "genlab.model.network.token_transformer.TokenTransformer"
_OF_TRAINING = ("dropout",)  # options of the network that do not change the function of the folder's
_PARTS = ("positions", "norm", "feed_forward")


def take_language_model(config: DictConfig, typed: Sequence[str]) -> None:
    """Put the network and the tokenizer of a folder into a new run's config. A run that has begun holds them.

    Raises ConfigError: the data are no text, or another network or tokenizer was typed.
    """
    start: Any = OmegaConf.select(config, "start.where")
    if not isinstance(start, str) or not is_of_another_library(start) or config.start.get("sha256") is not None:
        return
    if (
        OmegaConf.select(config, "model._target_") not in FAMILIES
        or OmegaConf.select(config, "model.network._target_") != NETWORK
    ):
        return
    origin: Any = origin_of(start, "start")
    if not getattr(origin, "is_language_model", False):
        return
    if "tokenizer" not in config.data:
        raise ConfigError(f"start={start}: a language model needs text. Use data=python_docs, or data=text_file")
    node, tokenizer = origin.model(), origin.tokenizer()
    before: Any = OmegaConf.to_container(config.model.network)
    node |= {name: before[name] for name in _OF_TRAINING if name in before}
    _check_network(node, before, start, typed)
    if any(_is_below(name_of(override), "data.tokenizer") for override in parse(typed)):
        _check_tokenizer(config, tokenizer, start)
    with open_dict(config):
        config.model.network = node
        config.data.tokenizer = tokenizer


def _is_below(name: str, path: str) -> bool:
    return f"{name.replace('/', '.')}.".startswith(f"{path}.")


def _check_network(node: Mapping[str, Any], before: Mapping[str, Any], start: str, typed: Sequence[str]) -> None:
    for override in parse(typed):
        name = name_of(override)
        if not _is_below(name, "model.network"):
            continue
        if "/" in name:
            fits = all(before[part]["_target_"] == node[part]["_target_"] for part in _PARTS)
        else:
            path = name.removeprefix("model.network.")
            now = OmegaConf.select(OmegaConf.create(dict(node)), path)
            fits = now == OmegaConf.select(OmegaConf.create(dict(before)), path)
        if not fits:
            raise ConfigError(f"{override.input_line}: the network is that of start={start}. Leave {name}= out.")


def _check_tokenizer(config: DictConfig, own: Mapping[str, Any], start: str) -> None:
    """Raises ConfigError: what was typed has another vocabulary."""
    theirs: Any = build(own, CaptionTokenizer, "data.tokenizer")
    node: Any = OmegaConf.to_container(config.data.tokenizer, resolve=True)
    ours: Any = build(node, CaptionTokenizer, "data.tokenizer")
    is_pretrained = type(ours) is type(theirs) and isinstance(ours, ByteLevel)
    if not is_pretrained or ours.core.get_vocab() != theirs.core.get_vocab():
        raise ConfigError(
            f"data.tokenizer has another vocabulary than the model in start={start}, whose weights belong to its own. "
            "Leave data/tokenizer= out."
        )

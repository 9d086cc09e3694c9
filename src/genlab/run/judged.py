"""Checks that a model learns from what people said of the data, and knows the tokens of the data."""

from collections.abc import Mapping
from typing import Any, cast

from genlab.config.build import build, resolve
from genlab.config.tree import ConfigTree
from genlab.data.base import DataModule
from genlab.data.conversation_data import ConversationData
from genlab.data.tokenizer.base import Tokenizer
from genlab.data.tokenizer.byte_level import ByteLevel
from genlab.errors import ConfigError, DataError
from genlab.files.regular_file import read_text
from genlab.run import run_folder
from genlab.run.origin import RunOrigin, origin_of


def ask_if_wanted(config: Mapping[str, Any], data: DataModule) -> None:
    """For families that answer prompts: the data give these. Raises ConfigError: they have none."""
    family = resolve(config["model"]["_target_"], "model") if config.get("model") else None
    if not getattr(family, "answers_prompts", False):
        return
    if not isinstance(data, ConversationData):
        fitting = [name for name, target in ConfigTree().targets("data") if _is_conversations(target, name)]
        raise ConfigError(
            f"a {family.__name__} answers prompts, and the data have none. Use data={' or data='.join(fitting)}"  # type: ignore[union-attr]
        )
    data.ask()


def _is_conversations(target: str, path: str) -> bool:
    found = resolve(target, path)
    return issubclass(found, ConversationData) and getattr(found, "judged", None) is None


def check_judged(config: Mapping[str, Any], family: Any) -> None:
    """Raises ConfigError: the family would ignore what the data say, or the data do not say what it learns from."""
    if fits_judged(config, family):
        return
    said = _judged(config)
    if not family.learns_from:
        families = [name for name, target in ConfigTree().targets("model") if said in _learns(target, name)]
        raise ConfigError(f"{family.__name__} cannot be trained on {said}. Use model={' or model='.join(families)}.")
    fitting = [name for name, target in ConfigTree().targets("data") if _says(target, name) in family.learns_from]
    raise ConfigError(
        f"a {family.__name__} learns from {' or '.join(sorted(family.learns_from))}, and the data have none. "
        f"Use data={' or data='.join(fitting)}"
    )


def fits_judged(config: Mapping[str, Any], family: Any) -> bool:
    if "data" not in config:  # a model is made again without them
        return True
    if getattr(family, "answers_prompts", False):
        return True
    wanted: frozenset[str] = getattr(family, "learns_from", frozenset())
    said = _judged(config)
    return said in wanted if wanted else said is None


def _judged(config: Mapping[str, Any]) -> Any:
    return _says(config["data"]["_target_"], "data")


def _says(target: str, path: str) -> Any:
    return getattr(resolve(target, path), "judged", None)


def _learns(target: str, path: str) -> Any:
    return getattr(resolve(target, path), "learns_from", frozenset())


def check_tokens(config: Mapping[str, Any], data: DataModule) -> None:
    """For families that learn from judgments or rewards, and begin with a trained model. Raises ConfigError: it, or a
    model that rewards, knows other tokens than those of ``data``."""
    start, family = config.get("start"), resolve(config["model"]["_target_"], "model")
    if getattr(family, "learns_from", None) or getattr(family, "answers_prompts", False):
        if start is not None:
            _check_same_tokens("start", start["where"], data)
        for path, entry in config.get("pretrained", {}).items():
            if path.startswith("model.rewards.") and isinstance(entry["where"], str):
                _check_same_tokens(path, entry["where"], data)


def _check_same_tokens(option: str, where: str, data: DataModule) -> None:
    origin = origin_of(where, option)
    if not isinstance(origin, RunOrigin) or data.tokenizer is None:
        return  # a language model's tokenizer is in the config already
    node = origin.config["data"].get("tokenizer")
    if node is None:
        raise ConfigError(f"{option}={where}: its model knows no text. Name a run of model=transformer.")
    theirs: Tokenizer = build(node, Tokenizer, "data.tokenizer")
    path = origin.folder / run_folder.TOKENIZER
    try:
        theirs.load_state(read_text(path))
    except (OSError, ValueError, RecursionError, DataError) as error:
        raise ConfigError(f"{option}={where}: {path} is not the tokenizer of the run ({error}).") from error
    ours = cast(Tokenizer, data.tokenizer)
    if _meanings(ours) != _meanings(theirs):
        raise ConfigError(
            f"{option}={where}: its model knows other tokens ({type(theirs).__name__}, {theirs.vocab_size:,}) "
            f"than those of the data ({type(ours).__name__}, {ours.vocab_size:,}). {_remedy(origin, theirs)}"
        )


def _meanings(tokenizer: Tokenizer) -> Any:
    """What each token stands for."""
    return [tokenizer.bytes_of(token) for token in range(tokenizer.vocab_size)], dict(tokenizer.special())


def _remedy(origin: RunOrigin, theirs: Tokenizer) -> str:
    template = "" if "<|im_start|>" in theirs.special() else " data.template=plain"
    if isinstance(theirs, ByteLevel):
        return f"Use data/tokenizer=gpt2 data.tokenizer.name={origin.folder / run_folder.TOKENIZER}{template}"
    name = type(theirs).__name__.lower()
    if name == "bytes":
        return f"Use data/tokenizer=bytes{template}"
    return "Begin with a run of data/tokenizer=bytes."

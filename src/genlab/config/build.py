"""The one place that instantiates: config nodes to objects, each checked against the slot it is meant for.

A node with a ``_target_`` names a class; its other keys are constructor arguments. Before anything is built,
:func:`check` resolves every target below a node and compares it with the annotation of the argument that it is passed
to (its *slot*), and every plain value with its annotation. So a network in the place of a sampler, a misspelt number,
and a hostile config are refused by the same few lines. Only classes can be targets, and only where an annotation asks
for one.
"""

import difflib
import functools
import importlib
import inspect
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from genlab.config.annotation import LATER, describe, item_annotation, matches, takes
from genlab.config.renamed import current_name
from genlab.config.slots import fits as fits  # public through this module
from genlab.config.slots import full_name, needs, why_not_admitted
from genlab.errors import ConfigError, GenlabError, did_you_mean
from genlab.trust.places import check_origin, how_to_add

T = TypeVar("T")
Node = Mapping[str, Any]

_LONGEST = 300  # characters of an error that a part did not raise on purpose

# Lower bounds of whole numbers by the name of the argument, in any class: annotations cannot express them, and
# libraries check them late or not at all.
_AT_LEAST = {"max_epochs": 1, "accumulate_grad_batches": 1, "log_every_n_steps": 1, "num_nodes": 1, "devices": 1,
             "num_workers": 0, "limit": 1, "batch_size": 1, "rank_timeout": 1, "keep": 1}  # fmt: skip
_MOST = 2**63 - 1  # a whole number that torch can hold
_MOST_PROCESSES = 1024  # of num_workers


class Misfit(ConfigError):
    """A target that does not fit its slot."""

    def __init__(self, target: type, slot: Any, path: str):
        reason = why_not_admitted(target, slot) or f"does not fit here. {needs(slot)}"
        super().__init__(f"{path}: {full_name(target)} {reason}")
        self.slot, self.path = slot, path


def build(
    node: Node,
    slot: type[T] | Any,
    path: str,
    given: Mapping[str, Any] | None = None,
    noted: dict[str, Any] | None = None,
) -> T:
    """Check a node against ``slot`` and build it.

    Args:
        node: plain values (an OmegaConf container already resolved)
        slot: a class, a Protocol, or ``Callable[..., X]`` for a ``_partial_`` node
        path: where the node stands in the config, for messages
        given: further constructor arguments, made by code
        noted: its keys are paths below ``path``; what is built there becomes their values

    Raises:
        ConfigError: something does not fit; the message is one line and names ``path``.
    """
    check(node, slot, path, given=frozenset(given or ()))
    return _instantiate(node, path, given or {}, {} if noted is None else noted)


def _instantiate(node: Any, path: str, given: Mapping[str, Any], noted: dict[str, Any]) -> Any:
    made = _made(node, path, given, noted)
    if path in noted:
        noted[path] = made
    return made


def _made(node: Any, path: str, given: Mapping[str, Any], noted: dict[str, Any]) -> Any:
    if isinstance(node, Mapping) and "_target_" not in node:
        return {key: _instantiate(value, f"{path}.{key}", {}, noted) for key, value in node.items()}
    if isinstance(node, list):
        return [_instantiate(value, f"{path}.{i}", {}, noted) for i, value in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    target = resolve(node["_target_"], path)
    below = {key: _instantiate(value, f"{path}.{key}", {}, noted) for key, value in _arguments(node).items()}
    arguments = below | dict(given)
    if node.get("_partial_"):
        factory: Any = functools.partial(_construct, target, path, arguments)
        factory.__signature__ = inspect.signature(target)  # so that callers can see its parameters
        return factory
    return _construct(target, path, arguments)


def _construct(target: type, path: str, arguments: dict[str, Any], *positional: Any, **late: Any) -> Any:
    """Call a constructor; a ValueError about its arguments becomes a one-line ConfigError."""
    try:
        return target(*positional, **arguments, **late)
    except GenlabError:
        raise
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: {_one_line(error)}") from error
    except (OSError, ImportError):  # from a disk, a network or a package, not from the values
        raise
    except Exception as error:  # from a part's own code, or a library's, which may fail in any way
        if is_out_of_memory(error):
            raise
        raise not_made(path, error) from error


def is_out_of_memory(error: Exception) -> bool:
    """Also torch's, which is not imported here."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


class NotMadeError(ConfigError):
    """A part's own code failed with the values that it was given, without explaining why: see ``__cause__``."""


def not_made(path: str, error: Exception) -> NotMadeError:
    """The error to raise, with what failed."""
    cause = f"{type(error).__name__}: {_one_line(error)}"[:_LONGEST].removesuffix(".")
    return NotMadeError(f"{path}: cannot be built with these values ({cause}). Change what you set of {path}.*")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def check(node: Any, slot: Any, path: str, given: frozenset[str] = frozenset()) -> None:
    """Check a node and everything below it against ``slot``, without building anything. Raises ConfigError."""
    if node is LATER:
        return
    if not (isinstance(node, Mapping) and "_target_" in node):
        _check_value(node, slot, path)
        return
    target = resolve(node["_target_"], path)
    partial = bool(node.get("_partial_"))
    if not fits(target, slot, partial):
        raise Misfit(target, slot, path)
    annotations, arguments = parameters(target), _arguments(node)
    for key, value in arguments.items():
        if key in given:
            raise ConfigError(f"{path}.{key} cannot be set: genlab sets it for {target.__name__}.")
        _check_name(key, target, path, sorted(set(annotations) - given))
        check(value, annotations.get(key, Any), f"{path}.{key}")
        _check_range(key, value, annotations.get(key, Any), f"{path}.{key}")
    if not partial:
        missing = [key for key in _required(target) if key not in arguments and key not in given]
        if missing:
            raise ConfigError(f"{path}.{missing[0]} has no value. Set it: {path}.{missing[0]}=...")


def _check_name(key: str, target: type, path: str, known: Sequence[str]) -> None:
    """Raises ConfigError for an argument that the constructor lacks; if it takes any (``**kwargs``), only for one that
    looks like a misspelt argument of its own."""
    if key in known:
        return
    takes_any = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(target).parameters.values())
    if takes_any and not key.startswith("_") and not difflib.get_close_matches(key, known, cutoff=0.8):
        return
    check_known([key], target, path, known)


def check_known(keys: Iterable[str], target: type, path: str, known: Iterable[str]) -> None:
    """Raises ConfigError for the first of ``keys`` that is not among the arguments ``known`` of ``target``."""
    names = sorted(known)
    for key in keys:
        if key not in names:
            guess = did_you_mean(key, names, prefix=f"{path}.") or f" It has: {', '.join(names)}."
            raise ConfigError(f"unknown option '{path}.{key}': {target.__name__} has no such argument.{guess}")


def resolve(name: Any, path: str) -> type:
    """The class that a ``_target_`` names, also by its former name (:mod:`genlab.config.renamed`). Raises ConfigError:
    not a dotted name, not found, or not a class.

    The module is imported to look at the class, which runs the module's own code: what is installed, and what lies in a
    place of the user's (:mod:`genlab.trust.places`), is trusted. Never imported here are the standard library (no part
    of an experiment is in it, and some of its modules act when they are imported) and names with a leading underscore,
    ``__main__`` among them.
    """
    name = current_name(str(name))
    module_name, _, attribute = name.rpartition(".")
    is_plausible = re.fullmatch(r"[A-Za-z]\w*(\.[A-Za-z]\w*)+", name, re.ASCII)
    if not is_plausible or module_name.split(".")[0] in sys.stdlib_module_names:
        raise ConfigError(f"{path}._target_: '{name}' cannot be a part of an experiment.")
    check_origin(module_name, f"{path}._target_")
    try:
        target = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # an import runs the module's own code, which may fail in any way
        unknown = isinstance(error, ModuleNotFoundError) and error.name == module_name.split(".")[0]
        hint = f" {how_to_add()}" if unknown else ""
        raise ConfigError(f"{path}._target_: there is no '{name}' ({_one_line(error)}).{hint}") from error
    if not inspect.isclass(target):
        raise ConfigError(f"{path}._target_: '{name}' is not a class.")
    if module_name.partition(".")[0] == "genlab" and target.__module__.partition(".")[0] != "genlab":
        raise ConfigError(f"{path}._target_: '{name}' is not a class of genlab but {full_name(target)}. Use that name.")
    return target


def parameters(target: type) -> dict[str, Any]:
    """Constructor arguments by name, with their annotations (Any where a library left them out)."""
    signature = inspect.signature(target)
    try:
        hints = get_type_hints(inspect.unwrap(target.__init__))  # type: ignore[misc]
    except Exception:  # a third party's annotation names something that it only imports for type checkers
        hints = {}
    return {
        name: hints.get(name, Any)
        for name, parameter in signature.parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }


def marked(target: type, mark: object) -> dict[str, Any]:
    """Constructor arguments whose annotation has ``mark`` beside it (``Annotated[X, mark]``), with their X."""
    try:
        hints = get_type_hints(inspect.unwrap(target.__init__), include_extras=True)  # type: ignore[misc]
    except Exception:  # as above
        return {}
    return {
        name: get_args(hint)[0]
        for name, hint in hints.items()
        if get_origin(hint) is Annotated and mark in hint.__metadata__
    }


def _required(target: type) -> list[str]:
    signature = inspect.signature(target)
    return [
        name
        for name, parameter in signature.parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]


def _arguments(node: Node) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key not in ("_target_", "_partial_")}


# --- values -----------------------------------------------------------------------------------------------------------


def _check_value(value: Any, annotation: Any, path: str) -> None:
    """Check a value that is not a target, and the targets in it at any depth: whatever is built must be checked."""
    holds_mapping = _holds_mapping(value)
    if not (takes(type(value), annotation) if holds_mapping else matches(value, annotation)):
        raise ConfigError(_must_be(path, describe(annotation, _AT_LEAST.get(path.rpartition(".")[2])), value))
    _check_is_a_number(value, annotation, path)
    if holds_mapping:
        for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            check(item, item_annotation(annotation), f"{path}.{key}")


def _check_range(key: str, value: Any, annotation: Any, path: str) -> None:
    bound = _AT_LEAST.get(key)
    if bound is not None and type(value) is int and value < bound:
        or_null = " or null" if matches(None, annotation) and annotation is not Any else ""
        raise ConfigError(_must_be(path, f"a whole number >= {bound}{or_null}", value))
    if key == "num_workers" and type(value) is int and value > _MOST_PROCESSES:
        raise ConfigError(_must_be(path, f"at most {_MOST_PROCESSES} processes", value))
    if key == "shape" and isinstance(value, list) and not (value and all(size != 0 for size in value)):
        raise ConfigError(_must_be(path, "a list of one size or more, none of them 0", value))


def _check_is_a_number(value: Any, annotation: Any, path: str) -> None:
    """Raises ConfigError for numbers that cannot be computed with: nan, and those that torch cannot hold. Infinity is
    allowed: some arguments take it, such as the end of a sampler's range of noise levels."""
    if isinstance(value, list | tuple):
        for item in value:
            _check_is_a_number(item, item_annotation(annotation), path)
    elif isinstance(value, float) and math.isnan(value):
        raise ConfigError(_must_be(path, "a number", value))
    elif isinstance(value, int) and abs(value) > (sys.float_info.max if matches(0.5, annotation) else _MOST):
        digits = len(str(abs(value)))
        raise ConfigError(f"{path} must be a number of at most {len(str(_MOST))} digits, got one of {digits}.")


def _holds_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and any(map(_holds_mapping, value)))


def _must_be(path: str, what: str, value: Any) -> str:
    return f"{path} must be {what}, got {value!r}."

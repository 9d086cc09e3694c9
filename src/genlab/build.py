"""The one place that instantiates: config nodes to objects, each checked against the slot it is meant for.

A node with a ``_target_`` names a class; its other keys are constructor arguments. Before anything is built,
:func:`check` resolves every target below a node and compares it with the annotation of the argument that it is passed to
(its *slot*), and every plain value with its annotation. So a network in the place of a sampler, a misspelt number, and a
hostile config are refused by the same few lines. Only classes can be targets, and only where an annotation asks for one.
"""

import functools
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from genlab.errors import ConfigError, GenlabError

T = TypeVar("T")
Node = Mapping[str, Any]

LATER = object()  # stands in a node for a value that is not known yet: fits every slot

# Lower bounds that Lightning checks late or not at all, and its annotations cannot say.
_AT_LEAST = {"max_epochs": 1, "accumulate_grad_batches": 1, "log_every_n_steps": 1, "num_nodes": 1}


class Misfit(ConfigError):
    """A target in a place that is meant for something else."""

    def __init__(self, target: type, slot: Any, path: str):
        super().__init__(f"{path}: {target.__module__}.{target.__qualname__} does not fit here. {_needs(slot)}")
        self.slot, self.path = slot, path


def build(node: Node, slot: type[T] | Any, path: str, given: Mapping[str, Any] | None = None) -> T:
    """Check a node against ``slot`` and build it.

    Args:
        node: plain values (an OmegaConf container already resolved)
        slot: a class, a Protocol, or ``Callable[..., X]`` for a ``_partial_`` node
        path: where the node stands in the config, for messages
        given: further constructor arguments, made by code

    Raises:
        ConfigError: something does not fit; the message is one line and names ``path``.
    """
    check(node, slot, path, given=frozenset(given or ()))
    return _instantiate(node, path, given or {})


def _instantiate(node: Any, path: str, given: Mapping[str, Any]) -> Any:
    if isinstance(node, Mapping) and "_target_" not in node:
        return {key: _instantiate(value, f"{path}.{key}", {}) for key, value in node.items()}
    if isinstance(node, list):
        return [_instantiate(value, f"{path}.{i}", {}) for i, value in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    target = resolve(node["_target_"], path)
    arguments = {key: _instantiate(value, f"{path}.{key}", {}) for key, value in _arguments(node).items()} | dict(given)
    if node.get("_partial_"):
        return functools.partial(_construct, target, path, arguments)
    return _construct(target, path, arguments)


def _construct(target: type, path: str, arguments: dict[str, Any], *positional: Any, **late: Any) -> Any:
    """Call a constructor; what it says of its arguments (ValueError) becomes the user's one line."""
    try:
        return target(*positional, **arguments, **late)
    except GenlabError:
        raise
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: {_one_line(error)}") from error


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
    annotations = parameters(target)
    arguments = _arguments(node)
    for key, value in arguments.items():
        if key not in annotations:
            raise ConfigError(
                f"unknown option '{path}.{key}': {target.__name__} has no such argument. "
                f"It has: {', '.join(sorted(set(annotations) - given))}."
            )
        check(value, annotations[key], f"{path}.{key}")
        bound = _AT_LEAST.get(key)
        if bound is not None and isinstance(value, int) and value < bound:
            raise ConfigError(_must_be(f"{path}.{key}", f"a whole number >= {bound} or null", value))
    if not partial:
        missing = [key for key in _required(target) if key not in arguments and key not in given]
        if missing:
            raise ConfigError(f"{path}.{missing[0]} has no value. Set it: {path}.{missing[0]}=...")


def resolve(name: Any, path: str) -> type:
    """The class that a ``_target_`` names. Raises ConfigError: not a dotted name, not found, or not a class."""
    module_name, _, attribute = str(name).rpartition(".")
    try:
        target = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{path}._target_: there is no '{name}' ({_one_line(error)}).") from error
    if not inspect.isclass(target):
        raise ConfigError(f"{path}._target_: '{name}' is not a class.")
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


# --- does a class fit a slot ----------------------------------------------------------------------------------------


def fits(target: type, slot: Any, partial: bool) -> bool:
    """Whether a class may stand in a slot; ``partial``: as a factory, for a slot that is called later."""
    origin = get_origin(slot)
    if origin in (Union, types.UnionType):
        return any(fits(target, option, partial) for option in get_args(slot))
    if origin is Callable:
        return partial and fits(target, get_args(slot)[1], partial=False)
    if partial or not inspect.isclass(slot):
        return False
    if getattr(slot, "_is_protocol", False):
        return all(_has_method(target, slot, name) for name in _protocol_methods(slot))
    return issubclass(target, slot)


def _protocol_methods(protocol: type) -> list[str]:
    skipped = {"__init__", "__subclasshook__"}
    return [name for name, value in vars(protocol).items() if inspect.isfunction(value) and name not in skipped]


def _has_method(target: type, protocol: type, name: str) -> bool:
    """Whether ``target`` has the method with the protocol's parameter names; more are fine if they have defaults."""
    method = getattr(target, name, None)
    if not inspect.isfunction(method):
        return False
    wanted = list(inspect.signature(getattr(protocol, name)).parameters)
    offered = inspect.signature(method).parameters
    rest = list(offered.values())[len(wanted) :]
    return list(offered)[: len(wanted)] == wanted and all(p.default is not p.empty for p in rest)


def _needs(slot: Any) -> str:
    if get_origin(slot) is Callable:
        return _needs(get_args(slot)[1])
    if getattr(slot, "_is_protocol", False):
        methods = (
            f"{name}({', '.join(list(inspect.signature(getattr(slot, name)).parameters)[1:])})"
            for name in _protocol_methods(slot)
        )
        return f"This place needs a {slot.__name__}, which has {' and '.join(methods)}."
    if inspect.isclass(slot) and slot not in (int, float, str, bool):
        return f"This place needs a {slot.__name__}."
    return f"This place needs {_describe(slot)}."


# --- does a plain value fit an annotation ---------------------------------------------------------------------------


def _check_value(value: Any, annotation: Any, path: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            check(item, _item_annotation(annotation), f"{path}.{key}")
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for i, item in enumerate(value):
            check(item, _item_annotation(annotation), f"{path}.{i}")
    elif not _matches(value, annotation):
        raise ConfigError(_must_be(path, _describe(annotation, path.rpartition(".")[2]), value))


def _must_be(path: str, what: str, value: Any) -> str:
    return f"{path} must be {what}, got {value!r}."


def _item_annotation(annotation: Any) -> Any:
    """What the items of a container are: X of list[X], Sequence[X], Mapping[str, X], also inside a union."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        items = [_item_annotation(option) for option in arguments if option is not type(None)]
        return Union[tuple(items)] if items else Any  # noqa: UP007
    return arguments[-1] if inspect.isclass(origin) and issubclass(origin, Iterable) and arguments else Any


def _matches(value: Any, annotation: Any) -> bool:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if value is LATER or annotation is Any or isinstance(annotation, TypeVar):
        return True
    if annotation is None or annotation is type(None):
        return value is None
    if origin is typing.Annotated:
        return _matches(value, arguments[0])
    if origin in (Union, types.UnionType):
        return any(_matches(value, option) for option in arguments)
    if origin is Literal:
        return value in arguments and type(value) in {type(option) for option in arguments}
    if annotation is bool or isinstance(value, bool):
        return isinstance(value, bool) and annotation is bool
    if annotation is float:
        return isinstance(value, int | float)
    if annotation in (str, Path):
        return isinstance(value, str)
    if origin is tuple and isinstance(value, list | tuple):
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return all(_matches(item, arguments[0]) for item in value)
        return len(value) == len(arguments) and all(map(_matches, value, arguments))
    if isinstance(value, list | tuple):
        container = origin or annotation
        if not (inspect.isclass(container) and issubclass(list, container)):
            return False
        return all(_matches(item, _item_annotation(annotation)) for item in value)
    return inspect.isclass(annotation) and isinstance(value, annotation)


def _describe(annotation: Any, name: str = "") -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        options = dict.fromkeys(_describe(option, name) for option in arguments if _plain(option))
        if "a number" in options:
            options.pop("a whole number", None)
        return " or ".join(options)
    if origin is Literal:
        return " or ".join(repr(option) for option in arguments)
    if annotation is int and name in _AT_LEAST:
        return f"a whole number >= {_AT_LEAST[name]}"
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false", Path: "a path"}
    if annotation in (None, type(None)):
        return "null"
    if annotation in words:
        return words[annotation]
    if origin in (tuple, list, Sequence) or origin is Iterable:
        if origin is tuple and Ellipsis not in arguments:
            return f"a list of {len(arguments)} values"
        return f"a list of {_describe(arguments[0]).removeprefix('a ')}s" if arguments else "a list"
    return f"a {getattr(annotation, '__name__', annotation)}, given by its _target_"


def _plain(annotation: Any) -> bool:
    """Whether a user could type a value of it: torch's Tensor beside float is not worth a word."""
    if get_origin(annotation) in (Literal, tuple, list, Sequence, Union, types.UnionType):
        return True
    return annotation in (int, float, str, bool, None, type(None), Path)

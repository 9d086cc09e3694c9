"""Checks plain config values against the annotations of constructor arguments, and describes annotations in words."""

import inspect
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

LATER = object()  # stands in a config for a value that is not known yet: fits every annotation


def matches(value: Any, annotation: Any) -> bool:
    """Whether ``value`` (a number, text, null, or lists of these) fits. A whole number is a number; true is neither."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if value is LATER or annotation is Any or isinstance(annotation, TypeVar):
        return True
    if annotation is None or annotation is type(None):
        return value is None
    if origin is typing.Annotated:
        return matches(value, arguments[0])
    if origin in (Union, types.UnionType):
        return any(matches(value, option) for option in arguments)
    if origin is Literal:
        return any(value == option and type(value) is type(option) for option in arguments)
    if annotation is bool or isinstance(value, bool):
        return isinstance(value, bool) and annotation is bool
    if annotation is float:
        return isinstance(value, int | float)
    if annotation in (str, Path):
        return isinstance(value, str)
    if origin is tuple and isinstance(value, list | tuple):
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return all(matches(item, arguments[0]) for item in value)
        return len(value) == len(arguments) and all(map(matches, value, arguments))
    if isinstance(value, list | tuple):
        return takes(list, annotation) and all(matches(item, item_annotation(annotation)) for item in value)
    return annotation is type(value)


def takes(container: type, annotation: Any) -> bool:
    """Whether an argument may be a ``container`` (list or dict), regardless of its items."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return any(takes(container, option) for option in get_args(annotation))
    wanted = origin or annotation
    return wanted is Any or (inspect.isclass(wanted) and wanted is not object and _is_subclass(container, wanted))


def _is_subclass(container: type, wanted: type) -> bool:
    return not getattr(wanted, "_is_protocol", False) and issubclass(container, wanted)


def item_annotation(annotation: Any) -> Any:
    """What the items of a container are: X of list[X], Sequence[X], Mapping[str, X], also inside a union."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        items = [item_annotation(option) for option in arguments if option is not type(None)]
        return Union[tuple(items)] if items else Any  # noqa: UP007
    return arguments[-1] if inspect.isclass(origin) and issubclass(origin, Iterable) and arguments else Any


def describe(annotation: Any, at_least: int | None = None) -> str:
    """An annotation in plain words; ``at_least``: the lower bound of a whole number."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        typeable = [option for option in arguments if _is_plain(option)] or arguments
        options = dict.fromkeys(describe(option, at_least) for option in typeable)
        if "a number" in options:
            options.pop("a whole number", None)
        return " or ".join(options)
    if origin is Literal:
        return " or ".join(dict.fromkeys(str(option) for option in arguments))
    if annotation is int and at_least is not None:
        return f"a whole number >= {at_least}"
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false", Path: "a path"}
    if annotation in (None, type(None)):
        return "null"
    if annotation in words:
        return words[annotation]
    if origin in (tuple, list, Sequence, Iterable):
        if origin is tuple and Ellipsis not in arguments:
            return f"a list of {len(arguments)} values"
        return f"a list of {describe(arguments[0]).removeprefix('a ')}s" if arguments else "a list"
    if origin is Mapping or origin is dict or annotation is dict:
        return "a mapping"
    return f"a {getattr(annotation, '__name__', annotation)}, given by its _target_"


def _is_plain(annotation: Any) -> bool:
    """Whether a user could type a value of it: torch's Tensor beside float is not mentioned."""
    if get_origin(annotation) in (Literal, tuple, list, Sequence, Union, types.UnionType):
        return True
    return annotation in (int, float, str, bool, None, type(None), Path)

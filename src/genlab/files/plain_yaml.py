"""A safe YAML loader for untrusted files: no objects, no merge keys, no huge numbers."""

from functools import partial
from typing import Any

import yaml

LONGEST_NUMBER = 400  # characters; float64 needs at most 325


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Without merge keys, which copy, and without numbers of thousands of digits."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise yaml.constructor.ConstructorError(None, None, "it has a merge key (<<), which runs never write", None)

    def number(self, node: yaml.Node, kind: str) -> int | float:
        if len(str(node.value)) > LONGEST_NUMBER:
            raise ValueError(f"it holds a number of {len(node.value):,} characters")
        return getattr(self, f"construct_yaml_{kind}")(node)


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", partial(_Loader.number, kind=_kind))


def parse_yaml(text: str) -> Any:
    """The values in a YAML text. Raises ValueError, ArithmeticError, TypeError, RecursionError and yaml.YAMLError."""
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()

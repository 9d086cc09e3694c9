"""Metrics by their former names: as options, in saved configs, and in the numbers that runs have written."""

import re
from collections.abc import Collection, Mapping
from typing import Any

OPTIONS = {  # metrics=[...] then, and now
    "as_asked": "label_accuracy",
    "ppl": "path_length",
    "ppl_pixels": "path_length_pixels",
    "prc": "precision_recall",
    "isc": "inception_score",
    "dc": "density_coverage",
    "nearest": "nearest_neighbor",
}
_NUMBERS = {name: OPTIONS[name] for name in ("as_asked", "ppl", "isc")}  # of which the names of numbers begin with it
_FORMER = {now: then for then, now in OPTIONS.items()}
_NUMBER = re.compile(rf"((?:(?:val|best|final)/)?)({'|'.join(_NUMBERS)})(?=_|$)")
_OPTION = re.compile(rf"([+~]*metrics\.)({'|'.join(OPTIONS)})(?=[.=]|$)")
_CHOICE = re.compile(r"([+~]*metrics=)(.*)", re.DOTALL)
_NAME = re.compile(rf"(?<![\w.])({'|'.join(OPTIONS)})(?![\w.])")


def current_option(override: str, known: Collection[str]) -> str:
    """What is typed, with metrics by their names of today. ``known``: the options that there are; a user's own metric
    may have the name that one of genlab's had."""

    def now(found: re.Match[str]) -> str:
        return found[0] if found[found.lastindex or 0] in known else found[0].replace(found[1], OPTIONS[found[1]])

    if choice := _CHOICE.fullmatch(override):
        return choice[1] + _NAME.sub(now, choice[2])
    option = _OPTION.match(override)
    if option is None or option[2] in known:
        return override
    return option[1] + OPTIONS[option[2]] + override[option.end() :]


def current_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The ``metrics`` of a config, or of a protocol, by their names of today. What a file says of one by its former
    name, beside the metric itself, is put into it."""
    found: dict[str, Any] = {}
    for name, node in metrics.items():
        is_own = isinstance(node, Mapping) and not str(node.get("_target_", "genlab.")).startswith("genlab.")
        now = name if is_own else OPTIONS.get(name, name)
        both = isinstance(found.get(now), Mapping) and isinstance(node, Mapping)
        found[now] = {**found[now], **node} if both else node
    return found


def current_number(name: str) -> str:
    """``val/as_asked_1k`` -> ``val/label_accuracy_1k``; other names as they are."""
    return _NUMBER.sub(lambda found: found[1] + _NUMBERS[found[2]], name, count=1) if _NUMBER.match(name) else name


def name_in_ids(metric: str) -> str:
    """What ids of numbers are made of: the first name that the metric had, so that old and new numbers compare."""
    return _FORMER.get(metric, metric)

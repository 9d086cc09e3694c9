"""Settings that differ between runs, and how their values are written: short, and no two of them alike."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

LONGEST_VALUE = 24  # characters
# Output places, displays and evaluation settings (part of the protocol) do not make it another model.
LEFT_OUT = (
    *("run_dir", "run_id", "outputs", "logger", "dry_run", "profile", "spec", "cpu", "metrics", "evaluation", "task"),
    "model.told",
    *(f"callbacks.{name}" for name in ("samples", "evaluation", "checkpoint", "progress", "speed")),
    *("trainer.log_every_n_steps", "trainer.accelerator"),
    *("data.num_workers", "data.root", "data.val_root"),
)
ORDER = ("model", "data", "budget", "seed", "trainer", "callbacks")
ABSENT = object()  # this part has no such setting
NOWHERE = object()  # there is no such part


@dataclass(frozen=True)
class Place:
    """A part that was trained elsewhere: told by where that is, from the last name on."""

    where: str

    def text(self, names: int) -> str:
        return printable("/".join(self._names[-names:]))

    @property
    def _names(self) -> list[str]:
        return [name for name in re.split(r"[/\\]", self.where) if name] or [self.where]

    def __len__(self) -> int:
        return len(self._names)


@dataclass
class Difference:
    """A setting that differs between runs."""

    path: str
    nodes: list[Any]  # what each run has there, or ABSENT, or NOWHERE
    values: list[str]  # the same as text: unlike where the nodes are; "": it has no such setting
    is_part: bool  # a class rather than a value
    name: str = ""  # the end of the path, as long as it takes to tell it from others

    def follows(self, other: "Difference") -> bool:
        """Whether it has the other's name and, wherever it is at all, its values."""
        pairs = zip(self.values, other.values, strict=True)
        return self.name == other.name and all(own in ("", theirs) for own, theirs in pairs)


def differences(configs: Sequence[Any]) -> list[Difference]:
    """All settings that differ: parts before values, the model's first; a value that others follow (seed) once."""
    kept: dict[tuple[str, ...], Difference] = {}
    for difference in all_differences(configs):
        difference.name = difference.path.rpartition(".")[2]
        if not any(difference.follows(other) for other in kept.values() if other.name == difference.name):
            kept.setdefault((difference.name, *difference.values), difference)
    count = Counter(difference.name for difference in kept.values())
    for difference in kept.values():
        if count[difference.name] > 1:
            difference.name = ".".join(difference.path.split(".")[-2:])
    return list(kept.values())


def all_differences(configs: Sequence[Any]) -> list[Difference]:
    """As :func:`differences`, with those that follow others, by their whole paths."""
    nodes: dict[str, list[Any]] = {}
    parts: set[str] = set()
    _walk(configs, "", nodes, parts)
    found = [Difference(path, own, texts(own), path in parts, path) for path, own in nodes.items()]
    return sorted(found, key=rank)


def is_left_out(path: str) -> bool:
    return any(path == name or path.startswith(f"{name}.") for name in LEFT_OUT)


def _walk(nodes: Sequence[Any], path: str, found: dict[str, list[Any]], parts: set[str]) -> None:
    """Add what differs at ``path`` and below. Of parts of different classes, only those of one class are compared."""
    if is_left_out(path) or all(node is nodes[0] or node == nodes[0] for node in nodes):
        return
    if any(isinstance(node, Place) for node in nodes):
        parts.add(path)
    if not any(isinstance(node, dict) for node in nodes):
        found[path] = list(nodes)
        return
    classes = [str(node.get("_target_", "")) if isinstance(node, dict) else None for node in nodes]
    if len(set(classes)) > 1 and path != "model":  # the model's class, the family, leads the name anyway
        found[path] = list(nodes)
        parts.add(path)
    for name in dict.fromkeys(classes):
        alike = [i for i, other in enumerate(classes) if other == name and isinstance(nodes[i], dict)]
        below: dict[str, list[Any]] = {}
        for child in dict.fromkeys(str(key) for i in alike for key in nodes[i] if key != "_target_"):
            own = [nodes[i].get(child, ABSENT) for i in alike]
            _walk(own, f"{path}.{child}" if path else child, below, parts)
        for place, values in below.items():
            row = found.setdefault(place, [NOWHERE] * len(nodes))
            for i, value in zip(alike, values, strict=True):
                row[i] = value


def rank(difference: Difference) -> tuple[bool, int, int, str]:
    *above, name = difference.path.split(".")
    top = name if name == "seed" or not above else above[0]  # model.seed and data.seed follow the run's
    place = ORDER.index(top) if top in ORDER else len(ORDER)
    return not difference.is_part, place, difference.path.count("."), difference.path


def class_name(node: dict[str, Any]) -> str:
    """``genlab.model.network.unet.UNet`` -> ``unet``, ``FlowMatching`` -> ``flow_matching``."""
    last = str(node.get("_target_", "")).rpartition(".")[2]
    return printable(re.sub(r"(?<=[a-z0-9])(?=[A-Z](?:[a-z]|[A-Z]{2}))", "_", last).lower())


def class_names(nodes: Sequence[dict[str, Any]]) -> list[str]:
    """Those of parts. Classes of one name in different modules get the modules' too: ``mine.unet``."""
    return texts([{"_target_": node.get("_target_", "")} for node in nodes])


def texts(nodes: Sequence[Any]) -> list[str]:
    """What settings are written as, at most ``LONGEST_VALUE`` characters each: the same text for those that are the
    same, another for every other one. "" is what is not there."""
    keys = [_key(node) for node in nodes]
    of_key = dict(zip(keys, nodes, strict=True))
    chosen: dict[str, str] = {}
    for attempt in (_plain, _longer, _exact):  # each for those that the ones before could not tell apart
        open_ = {key: attempt(of_key[key]) for key in of_key if key not in chosen}
        count = Counter([*open_.values(), *chosen.values()])
        chosen |= {key: text for key, text in open_.items() if count[text] == 1}
    chosen |= {key: _with_hash(_exact(of_key[key]), key) for key in of_key if key not in chosen}
    return [chosen[key] for key in keys]


def _key(node: Any) -> str:
    """The same for those that are the same."""
    if node is ABSENT or node is NOWHERE:
        return ""
    if isinstance(node, Place):
        return f"place {node.where}"
    if isinstance(node, dict) and "_target_" in node:
        return f"class {node['_target_']}"
    if isinstance(node, dict):
        return "node"
    return f"value {_json(node)}"


def _plain(node: Any) -> str:
    """As short as can be: the end of a class or of a place, four digits."""
    if isinstance(node, Place):
        return bounded(_quoted(node.text(1)))
    return short(node)


def _longer(node: Any) -> str:
    """A module or a folder more; all digits; text in quotes."""
    if isinstance(node, Place):
        return bounded(_quoted(node.text(2)))
    if isinstance(node, dict) and "_target_" in node:
        module = str(node["_target_"]).split(".")[-2:-1]
        return bounded(printable(".".join([*module, class_name(node)])))
    return short(node) if node is ABSENT or node is NOWHERE or isinstance(node, dict) else bounded(_json(node))


def _exact(node: Any) -> str:
    if isinstance(node, Place):
        return bounded(_quoted(node.text(len(node))))
    if isinstance(node, dict) and "_target_" in node:
        return bounded(_quoted(printable(str(node["_target_"]))))
    return _longer(node)


def short(value: Any) -> str:
    """A value in at most ``LONGEST_VALUE`` characters, which others may share."""
    if value is ABSENT or value is NOWHERE:
        return ""
    if isinstance(value, dict):
        return bounded(_quoted(class_name(value))) if "_target_" in value else "{…}"
    if isinstance(value, float):
        value = float(f"{value:.4g}")  # a search draws more digits than tell its trials apart
    return bounded(_quoted(printable(value)) if isinstance(value, str) else _json(value))


def bounded(text: str, longest: int = LONGEST_VALUE) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _with_hash(text: str, key: str) -> str:
    return f"{text[: LONGEST_VALUE - 8].rstrip('…')}…#{digest(key)}"


def digest(text: str) -> str:
    """Six characters that other texts do not have."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:6]


def _json(value: Any) -> str:
    return printable(json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=str))


def _quoted(text: str) -> str:
    """In quotes where it could be taken for more than one word, or for nothing."""
    return text if re.fullmatch(r"[^\s=\"]+", text) else printable(json.dumps(text, ensure_ascii=False))


def printable(text: str) -> str:
    """Names come from files: nothing in them may steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def long(node: Any, text: str, longest: int = 100) -> str:
    """A value in full where that is not too long, else as ``text``."""
    if isinstance(node, Place):
        full = _quoted(printable(node.where))
    elif isinstance(node, dict):
        return text
    else:
        full = _quoted(printable(node)) if isinstance(node, str) else _json(node)
    return full if len(full) <= longest else text

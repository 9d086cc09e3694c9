"""The words of a label: the settings in which a run differs from others of its model, without what is the default."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from genlab.report.configurations import SEED
from genlab.report.names import ABSENT, NOWHERE, Difference, Place, all_differences, is_left_out, printable, rank
from genlab.report.runs import Run

LONGEST_NAME = 28  # of a setting's
SHARED = ("data", "budget", "start")  # choices that are named for each model where they differ between any two
DEEPEST = 8  # names of a path that a label says at most
UNCLEAR = frozenset({SEED, "value"})  # ends of paths that say nothing alone


@dataclass(frozen=True)
class Word:
    """A setting in a label."""

    path: str
    text: str  # lr=0.001
    rank: tuple[bool, int, int, str] = (False, 0, 0, "")  # of settings: the lowest comes first


def words_of(runs: Sequence[Run], configs: Sequence[dict[str, Any]], models: Sequence[str]) -> list[list[Word]]:
    """What each run's label says where there is room for all of it."""
    choices = [{name: config.get(name, ABSENT) for name in SHARED} for config in configs]
    everywhere = [d for d in all_differences(choices) if d.path in SHARED]
    found: list[list[Word]] = [[] for _ in runs]
    for model in dict.fromkeys(models):
        places = [i for i, other in enumerate(models) if other == model]
        alike = [configs[i] for i in places]
        typed = [runs[i].typed for i in places]
        own = [d for d in _varied(alike, typed) if d.path not in SHARED]
        names = ends([d.path for d in own], list(_paths(alike, "")))
        for d in own:
            usual = _default(d, typed)
            for i, node, value in zip(places, d.nodes, d.values, strict=True):
                if node is not ABSENT and node is not NOWHERE and value != usual:
                    found[i].append(Word(d.path, f"{names[d.path]}={value}", rank(d)))
    for d in everywhere:
        usual = _default(d, [run.typed for run in runs])
        for i, node, value in zip(range(len(runs)), d.nodes, d.values, strict=True):
            if node is not ABSENT and value != usual:
                found[i].append(Word(d.path, f"{d.path}={value}", rank(d)))
    return [sorted(own, key=lambda word: word.rank) for own in found]


def ends(paths: Sequence[str], among: Sequence[str]) -> dict[str, str]:
    """Paths by as much of their ends as it takes to tell each from all others: ``model.optimizer.lr`` -> ``lr``."""
    count = Counter(tail for path in {*paths, *among} for tail in _tails(path))
    found = {}
    for path in paths:
        clear = [tail for tail in _tails(path) if count[tail] == 1 and tail not in UNCLEAR] or [path]
        text = printable(clear[0])
        found[path] = text if len(text) <= LONGEST_NAME else f"…{text[1 - LONGEST_NAME :]}"
    return found


def _tails(path: str) -> list[str]:
    names = path.split(".")[-DEEPEST:]
    return [".".join(names[-n:]) for n in range(1, len(names) + 1)]


def as_compared(config: dict[str, Any]) -> dict[str, Any]:
    """A config in which parts that were trained elsewhere are places. What they consist of follows from that."""
    found = {name: node for name, node in config.items() if name not in ("pretrained", "start")}
    start, pretrained = config.get("start"), config.get("pretrained")
    if isinstance(start, dict):
        found |= {f"start.{name}": node for name, node in start.items() if name != "where"}
        start = start.get("where")
    if start is not None:
        found["start"] = Place(str(start).replace("-", "/", 1))  # a hash, and the last name of where it is
    for path, where in pretrained.items() if isinstance(pretrained, dict) else ():
        if where is not None:
            found = _placed(found, ["model", *str(path).split(".")], Place(str(where)))
    return found


def _placed(node: dict[str, Any], path: Sequence[str], place: Place) -> dict[str, Any]:
    """A copy of ``node`` with ``place`` at ``path``."""
    name, *below = path
    if not below:
        return node | {name: place}
    child = node.get(name)
    return node | {name: _placed(child if isinstance(child, dict) else {}, below, place)}


def _varied(configs: Sequence[dict[str, Any]], typed: Sequence[frozenset[str] | None]) -> list[Difference]:
    """The settings in which runs of one model differ; without the seed, and what nobody typed and follows another."""
    kept: list[Difference] = []
    for d in all_differences(configs):
        d.name = d.path.rpartition(".")[2]
        if d.name == SEED and all(
            node is ABSENT or node is NOWHERE or node == config.get(SEED)
            for node, config in zip(d.nodes, configs, strict=True)
        ):
            continue
        own = any(paths is not None and _is_typed(d.path, paths) for paths in typed)
        own = own or any(node is ABSENT for node in d.nodes)
        if own or not any(d.follows(other) for other in kept if other.name == d.name):
            kept.append(d)
    return kept


def _default(difference: Difference, typed: Sequence[frozenset[str] | None]) -> str | None:
    """The one value of those runs in which nobody typed it. None: there is none, or they do not agree."""
    if any(node is ABSENT for node in difference.nodes):
        return ""
    left = {
        value
        for node, value, paths in zip(difference.nodes, difference.values, typed, strict=True)
        if node is not NOWHERE and paths is not None and not _is_typed(difference.path, paths)
    }
    return left.pop() if len(left) == 1 else None


def _is_typed(path: str, typed: frozenset[str]) -> bool:
    return path in typed or any(path.startswith(other) for other in typed if other.endswith("."))


def _paths(nodes: Sequence[Any], path: str) -> Iterator[str]:
    """Of all settings that any of the configs has."""
    if is_left_out(path):
        return
    if path:
        yield path
    children: dict[str, list[Any]] = defaultdict(list)
    for node in nodes:
        for name, child in node.items() if isinstance(node, dict) else ():
            below = children[name]  # an entry for values, too
            if isinstance(child, dict):
                below.append(child)
    for name, below in children.items():
        if name != "_target_":
            yield from _paths(below, f"{path}.{name}" if path else name)

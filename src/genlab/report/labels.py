"""What to call configurations beside each other: the model, then the settings that differ among those of that model.

A label leaves out what is the model's default, which is the value that runs have where nobody typed it, and the seed,
since runs that differ in it alone are one configuration. It is at most ``LONGEST`` characters: what does not fit is
counted (``+3 more``), and stands in full with the run. Two configurations never share a label, and the order in which
runs are read does not matter.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from genlab.report.configurations import SEED
from genlab.report.names import (
    ABSENT,
    NOWHERE,
    Difference,
    Place,
    all_differences,
    bounded,
    class_names,
    differences,
    digest,
    is_left_out,
    long,
    printable,
    rank,
)
from genlab.report.runs import Run

LONGEST = 48  # characters of a label
LONGEST_NAME = 28  # of a setting's
SHARED = ("data", "budget", "start")  # choices that are named for each model where they differ between any two
MOST_HIDDEN = 12  # settings that a line lists
UNCLEAR = frozenset({SEED, "value"})  # ends of paths that say nothing alone
LEADS = 4  # settings that may be put in front, so that labels tell runs apart


@dataclass(frozen=True)
class Word:
    """A setting in a label."""

    path: str
    text: str  # lr=0.001
    rank: tuple[bool, int, int, str] = (False, 0, 0, "")  # of settings: the lowest comes first


@dataclass(frozen=True)
class Labels:
    runs: list[str]
    rows: list[str]  # of configurations
    settings: list[list[str]] = field(default_factory=list)  # of each run, by whole paths: all that differ
    hidden: list[list[str]] = field(default_factory=list)  # of those the ones that its label does not say
    unnamed: list[str] = field(default_factory=list)  # paths that differ between models, and within none

    def with_hidden(self, run: int) -> str:
        """A run's label, and in brackets what it does not say."""
        some, more = self.hidden[run][:MOST_HIDDEN], len(self.hidden[run]) - MOST_HIDDEN
        told = ", ".join([*some, *([f"+{more} more in comparison.csv"] if more > 0 else [])])
        return f"{self.runs[run]} ({told})" if told else self.runs[run]

    def details(self, runs: Sequence[int]) -> str:
        """All settings of a configuration of these runs that not all runs share."""
        own = self.settings[runs[0]]
        return " ".join(text for text in own if len(runs) == 1 or not text.startswith(f"{SEED}="))

    def between_models(self) -> str:
        """A note on what no label says, since it does not tell runs of one model apart."""
        some, more = map(printable, self.unnamed[:MOST_HIDDEN]), len(self.unnamed) - MOST_HIDDEN
        told = ", ".join([*some, *([f"{more} more"] if more > 0 else [])])
        return f"models also differ in settings that no label says, since no two runs of one model do: {told}"


def labels(runs: Sequence[Run], groups: Sequence[tuple[int, ...]]) -> Labels:
    """Of runs, and of configurations: the runs of each, by their places. Runs that are in none have not finished."""
    if not runs:
        return Labels([], [])
    configs = [_as_compared(run.config) for run in runs]
    models = class_names([config["model"] for config in configs])
    words = _words(runs, configs, models)
    found, shown = _told_apart(models, words)
    names = _of_runs(runs, found)
    full, hidden, unnamed = _settings(configs, models, words, shown)
    return Labels(names, _of_rows(runs, groups, found, names), full, hidden, unnamed)


def fitted(first: str, words: Sequence[Word], longest: int = LONGEST) -> tuple[str, list[Word]]:
    """A label and the words in it: those that fit, in their order, and how many there are more."""
    shown = list(words)
    text = " ".join([first, *(word.text for word in shown)])
    if len(text) <= longest:
        return text, shown
    room = longest - len(first) - len(f" +{len(words)} more")
    shown = []
    for word in words:
        if len(word.text) < room:
            shown.append(word)
            room -= len(word.text) + 1
    return " ".join([first, *(word.text for word in shown), f"+{len(words) - len(shown)} more"]), shown


def ends(paths: Sequence[str], among: Sequence[str]) -> dict[str, str]:
    """Paths by as much of their ends as it takes to tell each from all others: ``model.optimizer.lr`` -> ``lr``."""
    count: Counter[str] = Counter()
    for path in {*paths, *among}:
        names = path.split(".")
        count.update(".".join(names[-n:]) for n in range(1, len(names) + 1))
    found = {}
    for path in paths:
        names = path.split(".")
        tails = [".".join(names[-n:]) for n in range(1, len(names) + 1)]
        clear = [tail for tail in tails if count[tail] == 1 and tail not in UNCLEAR] or [path]
        text = printable(clear[0])
        found[path] = text if len(text) <= LONGEST_NAME else f"…{text[1 - LONGEST_NAME :]}"
    return found


def _as_compared(config: dict[str, Any]) -> dict[str, Any]:
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


def _words(runs: Sequence[Run], configs: Sequence[dict[str, Any]], models: Sequence[str]) -> list[list[Word]]:
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
        is_typed = any(paths is not None and _is_typed(d.path, paths) for paths in typed)
        if is_typed or not any(d.follows(other) for other in kept if other.name == d.name):
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


def _told_apart(models: Sequence[str], words: Sequence[Sequence[Word]]) -> tuple[list[str], list[list[Word]]]:
    """A label for each run, the same for those of the same words only, and the words in it."""
    unlike: dict[tuple[str, tuple[Word, ...]], tuple[str, list[Word]]] = {
        (model, tuple(own)): fitted(model, own) for model, own in zip(models, words, strict=True)
    }
    for clash in _clashes(unlike):
        unlike |= _with_leads(clash)
    for clash in _clashes(unlike):
        for model, own in clash:
            text, shown = fitted(model, own, LONGEST - 8)
            unlike[model, own] = f"{text} #{digest(repr(own))}", shown
    chosen = [unlike[model, tuple(own)] for model, own in zip(models, words, strict=True)]
    return [text for text, _ in chosen], [shown for _, shown in chosen]


Key = tuple[str, tuple[Word, ...]]


def _clashes(unlike: dict[Key, tuple[str, list[Word]]]) -> list[list[Key]]:
    by_text: dict[str, list[Key]] = defaultdict(list)
    for key, (text, _) in unlike.items():
        by_text[text].append(key)
    return [keys for keys in by_text.values() if len(keys) > 1]


def _with_leads(clash: Sequence[Key]) -> dict[Key, tuple[str, list[Word]]]:
    """Labels that begin with what tells these apart, as far as a few settings can."""
    count = Counter(word for _, own in clash for word in own)
    leads = sorted({(word.rank, word.path) for word, many in count.items() if many < len(clash)})
    found: dict[Key, tuple[str, list[Word]]] = {}
    for many in range(1, LEADS + 1):
        first = {path for _, path in leads[:many]}
        found = {
            (model, own): fitted(model, sorted(own, key=lambda word: word.path not in first)) for model, own in clash
        }
        if len({text for text, _ in found.values()}) == len(clash):
            break
    return found


def _of_runs(runs: Sequence[Run], found: Sequence[str]) -> list[str]:
    """Labels with the seed, where several runs have one; those of one seed are told apart by their folders."""
    count = Counter(found)
    seeded = [
        f"{text} {SEED}={run.seed}" if count[text] > 1 and run.seed is not None else text
        for text, run in zip(found, runs, strict=True)
    ]
    return _numbered(seeded, runs)


def _of_rows(
    runs: Sequence[Run], groups: Sequence[tuple[int, ...]], found: Sequence[str], names: Sequence[str]
) -> list[str]:
    """Configurations of one label repeat a seed: a run by itself has its own name."""
    count = Counter(found[group[0]] for group in groups)
    texts = [
        names[group[0]] if len(group) == 1 and count[found[group[0]]] > 1 else found[group[0]] for group in groups
    ]
    return _numbered(texts, [runs[group[0]] for group in groups])


def _numbered(found: Sequence[str], runs: Sequence[Run]) -> list[str]:
    """What is alike, by the end of its folder's name, or else by a number."""
    folders = [str(run.folder.resolve()) for run in runs]
    tails = [bounded(printable(run.folder.resolve().name.rpartition("-")[2])) for run in runs]
    count = Counter(found)
    named = [f"{text} {tail}" if count[text] > 1 else text for text, tail in zip(found, tails, strict=True)]
    same: dict[str, list[int]] = defaultdict(list)
    for i in sorted(range(len(named)), key=folders.__getitem__):
        same[named[i]].append(i)
    for text, places in same.items():
        for number, i in enumerate(places, 1):
            named[i] = f"{text} {number}" if len(places) > 1 else text
    return named


def _settings(
    configs: Sequence[dict[str, Any]],
    models: Sequence[str],
    words: Sequence[Sequence[Word]],
    shown: Sequence[Sequence[Word]],
) -> tuple[list[list[str]], list[list[str]], list[str]]:
    """All that differs by its whole path, that which labels do not say, and what differs between models alone."""
    found = differences(configs)
    full, hidden = [], []
    for i, model in enumerate(models):
        said = {word.path for word in shown[i]}
        own = [
            (d.path, f"{printable(d.path)}={long(d.nodes[i], d.values[i])}")
            for d in found
            if d.nodes[i] is not ABSENT and d.nodes[i] is not NOWHERE
        ]
        full.append([*([f"model={model}"] if len(set(models)) > 1 else []), *(text for _, text in own)])
        hidden.append([text for path, text in own if path not in said])
    named = {word.path for own in words for word in own}
    between = [d.path for d in found if not d.path.startswith("model.") and d.path not in named and d.path != SEED]
    return full, hidden, [path for path in between if len(set(models)) > 1]

"""What to call configurations beside each other: the model, then the settings that differ among those of that model.

A label leaves out what is the model's default, which is the value that runs have where nobody typed it, and the seed,
since runs that differ in it alone are one configuration. It is at most ``LONGEST`` characters: what does not fit is
counted (``+3 more``), and stands in full with the run. Two configurations never share a label, and the order in which
runs are read does not matter.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from genlab.report.configurations import SEED
from genlab.report.label_words import Word, as_compared, words_of
from genlab.report.names import ABSENT, NOWHERE, bounded, class_names, differences, digest, long, printable
from genlab.report.runs import Run

LONGEST = 48  # characters of a label
LONGEST_PATH = 120  # characters of a setting's, beside a label
MOST_HIDDEN = 12  # settings that a line lists
LEADS = 4  # settings that may be put in front, so that labels tell runs apart


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
        some = [bounded(printable(path), LONGEST_PATH) for path in self.unnamed[:MOST_HIDDEN]]
        more = len(self.unnamed) - MOST_HIDDEN
        told = ", ".join([*some, *([f"{more} more"] if more > 0 else [])])
        return f"models also differ in settings that no label says, since no two runs of one model do: {told}"


def labels(runs: Sequence[Run], groups: Sequence[tuple[int, ...]]) -> Labels:
    """Of runs, and of configurations: the runs of each, by their places. Runs that are in none have not finished."""
    if not runs:
        return Labels([], [])
    configs = [as_compared(run.config) for run in runs]
    models = class_names([config["model"] for config in configs])
    words = words_of(runs, configs, models)
    found, shown = _told_apart(models, words)
    names = _of_runs(runs, found)
    full, hidden, unnamed = _settings(configs, models, words, shown)
    hidden = [
        [text for text in own if not (text.startswith(f"{SEED}=") and f" {text}" in name)]
        for own, name in zip(hidden, names, strict=True)
    ]
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
    texts = [names[group[0]] if len(group) == 1 and count[found[group[0]]] > 1 else found[group[0]] for group in groups]
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
            (d.path, f"{bounded(printable(d.path), LONGEST_PATH)}={long(d.nodes[i], d.values[i])}")
            for d in found
            if d.nodes[i] is not ABSENT and d.nodes[i] is not NOWHERE
        ]
        full.append([*([f"model={model}"] if len(set(models)) > 1 else []), *(text for _, text in own)])
        hidden.append([text for path, text in own if path not in said])
    named = {word.path for own in words for word in own}
    between = [d.path for d in found if not d.path.startswith("model.") and d.path not in named and d.path != SEED]
    return full, hidden, [path for path in between if len(set(models)) > 1]

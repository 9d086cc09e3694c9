"""Reads problems from a file, and lets a model answer them."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from genlab.data.base import DataModule
from genlab.errors import ConfigError, DataError
from genlab.files.paths import read_path
from genlab.machine.rank import rank, world
from genlab.metrics.data_of import text_of
from genlab.model.base import GenerativeModel, WritesText
from genlab.progress import progress
from genlab.seeding import RandomStream

Problem = dict[str, str]


@dataclass(frozen=True)
class Problems:
    """The problems of a file, in its order, and their hash."""

    items: tuple[Problem, ...]
    sha256: str  # 16 hex digits


def read_problems(path: str, fields: Sequence[str], metric: str) -> Problems:
    """A file of JSON lines, of which each has these fields, all strings; others are left out.

    Raises:
        ConfigError: there is no such file.
        DataError: a line is not JSON, or lacks a field; or there is no line.
    """
    try:
        lines = read_path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"metrics.{metric}.problems={path} cannot be read ({error}).") from error
    items = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: not JSON ({error}). A line is one problem.") from error
        lacking = [name for name in fields if not isinstance(found, dict) or not isinstance(found.get(name), str)]
        if lacking:
            raise DataError(f"{path}, line {number}: there is no text field {', '.join(lacking)}.")
        items.append({name: found[name] for name in fields})
    if not items:
        raise DataError(f"{path} has no problems.")
    return Problems(tuple(items), hashlib.sha256(json.dumps(items).encode()).hexdigest()[:16])


def check_answers(metric: str, model: GenerativeModel, data: DataModule) -> None:
    """Raises ConfigError if the model does not write text."""
    text_of(data, metric)
    if not isinstance(model, WritesText):
        raise ConfigError(f"metrics={metric}: {type(model).__name__} does not generate text.")


def answers(
    model: GenerativeModel,
    data: DataModule,
    problems: Problems,
    num_samples: int,  # of each problem
    stop: Sequence[str],  # where an answer ends, before any of these
    batch_size: int,
    seed: int,
) -> Iterator[tuple[int, list[str]]]:
    """This rank's problems, by number, and the model's answers to each, without the prompt.

    Answer j of problem i is a function of (seed, i, j) for any batches: prompts of one length are batched together,
    so that none is padded. Raises DataError for a prompt without tokens.
    """
    tokenizer = text_of(data, "pass_at_k").tokenizer
    mine = range(rank(), len(problems.items), world())
    prompts = {i: tokenizer.prompt(problems.items[i]["prompt"]) for i in mine}
    if not all(len(prompt) for prompt in prompts.values()):
        raise DataError("a problem has an empty prompt.")
    asked = sorted(((i, j) for i in mine for j in range(num_samples)), key=lambda pair: (len(prompts[pair[0]]), pair))
    found: dict[int, list[str]] = {i: [] for i in mine}
    with progress(f"generating {len(asked):,} answers", len(asked), quiet=rank() != 0) as advance:
        for batch in _runs(asked, lambda pair: len(prompts[pair[0]]), batch_size):
            prompt = torch.stack([torch.from_numpy(prompts[i]) for i, _ in batch]).to(model.device)
            stream = RandomStream.for_samples(seed, [i * num_samples + j for i, j in batch], model.device)
            tokens = model.sample(len(batch), {"prompt": prompt}, stream).cpu()
            for (i, _), row in zip(batch, tokens.tolist(), strict=True):
                text = tokenizer.decode(_until(row, tokenizer.end), int(prompts[i][-1]))
                found[i].append(up_to(text, stop))
            advance(len(batch))
    yield from found.items()


def up_to(text: str, stop: Sequence[str]) -> str:
    """The text before the first of these."""
    return text[: min((place for mark in stop if (place := text.find(mark)) >= 0), default=len(text))]


def _until(tokens: list[int], end: int | None) -> list[int]:
    return tokens[: tokens.index(end)] if end in tokens else tokens


def _runs(
    pairs: list[tuple[int, int]], key: Callable[[tuple[int, int]], int], size: int
) -> Iterator[list[tuple[int, int]]]:
    """Batches of at most ``size`` neighbors with the same key."""
    batch: list[tuple[int, int]] = []
    for pair in pairs:
        if batch and (len(batch) == size or key(batch[0]) != key(pair)):
            yield batch
            batch = []
        batch.append(pair)
    if batch:
        yield batch

"""``genlab feedback``: draw samples of one run or two, and show the page on which people judge them."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from genlab.checkpoint import read
from genlab.config.build import build
from genlab.config.tree import resolved
from genlab.data.chat_tokens import ChatTokens
from genlab.errors import ConfigError
from genlab.feedback.asked import read_prompts
from genlab.feedback.begin import Column, arranged, begin, hash_of
from genlab.feedback.session import PICTURES, Output, create
from genlab.feedback.show import go_on
from genlab.files.atomic import writing
from genlab.files.paths import read_path
from genlab.machine.memory import enough_memory
from genlab.machine.quick_cpu import quick_cpu
from genlab.model.base import GenerativeModel, in_eval_mode
from genlab.progress import progress
from genlab.run.assemble import load_tokenizer
from genlab.run.cpu_choice import of_run
from genlab.run.load import load_run, load_template
from genlab.sampling.answered import Answered
from genlab.sampling.draw import draws
from genlab.sampling.examples import Examples
from genlab.sampling.form import Form
from genlab.sampling.pictures import Pictures
from genlab.sampling.texts import Texts
from genlab.task.base import Task

COUNT = 50  # without prompts


def feedback(
    configs: Sequence[DictConfig], runs: Sequence[Path], overrides: Sequence[str], options: Mapping[str, Any]
) -> None:
    """Show the page of ``options["out"]``, with samples of ``runs`` that are drawn if they are not there.

    A run alone is compared with itself, by another seed. Raises ConfigError: the folder is of something else, or a run
    draws neither texts nor pictures.
    """
    out, prompts = read_path(options["out"]), None
    if options["prompts"] is not None:
        prompts = read_prompts(read_path(options["prompts"]))
    n = options["n"] or (len(prompts) if prompts else COUNT)
    asked = {
        "runs": [str(run.resolve()) for run in runs],
        "prompts": hash_of(prompts),
        "n": n,
        "seed": options["seed"],
        "rate": options["rate"],
        "settings": sorted(overrides),
    }
    begin(out, asked, lambda: _prepare(configs, runs, prompts, n, out, asked, options["batch_size"]))
    go_on(out, options["port"])


def _prepare(
    configs: Sequence[DictConfig],
    runs: Sequence[Path],
    prompts: Sequence[str] | None,
    n: int,
    out: Path,
    asked: Mapping[str, Any],
    batch_size: int,
) -> None:
    """Draw all samples, and write them and what is compared."""
    seed, rate = asked["seed"], asked["rate"]
    sources = [(*one, seed) for one in zip(configs, runs, strict=True)]
    if len(sources) == 1 and not rate:
        sources.append((*sources[0][:2], seed + 1))
    kinds, columns = set(), list[Column]()
    for source, (config, run, own_seed) in enumerate(sources):
        kind, column = _drawn(config, run, prompts, n, own_seed, source, out, batch_size)
        kinds.add(kind)
        columns.append(column)
    if len(kinds) > 1:
        raise ConfigError(f"{runs[0]} draws {kinds.pop()}s and {runs[1]} {kinds.pop()}s: name two of a kind.")
    items = arranged(columns, rate, seed, out)
    facts = {"kind": kinds.pop(), "sources": [str(run) for _, run, _ in sources], "rate": rate, "seed": seed}
    create(out, {**facts, "asked": asked}, items)


def _drawn(
    config: DictConfig,
    run: Path,
    prompts: Sequence[str] | None,
    n: int,
    seed: int,
    source: int,
    out: Path,
    batch_size: int,
) -> tuple[str, Column]:
    """Samples 0 to ``n`` - 1 of a seed: their kind, what they are, and what for. Pictures are written."""
    model, _ = load_run(config, run)
    if not isinstance(model, GenerativeModel):
        raise ConfigError(f"{run} holds a {type(model).__name__}, which does not draw samples. Name another run.")
    plain = resolved(config)
    tokenizer = load_tokenizer(plain, read.newest(run), run) if plain["data"].get("tokenizer") else None
    task: Task = build(plain["task"], Task, "task")
    form = task.form(plain["spec"], tokenizer)
    template = load_template(run)
    if template is not None and isinstance(form, Texts):
        form = Answered(ChatTokens(template, form.tokenizer))
    if not isinstance(form, Texts | Pictures):
        raise ConfigError(f"{run} draws neither texts nor pictures, which are what is judged. Name another run.")
    texts = isinstance(form, Texts)
    of_one = 1 if texts and prompts else batch_size  # prompts differ in length
    outputs: list[Output] = []
    words: list[str | None] = []
    classes: list[dict[str, int]] = []
    with ExitStack() as inside:
        inside.enter_context(quick_cpu(model.device.type == "cpu", **of_run(config)))
        fewer = f"batch_size={max(1, batch_size // 2)}"
        inside.enter_context(enough_memory("while samples were drawn", fewer))
        inside.enter_context(in_eval_mode(model))
        pictures: list[torch.Tensor] = []
        advance = inside.enter_context(progress(f"drawing {n} samples of {run}", n))
        for start in range(0, n, of_one):
            indices = range(start, min(start + of_one, n))
            told = None if prompts is None else [prompts[start % len(prompts)]] if texts else [*prompts]
            typed = form.read(model, {"prompt": told}, run)
            condition = form.asked(model, indices, typed)
            rows = torch.cat([*draws(model, indices, condition, seed, len(indices))])
            content = form.content(rows)
            if texts:
                outputs += [Output(source, i, str(text)) for i, text in zip(indices, content, strict=True)]
            else:
                assert isinstance(content, torch.Tensor)
                pictures.append(content)
                outputs += [Output(source, i) for i in indices]
            captions = form.words(model, indices, typed).get("caption")
            classes += model.conditions.classes(condition, len(indices))
            advance(len(indices))
            words += [prompts[i % len(prompts)] for i in indices] if prompts else captions or [None] * len(indices)
        if not texts:
            _write(form, torch.cat(pictures), out / PICTURES.format(source))
    return "text" if texts else "image", Column(outputs, words, classes)


def _write(form: Form, pictures: Any, folder: Path) -> None:
    with writing(folder):
        folder.mkdir(exist_ok=True)
    form.write(Examples({form.key: pictures}), folder, 1)

"""``genlab sample``: draw from a trained run, using nothing but its folder."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig

from genlab.checkpoint import read
from genlab.config.build import build
from genlab.config.tree import resolved
from genlab.data.chat_tokens import ChatTokens
from genlab.data.tokenizer.base import StreamDecoder
from genlab.errors import ConfigError
from genlab.files.atomic import prepare_file, prepare_folder
from genlab.machine.memory import enough_memory
from genlab.machine.quick_cpu import quick_cpu
from genlab.model.base import Condition, Generates, GenerativeModel, in_eval_mode
from genlab.model.condition import moved
from genlab.redaction import for_terminal
from genlab.run.assemble import load_tokenizer
from genlab.run.cpu_choice import of_run
from genlab.run.load import load_run, load_template
from genlab.sampling.answered import Answered
from genlab.sampling.draw import draws
from genlab.sampling.examples import Examples, joined
from genlab.sampling.form import Form
from genlab.sampling.pictures import FOLDER as SAMPLES
from genlab.sampling.texts import Texts
from genlab.seeding import RandomStream
from genlab.task.base import Task


def sample(
    config: DictConfig,
    run: Path,
    n: int | None,
    seed: int,
    label: Sequence[int | str] | None,
    prompt: str | None,
    image: Sequence[str] | None,
    batch_size: int,
    out: str | None,
) -> None:
    """Draw ``n`` samples of a run and write them where ``out`` says; a single text is printed while it is written."""
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
    typed = form.read(model, {"label": label, "prompt": None if prompt is None else [prompt], "image": image}, run)
    n = n or form.count
    if out is None:
        told = "" if prompt is None else f"-prompt={_digest(prompt)}"
        told += "" if image is None else f"-image={_digest(*image)}"
        labels = model.conditions.label_of(typed) if label is not None else None
        told += "" if labels is None else f"-label={','.join(map(str, labels.tolist()))}"
        path = run / SAMPLES / f"seed={seed}-n={n}{told}{form.suffix}"
        prepare_folder(path.parent, run)
        prepare_file(path)
    else:
        path = form.destination(out)
    fewer = f"batch_size={max(1, batch_size // 2)}"
    with (
        quick_cpu(model.device.type == "cpu", **of_run(config)),
        enough_memory("while samples were drawn", fewer),
        in_eval_mode(model),
    ):
        if n == 1 and isinstance(form, Texts) and isinstance(model, Generates):
            examples = _shown_while_written(model, form, typed, seed)
        else:
            examples = _drawn(model, form, typed, n, seed, batch_size)
    beside = form.write(examples, path, form.columns(model, n, typed))[1:]
    for other in beside:
        print(for_terminal(f"asked for: {other}"))
    print(for_terminal(f"{n} sample{'s' * (n > 1)}: {path}"))


def _digest(*typed: str) -> str:
    """For a file's name."""
    return hashlib.sha256("\0".join(typed).encode("utf-8", "surrogateescape")).hexdigest()[:8]  # any bytes


def _drawn(model: GenerativeModel, form: Form, typed: Condition, n: int, seed: int, batch_size: int) -> Examples:
    """Samples 0 to ``n`` - 1 of a seed. Those that a terminal can show are printed batch by batch."""
    parts: list[Examples] = []
    for first in range(0, n, batch_size):
        indices = range(first, min(first + batch_size, n))
        asked = form.asked(model, indices, typed)
        samples = torch.cat([*draws(model, indices, asked, seed, len(indices))])
        parts.append(Examples({form.key: form.content(samples), **form.words(model, indices, typed)}))
        if text := form.shown(parts[-1], last=indices.stop == n):
            print(for_terminal(text), flush=True)
    return joined(parts)


def _shown_while_written(model: Generates, form: Texts, typed: Condition, seed: int) -> Examples:
    """Sample 0 of a seed, printed token by token."""
    assert isinstance(model, GenerativeModel)
    words = form.words(model, range(1), typed)
    stream = RandomStream.for_samples(seed, range(1), model.device)
    condition = moved(form.asked(model, range(1), typed), model.device)
    decoder = StreamDecoder(form.tokenizer)
    pieces: list[str] = []
    print(for_terminal("".join(row for (row,) in words.values())), end="", flush=True)
    for token in model.generate(condition, stream):
        if int(token) == form.end:
            break
        pieces.append(decoder.push(int(token)))
        print(for_terminal(pieces[-1]), end="", flush=True)
    pieces.append(decoder.finish())
    print(for_terminal(pieces[-1]) + "\n")
    return Examples({form.key: ["".join(pieces)], **words})

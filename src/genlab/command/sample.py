"""``genlab sample``: draw from a trained run, using nothing but its folder."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import DictConfig
from torch import Tensor

from genlab.checkpoint import read
from genlab.command.options import sampled
from genlab.config.build import build
from genlab.config.tree import resolved
from genlab.data.chat_tokens import ChatTokens
from genlab.data.image import to_float, to_pixels
from genlab.data.tokenizer.base import StreamDecoder, Tokenizer
from genlab.directions import stored
from genlab.directions.space import space_of, steered
from genlab.errors import ConfigError, ResourceError
from genlab.files.atomic import prepare_file, prepare_folder
from genlab.files.paths import read_path
from genlab.machine.memory import enough_memory
from genlab.machine.quick_cpu import quick_cpu
from genlab.model.base import Condition, FillsIn, Generates, GenerativeModel, Model, in_eval_mode
from genlab.model.condition import moved
from genlab.model.parts import Adversarial
from genlab.progress import progress
from genlab.redaction import for_terminal
from genlab.run.adapters import add_adapters
from genlab.run.assemble import load_tokenizer
from genlab.run.cpu_choice import of_run
from genlab.run.judge import label_kind, load_judge
from genlab.run.load import load_run, load_template
from genlab.sampling import projection
from genlab.sampling.answered import Answered
from genlab.sampling.asked import read_each, read_negative
from genlab.sampling.best_of import BestOf
from genlab.sampling.draw import draws
from genlab.sampling.examples import Examples, joined
from genlab.sampling.fill import filled_in, read_masked
from genlab.sampling.form import Form, Typed
from genlab.sampling.picture_file import read_picture
from genlab.sampling.pictures import FOLDER as SAMPLES
from genlab.sampling.pictures import Pictures, WithWanted
from genlab.sampling.texts import Texts
from genlab.sampling.video import FPS, check_video, video_destination, write_video
from genlab.sampling.walk import FRAMES, KEYS, check_walk, walk
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
    frames: int | None = None,
    fps: int | None = None,
    project: str | None = None,
    steps: int | None = None,
    features: str | None = None,
    negative: str | None = None,
    negative_label: int | str | None = None,
    hint: Sequence[str] | None = None,
    adapters: Sequence[str] | None = None,
    adapter_weights: Sequence[float] | None = None,
    attributes: str | None = None,
    direction: Sequence[int | str] | None = None,
    strength: Sequence[float] | None = None,
    best_of: int | None = None,
    judge: str | None = None,
) -> None:
    """Draw ``n`` samples of a run and write them where ``out`` says; a single text is printed while it is written. Or
    write a walk through them, of ``frames`` pictures from each to the next; or find the picture ``project``.
    Samples may be moved along a ``direction``, and be the ``best_of`` several by a ``judge``."""
    made = sampled({"n": n, "out": out, "frames": frames, "fps": fps, "project": project, "steps": steps,
                    "features": features, "direction": direction, "strength": strength, "best_of": best_of,
                    "judge": judge})  # fmt: skip
    model, _ = load_run(config, run)
    if adapters is not None or adapter_weights is not None:
        add_adapters(model, run, adapters or (), adapter_weights)
    if isinstance(model, FillsIn):
        others = {"n": n, "label": label, "image": image, "hint": hint, "negative": negative,
                 "negative_label": negative_label, "out": out, "frames": frames, "project": project,
                 "direction": direction, "best_of": best_of}  # fmt: skip
        _fill(model, config, run, prompt, others)
        return
    if not isinstance(model, GenerativeModel):
        raise ConfigError(f"{run} holds a {type(model).__name__}, which does not draw samples. Name another run.")
    plain = resolved(config)
    tokenizer = load_tokenizer(plain, read.newest(run), run) if plain["data"].get("tokenizer") else None
    task: Task = build(plain["task"], Task, "task")
    form = task.form(plain["spec"], tokenizer)
    template = load_template(run)
    if template is not None and isinstance(form, Texts):
        form = Answered(ChatTokens(template, form.tokenizer))
    if direction is not None or best_of is not None:
        form = _pictures(form, run, "direction" if direction is not None else "best_of")
    wanted = label if best_of is not None and not model.num_classes else None  # the judge's alone
    if wanted is not None:
        label = None
    given: Typed = {
        "label": label,
        "prompt": None if prompt is None else [prompt],
        "image": image,
        "hint": hint,
        "attributes": None if attributes is None else [attributes],
    }
    typed = form.read(model, given, run)
    away = read_negative(model, negative, negative_label, run)
    if away:
        model.avoid({key: value.to(model.device) for key, value in away.items()})
    told = "" if prompt is None else f"-prompt={_digest(prompt)}"
    told += "" if attributes is None else f"-attributes={_digest(attributes)}"
    told += "" if image is None else f"-image={_digest(*image)}"
    told += "" if negative is None else f"-negative={_digest(negative)}"
    avoided = model.conditions.label_of(away)
    told += "" if avoided is None else f"-negative_label={int(avoided)}"
    told += "" if hint is None else f"-hint={_digest(*hint)}"
    told += "" if adapters is None else f"-adapters={_digest(*adapters, repr(adapter_weights))}"
    labels = model.conditions.label_of(typed) if label is not None else None
    told += "" if labels is None else f"-label={','.join(map(str, labels.tolist()))}"
    if direction is not None:
        assert strength is not None
        told += _steer(model, run, direction, strength)
    if best_of is not None:
        assert judge is not None
        assert isinstance(form, Pictures)
        form, more = _choose(model, form, plain["spec"], run, best_of, judge, wanted, typed)
        told += more
    fewer = f"batch_size={max(1, batch_size // 2)}" if made != "projection" else "a machine with more"
    with (
        quick_cpu(model.device.type == "cpu", **of_run(config)),
        enough_memory("while samples were drawn", fewer),
        in_eval_mode(model),
    ):
        if made == "projection":
            assert project is not None
            _project(model, form, typed, run, told, project, steps or projection.STEPS, seed, features, out)
        elif made == "walk":
            _walk(model, form, typed, run, told, n or KEYS, frames or FRAMES, seed, batch_size, fps or FPS, out)
        else:
            _sample(model, form, typed, run, told, n or form.count, seed, batch_size, out)


def _pictures(form: Form, run: Path, option: str) -> Pictures:
    """Raises ConfigError: samples are no pictures."""
    if not isinstance(form, Pictures):
        raise ConfigError(f"{option}=...: {run} draws no pictures. Leave {option}= out.")
    return form


def _steer(model: GenerativeModel, run: Path, direction: Sequence[int | str], strength: Sequence[float]) -> str:
    """Have the model's samples moved. -> for a file's name."""
    if len(strength) not in (1, len(direction)):
        raise ConfigError(
            f"strength has {len(strength)} values, and direction {len(direction)}. Use one, or one for each."
        )
    space = space_of(model, run)
    found = stored.read(run, space.kind, space.size)
    strengths = [*strength] * (len(direction) if len(strength) == 1 else 1)
    chosen = [found.number(each) for each in direction]
    model.drawn_by = steered(space, found.shift(chosen, strengths))
    return f"-{found.method}=" + ",".join(f"{found.names[i]}x{s:g}" for i, s in zip(chosen, strengths, strict=True))


def _choose(
    model: GenerativeModel, form: Pictures, spec: Mapping[str, Any], run: Path, count: int, judge: str,
    wanted: Sequence[int | str] | None, typed: Condition,
) -> tuple[Pictures, str]:  # fmt: skip
    """Have the model draw the best of ``count`` candidates. -> the form with what is wanted, and for a file's name."""
    found = load_judge(judge, spec, run)
    known = {*model.conditions.kinds}
    if wanted is not None:
        form = WithWanted(form.bits, "label", read_each(label_kind(spec["condition"]), wanted))
        known.add("label")
    if missing := [key for key in found.reads if key not in known]:
        raise ConfigError(
            f"judge={judge} looks at the {missing[0]} of a sample, and nothing says it: the model of {run} takes none. "
            "Name the class that is wanted, label=0, or another judge."
        )
    model.drawn_by = BestOf(model, count, found, model.drawn_by)
    names = "" if wanted is None else f"-wanted={','.join(map(str, wanted))}"
    return form, f"-best-of={count}-{_digest(found.described)}{names}"


def _fill(model: FillsIn, config: DictConfig, run: Path, prompt: str | None, given: Mapping[str, object]) -> None:
    """Print ``prompt`` with its masked tokens filled in. Raises ConfigError: nothing is masked, or other options are
    ``given``."""
    for name, value in given.items():
        if value is not None:
            raise ConfigError(f"{name}=...: the model of {run} fills in one text. Leave {name}= out.")
    tokenizer = cast(Tokenizer, load_tokenizer(resolved(config), read.newest(run), run))  # text has one
    assert isinstance(model, Model)
    tokens, masked = (each.to(model.device) for each in read_masked(prompt, tokenizer, model.shape[0]))
    with quick_cpu(model.device.type == "cpu", **of_run(config)), in_eval_mode(model):
        for line in filled_in(model, tokenizer, tokens, masked):
            print(for_terminal(line))


def _path(run: Path, name: str) -> Path:
    """Of a new file among the samples of a run."""
    path = run / SAMPLES / name
    prepare_folder(path.parent, run)
    prepare_file(path)
    return path


def _sample(
    model: GenerativeModel, form: Form, typed: Condition, run: Path, told: str, n: int, seed: int, batch_size: int,
    out: str | None,
) -> None:  # fmt: skip
    path = _path(run, f"seed={seed}-n={n}{told}{form.suffix}") if out is None else form.destination(out)
    before = model.evaluations
    if n == 1 and isinstance(form, Texts) and isinstance(model, Generates):
        examples = _shown_while_written(model, form, typed, seed)
    else:
        examples = _drawn(model, form, typed, n, seed, batch_size)
    beside = form.write(examples, path, form.columns(model, n, typed))[1:]
    for other in beside:
        print(for_terminal(f"asked for: {other}"))
    if isinstance(model.drawn_by, BestOf):
        best = model.drawn_by
        print(for_terminal(
            f"each the best of {best.count} by {best.judge.described}: {n * best.count} candidates, "
            f"{model.evaluations - before:,} evaluations"
        ))  # fmt: skip
    print(for_terminal(f"{n} sample{'s' * (n > 1)}: {path}"))


def _walk(
    model: GenerativeModel, form: Form, typed: Condition, run: Path, told: str, n: int, frames: int, seed: int,
    batch_size: int, fps: int, out: str | None,
) -> None:  # fmt: skip
    check_walk(model, form, run)
    name = f"walk-seed={seed}-n={n}-frames={frames}{told}.gif"
    path = _path(run, name) if out is None else video_destination(out)
    check_video(path, fps)
    with progress(f"drawing {n * frames:,} pictures", n * frames) as advance:

        def pictures() -> Iterator[Tensor]:
            for batch in walk(model, n, frames, seed, batch_size, typed):
                yield from to_pixels(batch, 8).cpu()
                advance(len(batch))

        write_video(pictures(), path, fps)
    print(for_terminal(f"a loop through {n} samples, of {n * frames} pictures: {path}"))


def _project(
    model: GenerativeModel, form: Form, typed: Condition, run: Path, told: str, picture: str, steps: int, seed: int,
    features: str | None, out: str | None,
) -> None:  # fmt: skip
    projection.check(model, form, run, typed)
    assert isinstance(model, Adversarial)
    assert isinstance(form, Pictures)
    target = read_picture(read_path(picture), model.shape, form.bits, "project")
    condition = moved(typed or None, model.device)
    distance = _distance_by(features, model, condition)
    settings = {"distance": distance.name, "steps": str(steps), "seed": str(seed)}
    name = f"projection-{_digest(target.numpy().tobytes().hex(), *settings.values(), told)}.png"
    path = _path(run, name) if out is None else projection.destination(out)
    with progress(f"looking for {picture}", steps) as advance:
        found = projection.project(model, to_float(target[None]), steps, seed, condition, distance, advance)
    first, last = found.distances[[0, -1]].tolist()
    beside = projection.write(found, target, settings, path, form.bits)
    print(for_terminal(f"distance ({distance.name}): {first:.4g} at the start, {last:.4g} in the end"))
    print(for_terminal(f"styles and noise: {beside}"))
    print(for_terminal(f"the picture, and what was found: {path}"))


def _distance_by(features: str | None, model: Adversarial, condition: Condition | None) -> projection.Distance:
    """What ``features=`` names. Raises ConfigError: it does not suit the model; ResourceError: weights are missing."""
    if features != "vgg":
        return projection.FeatureDistance(model.discriminator, condition)
    if model.shape[0] not in (1, 3):
        raise ConfigError("features=vgg compares gray and RGB, and the model has transparent pictures. Leave it out.")
    from genlab.metrics.distance.lpips import LPIPS

    try:
        return LPIPS("vgg", at_most=256)
    except ResourceError as error:
        raise ResourceError(f"features=vgg: {error} Or leave features= out, for the run's discriminator.") from error


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
    decoder = StreamDecoder(form.tokenizer, form.before)
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

"""``genlab edit``: change a picture by a trained run."""

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import DictConfig
from torch import Tensor

from genlab.checkpoint import read
from genlab.command.options import edited
from genlab.config.build import build
from genlab.config.tree import resolved
from genlab.data.image import to_float, to_pixels
from genlab.editing import edit as editing
from genlab.editing import picture as pictures
from genlab.editing.edit import Search
from genlab.editing.operators import Blur, Gray, Known, Operator, SuperResolution
from genlab.editing.space import evaluations_of, space_of
from genlab.errors import ConfigError
from genlab.files.atomic import prepare_file, prepare_folder
from genlab.files.paths import read_path
from genlab.machine.memory import enough_memory
from genlab.machine.quick_cpu import quick_cpu
from genlab.model.base import Condition, GenerativeModel, in_eval_mode
from genlab.progress import progress
from genlab.redaction import for_terminal
from genlab.run.assemble import load_tokenizer
from genlab.run.cpu_choice import of_run
from genlab.run.load import load_run
from genlab.sampling.draw import in_batches
from genlab.sampling.edited import write_edited
from genlab.sampling.form import Form
from genlab.sampling.pictures import FOLDER as SAMPLES
from genlab.sampling.pictures import Pictures, picture_destination
from genlab.sampling.video import check_video, is_video
from genlab.seeding import RandomStream
from genlab.task.base import Task

FPS = 10  # pictures a second between two pictures, where nothing is asked for
_NUMBER = {"interpolate": 8, "invert": 1}  # of results; of other methods 4


@dataclass(frozen=True)
class Edit:
    """What is edited, and by what."""

    model: GenerativeModel
    run: Path
    form: Pictures
    method: str
    options: Mapping[str, Any]

    def picture(self, shape: Sequence[int] | None = None, which: int = 0) -> pictures.Picture:
        """One of ``image=``, at the shape of the model or another; what is changed of it is said."""
        path = read_path(self.options["image"][which])
        found = pictures.read(path, shape or self.shape, self.form.bits)
        if found.changed:
            print(for_terminal(found.changed))
        return found

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the model's pictures, (C, H, W)."""
        space = space_of(self.model)
        of_pixels = space is None or space.is_of_pixels
        return tuple(self.model.shape if of_pixels else self.model.autoencoder.shape)  # type: ignore[arg-type, union-attr]

    def told(self, source: bool = False) -> Condition:
        """The conditions that were typed, of the result or of the ``source``. Raises ConfigError: the model does not
        take them, or was never trained without those that are missing."""
        prefix = "source_" if source else ""
        label, prompt = self.options[f"{prefix}label"], self.options[f"{prefix}prompt"]
        asked = {"label": label, "prompt": None if prompt is None else [prompt]}
        typed = self.form.read(self.model, asked, self.run)
        dropout = self.model.conditions.dropout
        for key, kind in self.model.conditions.kinds.items():
            share = dropout.get(key, 0.0) if isinstance(dropout, Mapping) else dropout
            if key not in typed and share == 0:
                raise ConfigError(
                    f"the model of {self.run} always draws by {key}: it was trained without condition dropout. Name "
                    f"the one of the picture: {prefix}{kind.option}=..."
                )
        return typed

    def rows(self, typed: Condition, indices: Sequence[int]) -> Condition | None:
        """The conditions of results: what was typed in turn; None: nothing was."""
        if not typed:
            return None
        turns = {key: values[torch.tensor(indices) % len(values)] for key, values in typed.items()}
        return self.model.conditions.filled(turns, len(indices), self.model.device)

    def number(self, typed: Condition) -> int:
        """Of results."""
        least = max([0, *map(len, typed.values())])
        return self.options["n"] or (_NUMBER.get(self.method) if least < 2 else None) or (least if least > 1 else 4)

    def draw(self, image: Tensor, typed: Condition, number: int, edit: Any) -> Tensor:
        """What ``edit(images, condition, stream)`` makes of the picture, ``number`` times, batch by batch."""

        def batch(rows: slice) -> Tensor:
            indices = range(number)[rows]
            stream = RandomStream.for_samples(self.options["seed"], indices, self.model.device)
            copies = image.expand(len(indices), *image.shape[1:])
            result: Tensor = edit(copies, self.rows(typed, indices), stream)
            return result

        return torch.cat([*in_batches(self.model, batch, number, self.options["batch_size"])])


def edit(config: DictConfig, run: Path, options: dict[str, Any]) -> None:
    """Change ``options["image"]`` by the method that the options name, and write the results where ``out`` says."""
    method = edited(options)
    model, _ = load_run(config, run)
    if not isinstance(model, GenerativeModel):
        raise ConfigError(f"{run} holds a {type(model).__name__}, which draws no pictures. Name another run.")
    plain = resolved(config)
    tokenizer = load_tokenizer(plain, read.newest(run), run) if plain["data"].get("tokenizer") else None
    form: Form = cast(Task, build(plain["task"], Task, "task")).form(plain["spec"], tokenizer)
    if not isinstance(form, Pictures):
        raise ConfigError(f"{run} holds a {type(model).__name__} of something else than pictures. Name another run.")
    editing.check(model, method)
    asked = Edit(model, run, form, method, options)
    before = evaluations_of(model)
    out = _destination(asked)
    with (
        quick_cpu(model.device.type == "cpu", **of_run(config)),
        enough_memory("while the picture was edited", f"batch_size={max(1, options['batch_size'] // 2)}"),
        in_eval_mode(model),
    ):
        try:
            beside, results, noise = _METHODS[method](asked)
        except ValueError as error:
            raise ConfigError(str(error)) from error
    finished = to_pixels(results, form.bits).cpu()
    file = write_edited(beside, finished, noise, out, options["fps"] or FPS)
    if file is not None:
        print(for_terminal(f"the noise of the picture: {file}"))
    cost = (evaluations_of(model) - before) / len(finished)
    print(for_terminal(f"{len(finished)} of {method}, {cost:.0f} evaluations of the network for each: {out}"))


# --- methods: pictures of the strip's left side, results (N, C, H, W), noise ------------------------------------------

_Made = tuple[dict[str, Tensor], Tensor, Tensor | None]


def _inpaint(asked: Edit) -> _Made:
    picture, mask = _masked(asked)
    typed, options = asked.told(), asked.options
    if mask.all() and options["strength"] in (None, 1):
        print("the mask is white everywhere: nothing of the picture is kept, and results are samples.")
    model, number = asked.model, asked.number(typed)
    unknown = mask[None].to(model.device)
    settings = _given(asked, "resamplings", "jump_length", "steps", "strength")
    with progress("inpainting", 0) as advance:
        search = Search(**settings, advance=advance)

        def edit(image: Tensor, condition: Condition | None, stream: RandomStream) -> Tensor:
            return editing.inpaint(model, image, unknown, condition, stream, search)

        results = asked.draw(_float(asked, picture), typed, number, edit)
    return {"input": picture.pixels, "mask": _shown(mask, picture.pixels)}, results, None


def _sdedit(asked: Edit) -> _Made:
    picture, typed = asked.picture(), asked.told()

    def edit(image: Tensor, condition: Condition | None, stream: RandomStream) -> Tensor:
        return editing.sdedit(asked.model, image, asked.options["strength"], condition, stream)

    results = asked.draw(_float(asked, picture), typed, asked.number(typed), edit)
    return {"input": picture.pixels}, results, None


def _invert(asked: Edit) -> _Made:
    """Under the picture's own condition, and back under that of the result, or under the same."""
    (picture, mask), source = _may_be_masked(asked), asked.told(source=_has_source(asked))
    typed = asked.told()
    settings = {"steps": editing.inversion.STEPS, "strength": 1.0} | _given(asked, "steps", "strength")
    model, image = asked.model, _float(asked, picture)
    _warn_of_guidance(asked, source)
    passed = editing.way(model, image, asked.rows(source, [0]), **settings)
    noise = editing.noise_of(model, passed, **settings)
    unknown = None if mask is None else mask[None].to(model.device)

    def edit(image: Tensor, condition: Condition | None, stream: RandomStream) -> Tensor:
        start = noise.expand(len(image), *noise.shape[1:])
        result = editing.revert(model, start, condition, unknown=unknown, passed=passed, **settings)
        return result if unknown is None else torch.where(unknown, result, image)

    results = asked.draw(image, typed, asked.number(typed), edit)
    shown = {} if mask is None else {"mask": _shown(mask, picture.pixels)}
    return {"input": picture.pixels, **shown}, results, noise


def _interpolate(asked: Edit) -> _Made:
    first, second = asked.picture(), asked.picture(which=1)
    typed = asked.told()
    number = asked.options["n"] or _NUMBER["interpolate"]
    _warn_of_guidance(asked, typed)

    def told(rows: int) -> Condition | None:
        return asked.rows(typed, [int(2 * i >= rows and rows > 1) for i in range(rows)])

    ends = [_float(asked, end) for end in (first, second)]
    settings = {"steps": asked.options["steps"], "seed": asked.options["seed"]}
    results = editing.interpolate(asked.model, ends[0], ends[1], number, told, **settings)
    return {"input": first.pixels, "input 2": second.pixels}, results, None


def _restore(asked: Edit) -> _Made:
    options, model = asked.options, asked.model
    typed, (channels, height, width) = asked.told(), asked.shape
    operator: Operator
    if (factor := options["super_resolution"]) is not None:
        if height % factor or width % factor:
            raise ConfigError(
                f"super_resolution={factor}: pictures of the model are {width}x{height}, which is no multiple. Use a "
                f"divisor of both: super_resolution={_divisor(height, width)}"
            )
        operator, shape = SuperResolution(factor), (channels, height // factor, width // factor)
        print(for_terminal(f"the small picture is {shape[2]}x{shape[1]}, and results are {width}x{height}."))
    elif options["colorize"]:
        if channels != 3:
            raise ConfigError(f"colorize=true: pictures of {asked.run} are not RGB. Name a run of colored pictures.")
        operator, shape = Gray(), (1, height, width)
    elif options["deblur"] is not None:
        operator, shape = Blur(options["deblur"], height, width), (channels, height, width)
    else:
        picture, mask = _masked(asked)
        operator, shape = Known(mask[None].to(model.device)), (channels, height, width)
        return _restored(asked, operator, picture, typed, {"mask": _shown(mask, picture.pixels)})
    return _restored(asked, operator, asked.picture(shape), typed, {})


def _restored(
    asked: Edit, operator: Operator, picture: pictures.Picture, typed: Condition, others: dict[str, Tensor]
) -> _Made:
    options, measured = asked.options, _float(asked, picture)
    y = operator.measure(measured) if isinstance(operator, Known | Blur) else measured
    y = measured if isinstance(operator, Blur) else y
    noise = (options["noise"] or 0.0) / 127.5
    strength = 1.0 if options["strength"] is None else options["strength"]

    def edit(image: Tensor, condition: Condition | None, stream: RandomStream) -> Tensor:
        result = editing.restore(asked.model, asked.method, operator, image, condition, stream, noise, strength)
        if isinstance(operator, Known) and noise == 0:
            return torch.where(operator.unknown, result, image)
        return result

    results = asked.draw(y, typed, asked.number(typed), edit)
    seen = operator.pseudo_inverse(y) if isinstance(operator, SuperResolution) else measured
    return {"input": to_pixels(seen[0].expand(asked.shape), asked.form.bits).cpu(), **others}, results, None


_METHODS = {
    "inpaint": _inpaint,
    "sdedit": _sdedit,
    "invert": _invert,
    "interpolate": _interpolate,
    "ddrm": _restore,
    "dps": _restore,
}


# --- what the methods share -------------------------------------------------------------------------------------------


def _given(asked: Edit, *names: str) -> dict[str, Any]:
    """Those of the options that were typed; the others have the defaults of their method."""
    return {name: asked.options[name] for name in names if asked.options[name] is not None}


def _masked(asked: Edit) -> tuple[pictures.Picture, Tensor]:
    """The picture, and where it is to be replaced: (1, H, W) bool."""
    picture, mask = _picture_and_mask(asked)
    if not mask.any():
        print("the mask is black everywhere: there is nothing to replace, and the picture stays as it is.")
    return picture, mask


def _may_be_masked(asked: Edit) -> tuple[pictures.Picture, Tensor | None]:
    typed = any(asked.options[name] is not None for name in ("mask", "box"))
    return _masked(asked) if typed else (asked.picture(), None)


def _picture_and_mask(asked: Edit) -> tuple[pictures.Picture, Tensor]:
    options, shape = asked.options, asked.shape
    if options["extend"] is not None:
        path = read_path(options["image"][0])
        picture, mask = pictures.extended(path, options["extend"], shape, asked.form.bits)
        left, top, right, bottom = options["extend"]
        inner = f"{shape[2] - left - right}x{shape[1] - top - bottom}"
        print(for_terminal(f"{path} is shrunk to {inner}, inside the {shape[2]}x{shape[1]} of the model."))
        return picture, mask
    picture = asked.picture()
    if options["box"] is not None:
        return picture, pictures.box_mask(options["box"], picture.size, shape)
    return picture, pictures.read_mask(read_path(options["mask"]), picture.size, shape)


def _float(asked: Edit, picture: pictures.Picture) -> Tensor:
    """(1, C, H, W) in [-1, 1], where the model is."""
    return to_float(picture.pixels[None]).to(asked.model.device)


def _shown(mask: Tensor, like: Tensor) -> Tensor:
    """(1, H, W) bool as a picture like ``like`` (C, H, W): white where it is true, and opaque."""
    channels = len(like)
    white = torch.iinfo(like.dtype).max
    picture = torch.zeros(like.shape, dtype=torch.int32).masked_fill(mask, white)
    if channels in (2, 4):
        picture[-1] = white
    return picture.to(like.dtype)


def _has_source(asked: Edit) -> bool:
    return asked.options["source_label"] is not None or asked.options["source_prompt"] is not None


def _warn_of_guidance(asked: Edit, typed: Condition) -> None:
    space = space_of(asked.model)
    if space is not None and typed and space.model.guidance.strength != 1:
        warnings.warn(
            f"with model.guidance.strength={space.model.guidance.strength} the noise of a picture is found "
            "only roughly, and leads back to another one. For the same picture use model/guidance=none.",
            stacklevel=2,
        )


def _divisor(height: int, width: int) -> int:
    """The least from 2 on, or the larger side."""
    return next((d for d in range(2, height + 1) if height % d == 0 and width % d == 0), max(height, width))


# --- files ------------------------------------------------------------------------------------------------------------


def _destination(asked: Edit) -> Path:
    """Where results go; it can be written. Raises ConfigError, StorageError."""
    out = asked.options["out"]
    if is_video(out):
        path = read_path(out)
        prepare_file(path)
        check_video(path, asked.options["fps"] or FPS)
        return path
    if out is not None:
        return picture_destination(out)
    typed = {name: value for name, value in asked.options.items() if name not in ("run", "batch_size", "out")}
    digest = hashlib.sha256(repr(sorted(typed.items())).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    path = asked.run / SAMPLES / f"edit-{asked.method}-{digest}.png"
    prepare_folder(path.parent, asked.run)
    prepare_file(path)
    return path

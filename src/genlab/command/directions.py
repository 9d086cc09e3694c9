"""``genlab directions``: find directions in the latent space of a run, write them and show what they change."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from genlab.config.build import build
from genlab.config.tree import resolved
from genlab.data.image import to_float
from genlab.directions.find import behind, deviations, difference, principal, sefa, separating
from genlab.directions.space import Space, space_of, steered
from genlab.directions.stored import FILE, Directions, write
from genlab.errors import ConfigError
from genlab.files.atomic import prepare_file, prepare_folder
from genlab.machine.memory import enough_memory
from genlab.machine.quick_cpu import quick_cpu
from genlab.metrics.probe import labelled
from genlab.model.base import Condition, GenerativeModel, HasLatent, in_eval_mode
from genlab.model.float32 import exact_float32
from genlab.progress import progress
from genlab.redaction import for_terminal
from genlab.run.assemble import build_data
from genlab.run.cpu_choice import of_run
from genlab.run.judge import ClassifierJudge, label_kind, load_judge
from genlab.run.load import load_run
from genlab.sampling.draw import asked_of, draws
from genlab.sampling.examples import Examples
from genlab.sampling.pictures import FOLDER as SAMPLES
from genlab.sampling.pictures import Pictures
from genlab.seeding import RandomStream
from genlab.task.base import Task

_FOR_SCALE = 1000  # styles whose spread is a strength of 1, where a method draws no samples
_LEAST = 10  # examples of a label, and of the others


def directions(
    config: DictConfig,
    run: Path,
    method: str,
    count: int,
    judge: str | None,
    label: Sequence[int | str] | None,
    samples: int,
    n: int,
    strength: float,
    columns: int,
    seed: int,
    batch_size: int,
    out: str | None,
) -> None:
    """Find ``count`` directions of a run, or one for each label, by ``samples`` of its samples; write them into its
    folder, and a picture in which ``n`` samples are moved along each from -``strength`` to ``strength``."""
    model, _ = load_run(config, run)
    plain = resolved(config)
    is_of_pictures = isinstance(model, GenerativeModel) and plain["spec"]["modality"] == "image"
    form = build(plain["task"], Task, "task").form(plain["spec"], None) if is_of_pictures else None
    if not isinstance(model, GenerativeModel) or not isinstance(form, Pictures):
        raise ConfigError(f"{run} holds a {type(model).__name__}, which draws no pictures. Name another run.")
    for name, value in (("judge", judge), ("label", label)):
        if value is not None and method != "label":
            raise ConfigError(f"{name}=... is of directions of labels. Use method=label, or leave {name}= out.")
    fewer = f"batch_size={max(1, batch_size // 2)}"
    with (
        quick_cpu(model.device.type == "cpu", **of_run(config)),
        enough_memory("while samples were drawn", fewer),
        in_eval_mode(model),
    ):
        space = space_of(model, run)
        if method != "label" and count > space.size:
            raise ConfigError(
                f"count={count}: the {space.kind} space of {run} has {space.size} dimensions. Use count={space.size}."
            )
        find = _Finder(model, space, run, samples, seed, batch_size)
        if method == "label":
            found = find.of_labels(config, judge, label)
        elif method == "sefa":
            found = find.by_weights(count)
        else:
            found = find.by_samples(count)
        prepare_file(run / FILE)
        write(found, run / FILE)
        name = f"directions-{method}-seed={seed}-n={n}.png"
        path = form.destination(out) if out is not None else _path(run, name)
        images = shown(model, space, found, n, strength, columns, seed)
        form.write(Examples({form.key: form.content(images)}), path, columns)
    print(for_terminal(f"{len(found)} directions of the {found.kind} space: {run / FILE}"))
    print(for_terminal(f"{n} sample{'s' * (n > 1)} moved along each, from -{strength:g} to {strength:g}: {path}"))


def shown(
    model: GenerativeModel, space: Space, found: Directions, n: int, strength: float, columns: int, seed: int
) -> Tensor:
    """Samples 0 to ``n`` - 1 of a seed along every direction: (K * n * columns, C, H, W), for each direction n rows, of
    strengths from -``strength`` to ``strength``. Where that is 0 a picture is the sample itself, to the last bit."""
    asked, rows = asked_of(model, range(n)), []
    with progress(f"drawing {len(found) * n * columns:,} pictures", len(found) * n * columns) as advance:
        for number in range(len(found)):
            row = []
            for value in torch.linspace(-strength, strength, columns).tolist():
                model.drawn_by = steered(space, found.shift([number], [value]) if value else None)
                row.append(torch.cat([*draws(model, range(n), asked, seed, n)]))
                advance(n)
            rows.append(torch.stack(row, dim=1))  # (n, columns, C, H, W)
    model.drawn_by = None
    return torch.cat(rows).flatten(0, 1)


class _Finder:
    """The methods, on samples 0 to ``samples`` - 1 of a seed."""

    def __init__(self, model: GenerativeModel, space: Space, run: Path, samples: int, seed: int, batch_size: int):
        self.model, self.space, self.run, self.samples = model, space, run, samples
        self.seed, self.batch_size = seed, batch_size

    def by_weights(self, count: int) -> Directions:
        """SeFa. Styles are as long as those of samples are; a latent has unit variance."""
        vectors = sefa(self.space.first_maps(), count).cpu()
        scale = torch.ones(count)
        if self.space.kind == "style":
            points = self._over(_FOR_SCALE, lambda asked, stream: (self.space.points(asked, stream),))
            scale = deviations(torch.cat([part for (part,) in points]), vectors)
        return Directions(self.space.kind, "sefa", vectors, scale, _numbers(count))

    def by_samples(self, count: int) -> Directions:
        """PCA. Raises ConfigError: there are fewer samples than directions."""
        if self.samples <= count:
            raise ConfigError(
                f"samples={self.samples} have fewer than count={count} principal components. Use samples={2 * count}."
            )
        parts = self._over(self.samples, self.space.features)
        features, points = (torch.cat(rows) for rows in zip(*parts, strict=True))
        if features.shape == points.shape and torch.equal(features, points):
            vectors, scale = principal(points, count)
        else:
            vectors = behind(points, features, count)
            scale = deviations(points, vectors)
        return Directions(self.space.kind, "pca", vectors, scale, _numbers(count))

    def of_labels(self, config: DictConfig, judge: str | None, label: Sequence[int | str] | None) -> Directions:
        """One direction for each label: to samples that a judge gives it, or to data that have it. Raises ConfigError:
        there is neither, or no label has enough of both."""
        spec = resolved(config)["spec"]
        if not (spec["condition"].get("label") or {}).get("size"):
            raise ConfigError(f"method=label: the data of {self.run} have no labels. Use method=pca.")
        kind = label_kind(spec["condition"])
        points, labels = self._encoded(config) if judge is None else self._judged(spec, judge)
        wanted = kind.classes if label is None else [int(kind.read(each)) for each in label]
        found: dict[str, Tensor] = {}
        for number in wanted:
            is_in, word = labels == number, kind.words(torch.tensor([number]))[0]
            seen = f"{int(is_in.sum())} of {len(labels)}"
            if min(int(is_in.sum()), int((~is_in).sum())) >= _LEAST:
                found[word], how_well = self._toward(points, is_in)
                print(for_terminal(f"{word}: {seen}{how_well}"))
            elif label is not None:
                raise ConfigError(
                    f"label={word}: {seen} examples have it, and a direction needs {_LEAST} that do and {_LEAST} that "
                    f"do not. Use samples={4 * self.samples}."
                )
        if not found:
            raise ConfigError(
                f"no label divides {len(labels)} examples into {_LEAST} or more that have it and as many that do not. "
                f"Use samples={4 * self.samples}."
            )
        vectors = torch.stack([*found.values()])
        return Directions(self.space.kind, "label", vectors, deviations(points, vectors), [*found])

    def _toward(self, points: Tensor, is_in: Tensor) -> tuple[Tensor, str]:
        """A unit vector to those that are in, and in words how well it tells them apart."""
        if self.space.kind == "middle":
            return difference(points, is_in), ""
        normal, accuracy = separating(points, is_in)
        return normal, f", told apart at {accuracy:.1%}"

    def _judged(self, spec: Mapping[str, Any], judge: str) -> tuple[Tensor, Tensor]:
        """Where samples are, and the labels that a classifier gives them."""
        found = load_judge(judge, spec, self.run)
        if not isinstance(found, ClassifierJudge):
            raise ConfigError(f"judge={judge} gives pictures no labels. Name a run of model=classifier.")

        def both(asked: Condition | None, stream: RandomStream) -> tuple[Tensor, Tensor]:
            images, points = self.space.draw(asked, stream, None)
            return points, found.classes(images.clamp(-1, 1))

        points, labels = (torch.cat(rows) for rows in zip(*self._over(self.samples, both), strict=True))
        return points, labels

    def _encoded(self, config: DictConfig) -> tuple[Tensor, Tensor]:
        """Latents of data, and their own labels."""
        model = self.model
        if not isinstance(model, HasLatent) or self.space.kind != "latent":
            raise ConfigError(
                f"method=label: a {type(model).__name__} encodes no data whose labels are known, so its samples need a "
                "judge=outputs/<a run of model=classifier>."
            )
        data = build_data(config, self.run)
        known = labelled(data, "train", self.samples, "directions")
        rows, labels = [], torch.from_numpy(known.labels)
        told = {"label": labels} if model.conditions.is_label_alone else None
        for start in range(0, len(labels), self.batch_size):
            part = slice(start, start + self.batch_size)
            x = to_float(torch.from_numpy(known.images[part])).to(model.device)
            condition = None if told is None else {key: value[part].to(model.device) for key, value in told.items()}
            rows.append(model.encode(x, condition).flatten(1).cpu())
        return torch.cat(rows), labels

    def _over(
        self, count: int, look: Callable[[Condition | None, RandomStream], tuple[Tensor, ...]]
    ) -> Iterator[tuple[Tensor, ...]]:
        """What ``look`` finds of samples 0 to ``count`` - 1, batch by batch, on the CPU."""
        asked = asked_of(self.model, range(count))
        with progress(f"looking at {count:,} samples", count) as advance, exact_float32(self.model.device):
            for start in range(0, count, self.batch_size):
                indices = range(start, min(start + self.batch_size, count))
                stream = RandomStream.for_samples(self.seed, indices, self.model.device)
                rows = (
                    None
                    if asked is None
                    else {key: value[indices.start : indices.stop] for key, value in asked.items()}
                )
                with torch.no_grad():
                    yield tuple(part.cpu() for part in look(rows, stream))
                advance(len(indices))


def _numbers(count: int) -> list[str]:
    return [str(i) for i in range(count)]


def _path(run: Path, name: str) -> Path:
    path = run / SAMPLES / name
    prepare_folder(path.parent, run)
    prepare_file(path)
    return path

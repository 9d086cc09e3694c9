"""Measures what control of trained models is worth, by the runs of scripts/control.sh.

    python scripts/benchmark_control.py ROOT      # docs/measured/control.json; then: python scripts/docs_control.py

Scenes of one object, held out, whose size, color, shape and place are known; a fixed rule reads them in what comes out.
All methods have as many evaluations of the network for a picture: the number of steps follows from what a step costs.
Each row is measured with several seeds, of scenes and of noise. What is measured is kept in ROOT/measured.json, with
which the same command goes on after an interruption; where a run was trained anew, it begins again.
"""

import argparse
import copy
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor

import benchmark_control_measures as measures
from benchmark_control_pictures import CROSS, KINDS, WORD
from docs_rows import MEASURED
from genlab.data import scenes as drawing
from genlab.data.image import to_float, to_uint8
from genlab.data.scene_reader import layout_of
from genlab.data.scenes import COLORS, SIZES, Scenes
from genlab.data.shapes import Shapes
from genlab.editing import edit as editing
from genlab.editing.edit import Search
from genlab.editing.operators import Gray, Known, Operator, SuperResolution
from genlab.editing.repaint import evaluated_steps
from genlab.editing.steps import levels_of, steps_made
from genlab.machine.quick_cpu import quick_cpu
from genlab.metrics.layout_iou import intersection_over_union
from genlab.model.base import Condition, in_eval_mode
from genlab.model.condition_hint import HINT
from genlab.model.guidance.apg import AdaptiveProjectedGuidance
from genlab.model.guidance.autoguidance import Autoguidance
from genlab.model.guidance.classifier import ClassifierGuidance
from genlab.model.guidance.classifier_free import ClassifierFree
from genlab.model.guidance.interval import Interval
from genlab.model.guidance.none import NoGuidance
from genlab.model.guidance.perturbed_attention import PerturbedAttention
from genlab.run import run_folder
from genlab.run.cpu_choice import of_run
from genlab.run.judge import ClassifierJudge
from genlab.run.load import load_run
from genlab.sampling.best_of import BestOf
from genlab.sampling.draw import in_batches
from genlab.seeding import RandomStream, derive_seed

RUNS = ("base", "young", "weak", "noisy", "known", "layout", "personal", "personal_alone")  # of scripts/control.sh
ABOUT = "guidance, edits, restored pictures, layouts and a new word, on scenes of one object at 32 pixels"
STRENGTH = 2.0  # of classifier-free guidance, where it is not what is compared
PART = 0.4  # of the way to noise: inversions of a part
LOW, HIGH = 0.3, 5.0  # noise levels of guidance by interval
CANDIDATES = 4
FACTOR = 4  # of super-resolution
HEUN_STEPS = 40  # of an inversion and back
REAL = 5  # times as many real pictures as samples, for the FID
AT_A_TIME = 50
SCENES_EACH = 4  # among which as many are sought as are needed
_REFERENCE = 10**6  # the first scene of the reference: beyond those of all seeds

Draw = Callable[[slice, Condition | None, RandomStream], Tensor]
Metrics = dict[str, float]


# --- what is measured with --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """Held-out scenes of one object, their pictures, and what is asked for in their place."""

    seed: int
    scenes: Scenes
    asked: Scenes  # with another color or shape
    changed: Sequence[str]  # which of the two
    size: int  # of pictures

    @cached_property
    def pixels(self) -> np.ndarray:
        """(N, 3, S, S) uint8."""
        return drawing.render(self.scenes, self.size)

    @cached_property
    def images(self) -> Tensor:
        """The same in [-1, 1]."""
        return to_float(torch.from_numpy(self.pixels))

    @cached_property
    def masks(self) -> Tensor:
        """(N, 1, S, S) bool: around each object."""
        return measures.masks_of(self.scenes, self.size)

    @cached_property
    def hidden(self) -> Tensor:
        """(N, 1, S, S) bool: all that is to the right of the center of the object."""
        columns = (torch.arange(self.size) + 0.5) / self.size
        return (
            (columns > torch.from_numpy(self.scenes.position[:, 0, :1]))
            .view(-1, 1, 1, self.size)
            .repeat(1, 1, self.size, 1)
        )


class Bench:
    """The runs below ``root``, pictures and seeds, and how many evaluations a picture may cost."""

    def __init__(self, root: Path, n: int, evaluations: int):
        self.root, self.n, self.evaluations = root, n, evaluations
        self.run = cache(self._run)
        self.problem = cache(self._problem)
        self.reference = cache(self._reference)

    def config(self, name: str) -> dict[str, Any]:
        return run_folder.read_config(self.root / name)

    def _run(self, name: str) -> Any:
        """A trained model; each is loaded once."""
        return load_run(OmegaConf.create(self.config(name)), self.root / name)[0]

    def _problem(self, seed: int, new: bool = False) -> Problem:
        """Of combinations that training had, or of ``new`` ones."""
        scenes = held_out(SCENES_EACH * self.n * seed, self.n, new)
        asked, changed = measures.edited(scenes, derive_seed(seed, 1))
        return Problem(seed, scenes, asked, changed, self.run("base").shape[-1])

    @torch.no_grad()
    def features(self, pixels: np.ndarray) -> Tensor:
        """Of pictures (N, 3, S, S) uint8, by the classifier of all sizes, colors and shapes. -> (N, D)"""
        model = self.run("known")
        parts = torch.split(to_float(torch.from_numpy(pixels)), AT_A_TIME)
        return torch.cat([model.features(part.to(model.device)) for part in parts]).cpu().double()

    def _reference(self, new: bool) -> Tensor:
        """Features of real pictures."""
        return self.features(drawing.render(held_out(_REFERENCE, REAL * self.n, new), self.run("base").shape[-1]))

    def fid(self, pixels: np.ndarray, new: bool = False) -> float:
        return measures.fid(self.features(pixels), self.reference(new))

    def draw(
        self, model: Any, condition: Condition | None, seed: int, draw: Draw | None = None
    ) -> tuple[Tensor, float]:
        """Pictures (N, 3, S, S) in [-1, 1], a row of ``condition`` for each, and the evaluations that one cost.
        ``draw(rows, condition, stream)``: what makes them; None: sampling."""
        count = self.n if condition is None else len(next(iter(condition.values())))

        def batch(rows: slice) -> Tensor:
            stream = RandomStream.for_samples(seed, range(count)[rows], model.device)
            told = None if condition is None else {key: x[rows].to(model.device) for key, x in condition.items()}
            return model.sample(len(stream), told, stream) if draw is None else draw(rows, told, stream)

        before = model.evaluations
        with in_eval_mode(model), torch.no_grad():
            images = torch.cat([*in_batches(model, batch, count, AT_A_TIME)]).cpu()
        return images, (model.evaluations - before) / count


def held_out(first: int, count: int, new: bool) -> Scenes:
    """``count`` held-out scenes of one object from number ``first`` on, of those whose shape and color training had
    together, or of those whose combination is ``new``."""
    numbers = first + np.arange(SCENES_EACH * count)
    scenes = Shapes(max_objects=1).scenes("val", 0, numbers)
    rows = np.flatnonzero(scenes.has_held_out == new)[:count]
    assert len(rows) == count, "about half of the scenes are of such combinations"
    return Scenes(scenes.shape[rows], scenes.color[rows], scenes.size[rows], scenes.position[rows], scenes.mask[rows])


def told(model: Any, scenes: Scenes) -> dict[str, Tensor]:
    """What a model is told of scenes: those of their label and caption that it takes."""
    all_ = {"label": torch.from_numpy(scenes.shape[:, 0]), "caption": torch.from_numpy(drawing.tokens(scenes))}
    return {key: value for key, value in all_.items() if key in model.conditions.kinds}


@contextmanager
def drawn_with(model: Any, guidance: Any, steps: int | None = None) -> Iterator[None]:
    """Within, samples of a model have this guidance, and its sampler makes so many steps."""
    before = model.guidance, model.sampler
    model.guidance = guidance
    if steps is not None:
        model.sampler = copy.copy(model.sampler)
        model.sampler.num_steps = steps
    try:
        yield
    finally:
        model.guidance, model.sampler = before


def largest(evaluations: int, cost: Callable[[int], float]) -> int:
    """The largest number of steps, 2 at least, that costs at most so many evaluations. A step costs more than a half:
    of SDEdit's, a share is made."""
    return max((steps for steps in range(2, 2 * evaluations + 1) if cost(steps) <= evaluations), default=2)


# --- guidance ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Guided:
    """A guidance, how many evaluations a step costs, and how many candidates are drawn."""

    make: Callable[[Bench], Any]
    cost: Callable[[float], int]  # by the noise level of a step
    candidates: int = 1

    def __call__(self, bench: Bench, seed: int) -> Metrics:
        model, problem = bench.run("young"), bench.problem(seed, new=True)
        guidance = self.make(bench)
        if hasattr(guidance, "check_model"):
            guidance.check_model(model)

        def cost(steps: int) -> int:
            sampler = copy.copy(model.sampler)
            sampler.num_steps = steps
            return self.candidates * sum(self.cost(level) for level in levels_of(sampler)[:-1])

        draw: Draw | None = None
        if self.candidates > 1:
            best = BestOf(model, self.candidates, ClassifierJudge(bench.run("noisy"), "noisy"))
            draw = lambda rows, condition, stream: best(len(stream), condition, stream)  # noqa: E731
        with drawn_with(model, guidance, largest(bench.evaluations, cost)):
            images, spent = bench.draw(model, told(model, problem.scenes), seed, draw)
        return _of_samples(bench, problem, to_uint8(images).numpy()) | {"evaluations": spent}


def _of_samples(bench: Bench, problem: Problem, pixels: np.ndarray) -> Metrics:
    return {
        "right": measures.accuracy(pixels, measures.objects_of(problem.scenes)),
        "fid": bench.fid(pixels, new=True),
        "variety": measures.variety(pixels, problem.pixels),
    }


def _real(bench: Bench, seed: int) -> Metrics:
    """What the numbers of real pictures are."""
    problem = bench.problem(seed, new=True)
    return _of_samples(bench, problem, problem.pixels) | {"evaluations": 0}


def _inside(sigma: float) -> int:
    return 2 if LOW <= sigma <= HIGH else 1


GUIDANCE: dict[str, Callable[[Bench, int], Metrics]] = {
    "real": _real,
    "none": Guided(lambda bench: NoGuidance(), lambda sigma: 1),
    **{
        f"classifier_free_{w}": Guided(lambda bench, w=w: ClassifierFree(w), lambda sigma: 2)  # type: ignore[misc]
        for w in (1.5, 2, 3, 5)
    },
    **{
        f"interval_{w}": Guided(lambda bench, w=w: Interval(w, LOW, HIGH), _inside)  # type: ignore[misc]
        for w in (2, 3, 5)
    },
    **{
        f"apg_{w}": Guided(lambda bench, w=w: AdaptiveProjectedGuidance(w), lambda sigma: 2)  # type: ignore[misc]
        for w in (2, 3, 5)
    },
    **{
        f"autoguidance_{w}": Guided(lambda bench, w=w: Autoguidance(bench.run("weak"), w), lambda sigma: 2)  # type: ignore[misc]
        for w in (2, 3)
    },
    **{
        f"perturbed_attention_{s}": Guided(lambda bench, s=s: PerturbedAttention(s), lambda sigma: 2)  # type: ignore[misc]
        for s in (1, 2)
    },
    **{
        f"classifier_{w}": Guided(lambda bench, w=w: ClassifierGuidance(bench.run("noisy"), w), lambda sigma: 1)  # type: ignore[misc]
        for w in (1, 4)
    },
    f"best_of_{CANDIDATES}": Guided(lambda bench: NoGuidance(), lambda sigma: 1, CANDIDATES),
}


# --- edits ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Edited:
    """A way to edit pictures, by the base under the new caption."""

    make: Callable[[Bench, Problem], tuple[Tensor, float]]  # images in [-1, 1], and what one cost

    def __call__(self, bench: Bench, seed: int) -> Metrics:
        problem = bench.problem(seed)
        images, spent = self.make(bench, problem)
        pixels = to_uint8(images).numpy()
        return {
            **measures.agreement(pixels, measures.objects_of(problem.asked), problem.changed),
            "fid": bench.fid(pixels),
            "seam": measures.seam(pixels, problem.pixels, problem.masks.numpy()),
            "psnr": measures.psnr(pixels, problem.pixels),
            "evaluations": spent,
        }


def _sample(bench: Bench, problem: Problem) -> tuple[Tensor, float]:
    model = bench.run("base")
    with drawn_with(model, ClassifierFree(STRENGTH), bench.evaluations // 2):
        return bench.draw(model, told(model, problem.asked), problem.seed)


def _sdedit(strength: float) -> Callable[[Bench, Problem], tuple[Tensor, float]]:
    def make(bench: Bench, problem: Problem) -> tuple[Tensor, float]:
        model = bench.run("base")

        def draw(rows: slice, condition: Condition | None, stream: RandomStream) -> Tensor:
            return editing.sdedit(model, problem.images[rows].to(model.device), strength, condition, stream)

        # so many steps of which this share is made
        steps = largest(bench.evaluations, lambda steps: 2 * steps_made(strength, steps))
        with drawn_with(model, ClassifierFree(STRENGTH), steps):
            return bench.draw(model, told(model, problem.asked), problem.seed, draw)

    return make


def _invert(
    guidance: float, share: float = 1.0, masked: bool = False
) -> Callable[[Bench, Problem], tuple[Tensor, float]]:
    """A ``share`` of the way to noise under the picture's own caption, without guidance, and back under the new one;
    ``masked``: what is outside the mask stays on its way."""

    def make(bench: Bench, problem: Problem) -> tuple[Tensor, float]:
        model = bench.run("base")
        source, each = told(model, problem.scenes), 4 if guidance == 1 else 6  # evaluations of a step and of that back
        steps = largest(bench.evaluations, lambda steps: each * steps_made(share, steps))

        def draw(rows: slice, condition: Condition | None, stream: RandomStream) -> Tensor:
            images, unknown = (x[rows].to(model.device) for x in (problem.images, problem.masks))
            own = {key: value[rows].to(model.device) for key, value in source.items()}
            with drawn_with(model, NoGuidance()):
                passed = editing.way(model, images, own, steps, share)
            noise = editing.noise_of(model, passed, steps, share)
            return editing.revert(model, noise, condition, steps, share, unknown if masked else None, passed)

        with drawn_with(model, ClassifierFree(guidance)):
            return bench.draw(model, told(model, problem.asked), problem.seed, draw)

    return make


def _inpaint(
    resamplings: int, guidance: float = STRENGTH, strength: float = 1.0
) -> Callable[[Bench, Problem], tuple[Tensor, float]]:
    def make(bench: Bench, problem: Problem) -> tuple[Tensor, float]:
        model, each = bench.run("base"), 1 if guidance == 1 else 2
        search = Search(resamplings=resamplings, strength=strength)
        steps = largest(
            bench.evaluations, lambda steps: each * evaluated_steps(steps_made(strength, steps), resamplings, 1)
        )
        with drawn_with(model, ClassifierFree(guidance), steps):
            return _filled(bench, problem, problem.masks, problem.asked, search)

    return make


def _filled(bench: Bench, problem: Problem, unknown: Tensor, scenes: Scenes, search: Search) -> tuple[Tensor, float]:
    """Pictures whose ``unknown`` (N, 1, S, S) places are drawn, told ``scenes``."""
    model = bench.run("base")

    def draw(rows: slice, condition: Condition | None, stream: RandomStream) -> Tensor:
        images, hidden = (x[rows].to(model.device) for x in (problem.images, unknown))
        return editing.inpaint(model, images, hidden, condition, stream, search)

    return bench.draw(model, told(model, scenes), problem.seed, draw)


def _scene(asked: bool) -> Callable[[Bench, Problem], tuple[Tensor, float]]:
    """What a perfect edit gives, or the picture itself."""

    def make(bench: Bench, problem: Problem) -> tuple[Tensor, float]:
        return replace(problem, scenes=problem.asked).images if asked else problem.images, 0.0

    return make


EDITS: dict[str, Callable[[Bench, int], Metrics]] = {
    "perfect": Edited(_scene(asked=True)),
    "input": Edited(_scene(asked=False)),
    "samples": Edited(_sample),
    **{f"sdedit_{share}": Edited(_sdedit(share / 100)) for share in (40, 50, 60)},
    "invert_1": Edited(_invert(1)),
    "invert_2": Edited(_invert(2)),
    **{f"invert_part_{w}": Edited(_invert(w, PART)) for w in (2, 3, 4)},
    **{f"invert_masked_{w}": Edited(_invert(w, PART, masked=True)) for w in (2, 3, 4)},
    **{f"inpaint_{resamplings}": Edited(_inpaint(resamplings)) for resamplings in (1, 2, 4, 8)},
    "inpaint_unguided_4": Edited(_inpaint(4, guidance=1)),
    **{f"inpaint_begun_{share}": Edited(_inpaint(1, strength=share / 100)) for share in (40, 50, 60)},
}


# --- restored pictures ------------------------------------------------------------------------------------------------

TASKS: dict[str, Callable[[Tensor], Operator]] = {  # by what is hidden of the pictures
    "super_resolution": lambda hidden: SuperResolution(FACTOR),
    "colorize": lambda hidden: Gray(),
    "half": Known,
}


@dataclass(frozen=True)
class Restored:
    """Pictures of which a measurement is known, told their captions."""

    task: str
    method: str  # ddrm, dps, inpaint; nothing: the smallest pictures with this measurement

    def __call__(self, bench: Bench, seed: int) -> Metrics:
        problem = bench.problem(seed)
        images, spent = self._images(bench, problem)
        pixels, operator = to_uint8(images).numpy(), TASKS[self.task](problem.hidden)
        return {
            "kept": measures.restored(pixels, measures.objects_of(problem.scenes)),
            "psnr": measures.psnr(pixels, problem.pixels),
            "misfit": measures.misfit(operator, images, operator.measure(problem.images)),
            "evaluations": spent,
        }

    def _images(self, bench: Bench, problem: Problem) -> tuple[Tensor, float]:
        model = bench.run("base")
        if self.method == "nothing":
            operator = TASKS[self.task](problem.hidden)
            return operator.pseudo_inverse(operator.measure(problem.images)), 0.0
        if self.method == "inpaint":
            steps = largest(bench.evaluations, lambda steps: evaluated_steps(steps, 8, 1))
            with drawn_with(model, NoGuidance(), steps):
                return _filled(bench, problem, problem.hidden, problem.scenes, Search(resamplings=8))

        def draw(rows: slice, condition: Condition | None, stream: RandomStream) -> Tensor:
            operator = TASKS[self.task](problem.hidden[rows].to(model.device))
            y = operator.measure(problem.images[rows].to(model.device))
            return editing.restore(model, self.method, operator, y, condition, stream)

        with drawn_with(model, NoGuidance(), bench.evaluations):
            return bench.draw(model, told(model, problem.scenes), problem.seed, draw)


RESTORED: dict[str, Callable[[Bench, int], Metrics]] = {
    f"{method}_{task}": Restored(task, method)
    for task in TASKS
    for method in ("nothing", "ddrm", "dps", *(["inpaint"] if task == "half" else []))
}


# --- inversion and back, layouts, a new word --------------------------------------------------------------------------


def _back(bench: Bench, seed: int) -> Metrics:
    """Pictures to noise and back under their own captions, of 40 steps of Heun's method each."""
    model, problem = bench.run("base"), bench.problem(seed)

    def draw(rows: slice, condition: Condition | None, stream: RandomStream) -> Tensor:
        noise = editing.invert(model, problem.images[rows].to(model.device), condition, HEUN_STEPS)
        return editing.revert(model, noise, condition, HEUN_STEPS)

    with drawn_with(model, NoGuidance()):
        images, spent = bench.draw(model, told(model, problem.scenes), seed, draw)
    return {"psnr": measures.psnr(to_uint8(images).numpy(), problem.pixels), "evaluations": spent}


def _layout(hinted: bool) -> Callable[[Bench, int], Metrics]:
    """Samples told captions, and the layouts of the same scenes if they are ``hinted``."""

    def measure(bench: Bench, seed: int) -> Metrics:
        model, problem = bench.run("layout"), bench.problem(seed)
        layouts = drawing.layouts(problem.scenes, problem.size)
        condition = told(model, problem.scenes)
        if hinted:
            condition[HINT] = model.hint.of({"layout": torch.from_numpy(layouts)})
        with drawn_with(model, ClassifierFree(STRENGTH), bench.evaluations // 2):
            images, spent = bench.draw(model, condition, seed)
        pixels = to_uint8(images).numpy()
        return {
            "layout_iou": float(intersection_over_union(layouts, layout_of(pixels)).mean()),
            "right": measures.accuracy(pixels, measures.objects_of(problem.scenes)),
            "evaluations": spent,
        }

    return measure


def _word(name: str) -> Callable[[Bench, int], Metrics]:
    """Of a run that may have learned the word: how many samples of "a SIZE COLOR sks" the classifier calls a cross, and
    how many of these are of that size and color too; of captions of the other shapes, how many samples are right, and
    how many have become a cross."""

    def measure(bench: Bench, seed: int) -> Metrics:
        model, problem = bench.run(name), bench.problem(seed)
        caption, names = model.conditions.kinds["caption"], bench.config("known")["spec"]["condition"]["label"]["names"]
        found: Metrics = {}
        with drawn_with(model, ClassifierFree(STRENGTH), bench.evaluations // 2):
            if WORD in caption.names:
                looks = [(size, color) for size in SIZES for color in COLORS]
                wanted = [looks[i % len(looks)] for i in range(bench.n)]
                prompts = torch.cat([caption.read(f"a {size} {color} {WORD}") for size, color in wanted])
                images, _ = bench.draw(model, {"caption": prompts}, seed)
                called = _called(bench, images, names)
                found["recognized"] = float(np.mean([each.endswith(f"_{CROSS}") for each in called]))
                pairs = zip(called, wanted, strict=True)
                found["as_told"] = float(np.mean([each == f"{s}_{c}_{CROSS}" for each, (s, c) in pairs]))
            captions = {"caption": told(model, problem.scenes)["caption"]}
            others, spent = bench.draw(model, captions, seed)
        called = _called(bench, others, names)
        return found | {
            "others_right": measures.accuracy(to_uint8(others).numpy(), measures.objects_of(problem.scenes)),
            "others_taken": float(np.mean([each.endswith(f"_{CROSS}") for each in called])),
            "evaluations": spent,
        }

    return measure


@torch.no_grad()
def _called(bench: Bench, images: Tensor, names: Sequence[str]) -> list[str]:
    """What the classifier of sizes, colors and shapes calls images (N, 3, S, S) in [-1, 1], at 8 bits."""
    assert {name.rpartition("_")[2] for name in names} == {*KINDS}
    model = bench.run("known")
    logits = model.logits(to_float(to_uint8(images)).to(model.device))
    return [names[k] for k in logits.argmax(dim=1).tolist()]


OTHERS: dict[str, Callable[[Bench, int], Metrics]] = {
    "back": _back,
    "layout": _layout(hinted=True),
    "no_layout": _layout(hinted=False),
    "no_word": _word("base"),
    "word": _word("personal"),
    "word_alone": _word("personal_alone"),
}

ROWS: dict[str, Callable[[Bench, int], Metrics]] = {
    **{f"guidance_{name}": row for name, row in GUIDANCE.items()},
    **{f"edits_{name}": row for name, row in EDITS.items()},
    **{f"restored_{name}": row for name, row in RESTORED.items()},
    **{f"others_{name}": row for name, row in OTHERS.items()},
}


# --- the record -------------------------------------------------------------------------------------------------------


def measured(bench: Bench, seeds: int) -> list[dict[str, Any]]:
    """All rows with all seeds, those of ROOT/measured.json as they are there. Written after each row."""
    path = bench.root / "measured.json"
    settings = {"n": bench.n, "evaluations": bench.evaluations, "trained": trained(bench.root)}
    rows: list[dict[str, Any]] = []
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        rows = before["runs"] if before["settings"] == settings else []
    there = {(row["row"], row["seed"]) for row in rows}
    for seed in range(seeds):
        for name, measure in ROWS.items():
            if (name, seed) not in there:
                metrics = measures.rounded(measure(bench, seed))
                print(name, seed, *(f"{key}={value:.3g}" for key, value in metrics.items()), flush=True)
                rows.append({"row": name, "seed": seed, "metrics": metrics})
                run_folder.write_text(path, json.dumps({"settings": settings, "runs": rows}))
    return sorted(
        (row for row in rows if row["seed"] < seeds), key=lambda row: (list(ROWS).index(row["row"]), row["seed"])
    )


def trained(root: Path) -> dict[str, dict[str, float]]:
    """What the runs cost. Exits where one has not finished."""
    found = {}
    for name in RUNS:
        path = root / name / "summary.json"
        if not path.exists():
            sys.exit(f"error: {root / name} has not finished. Train it: bash scripts/control.sh")
        summary = json.loads(path.read_text(encoding="utf-8"))
        found[name] = {key: summary[key] for key in ("parameters", "examples", "flops")}
    return found


def record(bench: Bench, seeds: int, path: Path) -> None:
    versions = json.loads((bench.root / "base" / "versions.json").read_text(encoding="utf-8"))
    content: Mapping[str, Any] = {
        "about": ABOUT,
        "hardware": "{cpu}, {cores} cores".format(**versions["hardware"]),
        "revision": versions["revision"],
        "settings": {"n": bench.n, "evaluations": bench.evaluations, "seeds": seeds},
        "trained": trained(bench.root),
        "baselines": {},
    }
    rows = measured(bench, seeds)
    text = json.dumps({**content, "runs": []}, indent=1).removesuffix("[]\n}")
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    path.write_text(f"{text}[\n{lines}\n ]\n}}\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--n", type=int, default=200, help="pictures of a row and a seed")
    parser.add_argument("--evaluations", type=int, default=80, help="of the network for a picture; 8 at least")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--record", type=Path, default=MEASURED / "control.json")
    typed = parser.parse_args()
    if typed.n < 2 or typed.evaluations < 8 or typed.seeds < 1:
        parser.error("use --n 2, --evaluations 8 and --seeds 1, or more.")
    bench = Bench(typed.root, typed.n, typed.evaluations)
    trained(typed.root)
    with quick_cpu(bench.run("base").device.type == "cpu", **of_run(bench.config("base"))):
        record(bench, typed.seeds, typed.record)


if __name__ == "__main__":
    main()

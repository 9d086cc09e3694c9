"""What the benchmark of control measures, by closed forms and by scenes that are drawn anew; and how it is shown."""

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from genlab.data import scenes as drawing
from genlab.data.scene_reader import read
from genlab.data.scenes import COLORS, HELD_OUT, SHAPES, SIZES, Scenes
from genlab.editing.operators import Gray, SuperResolution
from genlab.editing.repaint import evaluated_steps
from test_docs_tables import REPOSITORY, script

SIZE = 32


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    return script("benchmark_control")


@pytest.fixture(scope="module")
def measures(bench: ModuleType) -> ModuleType:
    return bench.measures


@pytest.fixture(scope="module")
def scenes(bench: ModuleType) -> Scenes:
    return bench.held_out(0, 24, new=False)


def moved(scenes: Scenes, right: float) -> Scenes:
    return replace(scenes, position=scenes.position + np.array([right, 0.0]))


# --- what was asked for, and what was kept ----------------------------------------------------------------------------


def test_edits_change_one_attribute_to_a_combination_that_training_had(
    bench: ModuleType, measures: ModuleType, scenes: Scenes
) -> None:
    asked, changed = measures.edited(scenes, seed=1)
    assert changed == ["color", "shape"] * 12
    for before, after, name in zip(measures.objects_of(scenes), measures.objects_of(asked), changed, strict=True):
        assert [key for key in ("size", "color", "shape", "place") if getattr(before, key) != getattr(after, key)] == [
            name
        ]
        assert (after.shape, after.color) not in HELD_OUT
        assert (before.shape, before.color) not in HELD_OUT
    assert all((new.shape, new.color) in HELD_OUT for new in measures.objects_of(bench.held_out(0, 24, new=True)))
    others = measures.edited(scenes, seed=2)[0]
    assert (others.color != asked.color).any()


def test_scenes_drawn_anew_are_perfect_edits_and_others_are_told_apart(measures: ModuleType, scenes: Scenes) -> None:
    asked, changed = measures.edited(scenes, seed=1)
    wanted = measures.objects_of(asked)

    def agreement(shown: Scenes) -> dict[str, float]:
        return measures.agreement(drawing.render(shown, SIZE), wanted, changed)

    assert agreement(asked) == {"asked": 1, "kept": 1, "both": 1, "whole": 1}
    assert agreement(scenes) == {"asked": 0, "kept": 1, "both": 0, "whole": 0}
    small = Scenes(asked.shape, asked.color, 0 * asked.size, np.full_like(asked.position, 0.25), asked.mask)
    centered = replace(asked, size=small.size, position=small.position)
    wanted = measures.objects_of(centered)
    assert agreement(centered)["both"] == 1
    assert agreement(moved(centered, 0.05))["both"] == 1
    assert agreement(moved(centered, 0.09)) == {"asked": 1, "kept": 0, "both": 0, "whole": 1}
    assert agreement(replace(centered, size=1 - centered.size)) == {"asked": 1, "kept": 0, "both": 0, "whole": 0}
    empty = replace(centered, mask=np.zeros_like(centered.mask))
    assert agreement(empty) == {"asked": 0, "kept": 0, "both": 0, "whole": 0}


def test_restored_scenes_stand_at_their_place_and_right_ones_anywhere(measures: ModuleType, scenes: Scenes) -> None:
    small = replace(scenes, size=0 * scenes.size, position=np.full_like(scenes.position, 0.25))
    objects, there, away = (
        measures.objects_of(small),
        drawing.render(small, SIZE),
        drawing.render(moved(small, 0.09), SIZE),
    )
    assert (measures.restored(there, objects), measures.accuracy(there, objects)) == (1, 1)
    assert (measures.restored(away, objects), measures.accuracy(away, objects)) == (0, 1)
    half = np.concatenate(
        [there[:12], np.zeros_like(there[12:]) + np.array(drawing.BACKGROUND, dtype=np.uint8)[:, None, None]]
    )
    assert measures.accuracy(half, objects) == 0.5
    assert measures.variety(away, drawing.render(scenes, SIZE)) == 0  # all at one place
    assert measures.variety(drawing.render(scenes, SIZE), drawing.render(scenes, SIZE)) == 1


# --- pixels -----------------------------------------------------------------------------------------------------------


def test_psnr_of_a_constant_difference_and_of_none(measures: ModuleType) -> None:
    a = np.full((2, 3, 4, 4), 100, dtype=np.uint8)
    assert measures.psnr(a + np.uint8(5), a) == pytest.approx(20 * np.log10(255 / 5))
    assert measures.psnr(a, a) == pytest.approx(10 * np.log10(12 * 255**2))


def test_the_seam_of_a_picture_equal_to_itself_is_one_and_of_a_patch_its_difference(measures: ModuleType) -> None:
    rng = np.random.default_rng(0)
    noisy = rng.integers(0, 256, (2, 3, 8, 8)).astype(np.uint8)
    masks = np.zeros((2, 1, 8, 8), dtype=bool)
    masks[0, 0, 2:5, 3:6], masks[1, 0, :4, :] = True, True  # one reaches the edge of the picture
    assert measures.seam(noisy, noisy, masks) == 1
    plain = np.full_like(noisy, 50)
    assert measures.seam(np.where(masks, np.uint8(59), plain), plain, masks) == 1 + 9
    inside = plain.copy()
    inside[0, :, 3, 4] = 200  # not at the border
    assert measures.seam(inside, plain, masks) == 1
    stripes = np.broadcast_to(np.arange(8, dtype=np.uint8)[:, None] * 10, noisy.shape)
    # A border of 3 + 3 rows of the first mask and 8 of the second have a step of 10, 3 + 3 columns have none.
    assert measures.seam(plain, stripes, masks) == pytest.approx(1 / (1 + 10 * 14 / 20))


def test_masks_are_boxes_around_the_object(measures: ModuleType) -> None:
    one = np.zeros((1, 1), dtype=int)
    square = Scenes(one + SHAPES.index("square"), one, one, np.full((1, 1, 2), 0.25), one == 0)
    mask = measures.masks_of(square, SIZE, grown=2)[0, 0]
    reach = 0.85 * SIZES["small"] * SIZE  # 2.99 pixels about x = 8: pixels whose center is nearer than that and a half
    painted = [x for x in range(SIZE) if abs(x + 0.5 - 8) < reach + 0.5]
    expected = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    expected[painted[0] - 2 : painted[-1] + 3, painted[0] - 2 : painted[-1] + 3] = True
    assert torch.equal(mask, expected)


def test_a_measurement_that_is_off_by_a_constant_misses_by_it(measures: ModuleType) -> None:
    x = torch.rand(2, 3, 8, 8) * 2 - 1
    for operator in (SuperResolution(4), Gray()):
        y = operator.measure(x)
        assert measures.misfit(operator, x, y) == 0
        assert measures.misfit(operator, x + 2 / 127.5, y) == pytest.approx(2, rel=1e-4)


# --- the new shape ----------------------------------------------------------------------------------------------------


def test_a_cross_covers_the_area_of_two_bars(bench: ModuleType) -> None:
    pictures = script("benchmark_control_pictures")
    assert pictures.cross(np.array([0.5, 3.0, 0.0]), np.array([-2.0, 3.0, 0.0]), 2.0).tolist() == [0, 2.4, -0.6]
    large = np.ones(1, dtype=int)
    drawn = pictures.crosses(0 * large, large, np.array([[0.25, 0.3]]))[0].astype(float)
    paint = np.array(COLORS["red"], dtype=float) - drawing.BACKGROUND
    covered = (drawn - np.array(drawing.BACKGROUND)[:, None, None]).sum(axis=(1, 2)) / paint
    arm, radius = 0.3, SIZES["large"] * SIZE
    assert covered == pytest.approx((2 * 4 * arm - 4 * arm**2) * radius**2, rel=0.04)


def test_pictures_by_class_are_of_that_class_and_the_new_shape_has_captions(tmp_path: Path) -> None:
    pictures = script("benchmark_control_pictures")
    assert len(pictures.classes()) == len(SIZES) * len(COLORS) * 5
    for name in ("large_red_circle", "small_white_ring"):
        found = read(pictures.of_class(name, 6, seed=0))
        assert ["_".join((o.size, o.color, o.shape)) for (o,) in found] == [name] * 6
        assert len({o.place for (o,) in found}) > 3
    assert not np.array_equal(pictures.of_class(name, 2, seed=0), pictures.of_class(name, 2, seed=1))
    pictures.write_concept(tmp_path)
    assert len(list(tmp_path.glob("*.png"))) == 5
    assert (tmp_path / "1.txt").read_text() == "a small green sks\n"


# --- budgets, the record and the tables -------------------------------------------------------------------------------


def test_steps_are_as_many_as_evaluations_allow(bench: ModuleType) -> None:
    assert bench.largest(80, lambda steps: 2 * steps) == 40
    assert bench.largest(80, lambda steps: 0.8 * steps) == 100
    assert bench.largest(80, lambda steps: evaluated_steps(steps, 8, 1)) == 10  # 10 + 9 * 7, and 11 + 10 * 7 are more
    assert bench.largest(3, lambda steps: 4 * steps) == 2
    assert [bench._inside(sigma) for sigma in (bench.HIGH + 1, 1.0, bench.LOW / 2)] == [1, 2, 1]
    model = SimpleNamespace(guidance="own", sampler=SimpleNamespace(num_steps=3))
    sampler = model.sampler
    with bench.drawn_with(model, "other", 7):
        assert (model.guidance, model.sampler.num_steps) == ("other", 7)
    assert (model.guidance, model.sampler, sampler.num_steps) == ("own", sampler, 3)


def test_the_script_the_benchmark_and_the_tables_name_the_same_rows(bench: ModuleType) -> None:
    docs = script("docs_control")
    path = REPOSITORY / "scripts" / "control.sh"
    assert subprocess.run(["bash", "-n", path]).returncode == 0
    assert sorted(re.findall(r"^    (\w+)\) +train \1 ", path.read_text(), re.M)) == sorted(bench.RUNS)
    shown = {*docs.guidance_rows(), *(f"edits_{name}" for name in docs.EDITS), *docs.restored_rows()}
    assert shown | {f"others_{name}" for name, _ in docs.OTHERS} == set(bench.ROWS)


def test_tables_hold_means_and_intervals_over_seeds(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = script("docs_control")
    monkeypatch.setattr(docs, "RECORD", tmp_path / "control.json")
    names = ("right", "fid", "variety", "asked", "kept", "both", "whole", "seam", "psnr", "misfit", "layout_iou",
             "recognized", "as_told", "others_right", "others_taken")  # fmt: skip
    runs = [
        {"row": row, "seed": seed, "metrics": dict.fromkeys(names, 0.5 + seed / 100) | {"evaluations": 78}}
        for row in bench.ROWS
        for seed in (2, 0, 1)
    ]
    for run in runs:
        if run["row"] == "edits_inpaint_4":
            run["metrics"]["both"] = 0.9 * (0.5 + run["seed"] / 100)
    docs.RECORD.write_text(json.dumps({"runs": runs}))
    half = stats.t.ppf(0.975, 2) / np.sqrt(3)  # of 0, 1 and 2 percent, whose deviation is 1
    assert len(docs.guidance()) == 2 + len(bench.GUIDANCE)
    assert f"| `apg` | 5 | 51.0 ±{half:.1f} | 0.51 ±{half / 100:.2f} | 0.51 ±{half / 100:.2f} | 78 |" in docs.guidance()
    (edit,) = [line for line in docs.edits() if line.startswith("| `inpaint`, 4 |")]
    assert edit.split(" | ")[3:5] == [f"45.9 ±{0.9 * half:.1f}", "0.90 ±0.00"]
    assert len(docs.restored()) == 2 + len(bench.RESTORED)
    assert len(docs.others()) == 2 + len(docs.OTHERS)
    assert docs.beside([0.5, 0.5], [0.5, 0.0]) == "–"
    docs.draw(tmp_path / "control.png")
    assert (tmp_path / "control.png").stat().st_size > 10_000


def test_rows_that_are_measured_are_not_measured_again_unless_settings_change(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []

    def row(name: str) -> object:
        def measure(_: object, seed: int) -> dict[str, float]:
            asked.append((name, seed))
            if seed == 1 and name == "b" and len(asked) < 5:
                raise KeyboardInterrupt
            return {"value": seed / 3}

        return measure

    monkeypatch.setattr(bench, "ROWS", {"a": row("a"), "b": row("b")})
    monkeypatch.setattr(bench, "trained", lambda root: {"base": {"examples": 1}})
    first = bench.Bench(tmp_path, 4, 8)
    with pytest.raises(KeyboardInterrupt):
        bench.measured(first, 2)
    assert asked == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    rows = bench.measured(first, 2)
    assert asked[4:] == [("b", 1)]
    assert [(each["row"], each["seed"]) for each in rows] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert rows[1]["metrics"] == {"value": 0.333333}
    assert len(bench.measured(first, 1)) == 2
    assert len(asked) == 5
    bench.measured(bench.Bench(tmp_path, 5, 8), 1)
    assert asked[5:] == [("a", 0), ("b", 0)]

"""Plots: what they show, that they are the same bytes for the same files, and that no name breaks them."""

import random
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from ledger import ledger, trial
from PIL import Image
from run_folders import make_run, write

from genlab.report import curve_plots, search_plots
from genlab.report import importance as importances
from genlab.report.comparison import compare
from genlab.report.cost_plot import pareto
from genlab.report.importance import importance, settings_of, what_mattered
from genlab.report.logged import read_logged
from genlab.report.trials import read_sweep

HEAD = "step,progress/examples,progress/flops,progress/seconds,val/fid_digits64_500,val/fid_se_digits64_500\n"
HOSTILE = ["$\\frac{", "_hidden", "日本 ✓", "</svg><script>alert(1)</script>", "x" * 300, "\x1b[2J", "% & #"]


@pytest.fixture(autouse=True)
def one_forest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importances, "FORESTS", 2)


def rows(seed: int) -> str:
    return HEAD + "".join(f"{10 * i + 9},{640 * (i + 1)},{(i + 1) * 1e9},{i + 1 + seed / 10},{100 / (i + 1) + seed},1\n"
                          for i in range(5))  # fmt: skip


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for seed in (0, 1):
        for rate in (0.1, 0.2):
            costs = {"evaluations_per_sample": 20 if rate == 0.1 else 1, "samples_per_second": 5 if rate == 0.1 else 99}
            color = "red" if rate == 0.1 else None
            made = make_run(tmp_path / "runs" / f"{rate}-{seed}", {"fid_digits64_1k": 10 * rate + seed / 10},
                            costs=costs, seed=seed, model__optimizer__lr=rate, color=color)  # fmt: skip
            write(made / "metrics.csv", rows(seed))
    return tmp_path / "runs"


def test_the_same_files_give_the_same_bytes(runs: Path, tmp_path: Path) -> None:
    for out in "ab":
        compare([str(runs)], out=str(tmp_path / out))
    files = [sorted(path for path in (tmp_path / out).rglob("*") if path.is_file()) for out in "ab"]
    names = [path.relative_to(tmp_path / "a").as_posix() for path in files[0]]
    assert names == [
        "comparison.csv", "comparison.md", "comparison.png", "comparison.tex", "differences.csv",
        "plots/curve-fid_digits64_500.png", "plots/curve-fid_digits64_500.svg", "plots/pareto-fid.png",
        "plots/pareto-fid.svg", "report.html",
    ]  # fmt: skip
    for a, b in zip(*files, strict=True):
        assert a.read_bytes() == b.read_bytes(), a
    for path in files[0]:
        if path.suffix == ".svg":
            ElementTree.fromstring(path.read_bytes())
            assert f"](plots/{path.name})" in (tmp_path / "a" / "comparison.md").read_text()
        elif path.parent.name == "plots":
            with Image.open(path) as picture:
                assert picture.width > 1000


def test_where_nothing_was_drawn_there_is_no_picture_of_samples(tmp_path: Path) -> None:
    for seed in (0, 1):
        make_run(tmp_path / f"runs/{seed}", {"perplexity_exact_val": 3.0 + seed}, seed=seed, color=None)
    compare([str(tmp_path / "runs")], out=str(tmp_path / "a"))
    assert not (tmp_path / "a/comparison.png").exists()
    assert "comparison.png" not in (tmp_path / "a/comparison.md").read_text()


def test_what_is_drawn_is_the_mean_over_seeds(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(curve_plots, "save", lambda figure, *_: drawn.append(figure) or [])
    named = [("a", [read_logged(runs / "0.1-0"), read_logged(runs / "0.1-1")]), ("b", [read_logged(runs / "0.2-0")])]
    curve_plots.curve_plots(named, tmp_path)
    (figure,) = drawn  # none of how sure another metric is
    panels = figure.axes
    assert [panel.get_xlabel() for panel in panels] == ["training examples", "training FLOPs", "training seconds"]
    lines = [line for line in panels[0].lines if line.get_linewidth() > 1]
    means = next(line for line in lines if line.get_color() == curve_plots.COLORS[0])
    assert list(means.get_xdata()) == [640 * (i + 1) for i in range(5)]
    assert list(means.get_ydata()) == pytest.approx([100 / (i + 1) + 0.5 for i in range(5)])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


def test_a_logarithmic_axis_has_plain_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not mathtext, which plots do not read: names could be taken for it."""
    kept: list[Any] = []
    monkeypatch.setattr(curve_plots, "save", lambda figure, *_: kept.append(figure) or [])
    for top in (40.0, 40_000.0):
        write(tmp_path / "run" / "metrics.csv", HEAD + "9,640,1e9,1,1.2,1\n" + f"19,1280,2e9,2,{top},1\n")
        curve_plots.curve_plots([("a", [read_logged(tmp_path / "run")])], tmp_path)
        kept[-1].canvas.draw()
        axis = kept[-1].axes[0].yaxis
        low, high = sorted(axis.get_view_interval())
        shown = [label.get_text() for label in axis.get_ticklabels() if low <= label.get_position()[1] <= high]
        assert len(shown) > 2
        assert all(text.replace(".", "").removesuffix(" k").isdigit() for text in shown)


def test_the_front() -> None:
    points = {0: (1.0, 5.0), 1: (2.0, 3.0), 2: (2.0, 4.0), 3: (3.0, 3.0), 4: (9.0, 1.0), 5: (1.0, 5.0)}
    assert pareto(points) == {0, 1, 4, 5}


def searched(folder: Path, name: str = "model.optimizer.lr") -> Path:
    """The metric is a matter of the rate, a little of the width, and not at all of the choice."""
    draw = random.Random(0)
    trials = []
    for i in range(24):
        rate, width = 10 ** draw.uniform(-5, -2), draw.choice([8, 16, 32])
        overrides = ["model=gan", f"{name}={rate!r}", f"width={width}", f"choice={draw.choice(['a', 'b'])}"]
        trials.append(trial(i, *overrides, value=abs(rate - 1e-3) * 1000 + width / 100))
    return ledger(folder, *trials, trial(24, "width=64", state="failed"))


def test_importance_finds_what_matters(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    sweep = read_sweep(searched(tmp_path))
    assert sweep is not None
    trials = [t for t in sweep.trials if t.state == "finished"]
    settings = settings_of(trials)
    assert [setting.name for setting in settings] == ["model.optimizer.lr", "width", "choice"]
    assert [setting.is_log for setting in settings] == [True, False, False]
    shares = importance(settings, [t.value for t in trials if t.value is not None])
    means = {name: sum(values) / len(values) for name, values in shares.items()}
    assert means["model.optimizer.lr"] > 0.7
    assert means["choice"] < 0.15
    told = what_mattered(sweep)
    assert [share.name for share in told] == sorted(means, key=means.__getitem__, reverse=True)
    assert told[0].mean == pytest.approx(means["model.optimizer.lr"])


def test_a_sweep_is_drawn_and_a_short_one_is_not(tmp_path: Path) -> None:
    sweep = read_sweep(searched(tmp_path / "search"))
    assert sweep is not None
    written = search_plots.search_plots(sweep, tmp_path / "plots")
    assert written == ["importance-search.svg", "importance-search.png", "trials-search.svg", "trials-search.png"]
    short = read_sweep(ledger(tmp_path / "short", *(trial(i, f"lr={i}", value=i / 2) for i in range(5))))
    assert short is not None
    assert search_plots.search_plots(short, tmp_path / "plots") == []
    assert what_mattered(short) == ()


def test_lines_through_settings_pass_where_they_should() -> None:
    xs, ys = search_plots.smooth([0.0, 1.0, 0.25])
    assert [ys[xs.index(place)] for place in (0, 1, 2)] == [0.0, 1.0, 0.25]
    assert ys[xs.index(0.5)] == pytest.approx(0.5)


def test_no_name_breaks_a_plot(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    for i, name in enumerate(HOSTILE):
        network = {"_target_": "genlab.model.network.unet.UNet", "note": name}
        costs = {"evaluations_per_sample": i + 1}
        made = make_run(tmp_path / "s" / str(i), {"fid_digits64_1k": 1.0 + i}, costs=costs, model__network=network)
        write(made / "metrics.csv", rows(i))
    searched(tmp_path / "s", name="$_^{日本}</svg>")
    compare([str(tmp_path / "s")], out=str(tmp_path / "c"))
    drawn = sorted((tmp_path / "c" / "plots").glob("*.svg"))
    assert [path.name for path in drawn] == ["curve-fid_digits64_500.svg", "importance-s.svg", "pareto-fid.svg",
                                             "trials-s.svg"]  # fmt: skip
    for path in drawn:
        assert "script" not in {
            element.tag.rpartition("}")[2] for element in ElementTree.fromstring(path.read_bytes()).iter()
        }
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


def test_curves_of_what_has_not_finished_are_drawn_too(tmp_path: Path) -> None:
    going = make_run(tmp_path / "a", finished=False, color=None)
    write(going / "metrics.csv", rows(0))
    compare([str(going)], out=str(tmp_path / "c"))
    assert sorted(path.name for path in (tmp_path / "c" / "plots").iterdir()) == [
        "curve-fid_digits64_500.png", "curve-fid_digits64_500.svg"
    ]  # fmt: skip
    assert "plots/curve-fid_digits64_500.svg" in (tmp_path / "c" / "comparison.md").read_text()


def test_a_curve_between_its_points_is_straight() -> None:
    drawn = random.Random(0)
    xs = sorted(drawn.sample(range(1000), 40))
    curve = [(float(x), drawn.random()) for x in xs]
    for x in (*xs, *(drawn.uniform(xs[0], xs[-1]) for _ in range(50))):
        assert curve_plots.value(curve, x) == pytest.approx(np.interp(x, xs, [y for _, y in curve]))


def test_of_a_thousand_metrics_a_hundred_have_a_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(curve_plots, "_figure", lambda metric, *_: drawn.append(metric) or [])
    names = [f"val/{word}" for i in range(950) for word in (f"m{i}", f"m_std_{i}")]
    lines = (["step", *names], [0, *[1] * 1900], [1, *[2] * 1900])
    table = "".join(",".join(map(str, line)) + "\n" for line in lines)
    write(make_run(tmp_path / "a", color=None) / "metrics.csv", table)
    with pytest.warns(UserWarning, match="curves of 100 metrics are drawn, of 950"):
        curve_plots.curve_plots([("a", [read_logged(tmp_path / "a")])], tmp_path / "c")
    assert drawn == [f"m{i}" for i in range(100)]

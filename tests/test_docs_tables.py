"""What README and docs say of measured runs is what the records of those runs say."""

import csv
import importlib.util
import json
import re
import statistics
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from scipy import stats

REPOSITORY = Path(__file__).parents[1]
# Tables with numbers that no record of runs holds: of what, and what holds them instead.
NOT_OF_RUNS = {
    "docs/text_to_image.md": "test_pages_have_the_numbers_of_their_record",
    "docs/clip.md": "test_the_page_of_the_contrastive_judge_has_the_numbers_of_its_record",
    "docs/preferences.md": "printed by scripts/preferences.sh",
    "docs/rlhf.md": "printed by scripts/loop_example.sh",
    "docs/transfer.md": "test_pages_have_the_numbers_of_their_record",
    "docs/recipes.md": "tests/test_recipes.py",
    "docs/reliability.md": "printed by make faults and scripts/benchmark.py",
    "docs/report.md": "printed by scripts/benchmark_report.py",
    "docs/metrics.md": "printed by scripts/benchmark_columns.py and scripts/benchmark.py",
    "docs/stylegan2.md": "tests/test_presets.py, of settings",
    "docs/sweeps.md": "tests/sweep/test_pruning.py, of the curves that are replayed",
}


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look
    sys.path.insert(0, str(REPOSITORY / "scripts"))  # as of a script that is run
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(REPOSITORY / "scripts"))
    return module


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    return script("docs_tables")


def test_writing_the_pages_anew_changes_nothing(tables: ModuleType) -> None:
    marked = 0
    for path in tables.pages():
        text = path.read_text(encoding="utf-8")
        assert tables.rewritten(text, path.name) == text, "run `python scripts/docs_tables.py`"
        marked += text.count("<!-- table:") + text.count("<!-- numbers:")
    assert marked > 10


def test_a_number_that_the_runs_do_not_have_is_found_and_mended(tables: ModuleType) -> None:
    gan = [run["metrics"]["fid_digits64_1k"] for run in runs("digits", "gan")]
    said = (
        "<!-- numbers: digits gan.fid - gan.fid.half -->\nOf `x=0.5`, a FID of 0.80, not 7.5,\nand ±0.9.\n\nAnd 0.80.\n"
    )
    half = stats.t.ppf(0.975, len(gan) - 1) * np.std(gan, ddof=1) / np.sqrt(len(gan))
    expected = f"\nOf `x=0.5`, a FID of {statistics.fmean(gan):.2f}, not 7.5,\nand ±{half:.1f}.\n\nAnd 0.80.\n"
    assert tables.rewritten(said, "page").endswith(expected)
    for wrong in (said.replace("- gan", "gan"), said.replace("gan.fid -", "gan.fid - -"), said.replace("gan.", "gnu.")):
        with pytest.raises(ValueError, match="page: "):
            tables.rewritten(wrong, "page")
    with pytest.raises(ValueError, match="there is no table 'digit'"):
        tables.rewritten("<!-- table: digit -->\n<!-- end -->\n", "page")
    with pytest.raises(ValueError, match="has no end"):
        tables.rewritten("<!-- table: digits -->\n", "page")


def runs(name: str, row: str) -> list[dict]:
    """Of a record, and of the one with rows that its table got later."""
    paths = [REPOSITORY / f"docs/measured/{part}.json" for part in (name, f"{name}_gans")]
    contents = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
    return [run for content in contents for run in content["runs"] if run["row"] == row]


def test_a_table_holds_means_over_seeds_and_intervals_and_never_the_best(tables: ModuleType) -> None:
    for line in tables.TABLES["digits"]():
        row = next((row for row, label in tables.DIGITS.items() if line.startswith(f"| {label} |")), None)
        values = [run["metrics"]["fid_digits64_1k"] for run in runs("digits", row)] if row else []
        if values:
            half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
            assert f"{statistics.fmean(values):.2f} ±{half:.2f}" in line.split("|")[2]
    one_seed = "\n".join(tables.TABLES["digits one seed"]())
    assert "±" not in one_seed
    assert "**" not in one_seed  # a single seed is not called the best
    assert not re.search(r"\*\*[^|]*(bound|exact|estimate)", "\n".join(tables.TABLES["digits"]()))  # unlike kinds


@pytest.mark.parametrize("name", ["digits", "cifar10"])
def test_a_record_and_the_comparison_beside_it_are_of_the_same_runs(name: str) -> None:
    with (REPOSITORY / f"docs/reports/{name}/comparison.csv").open(newline="", encoding="utf-8") as file:
        compared = {row["folder"]: row for row in csv.DictReader(file) if row["kind"] == "run"}
    content = json.loads((REPOSITORY / f"docs/measured/{name}.json").read_text(encoding="utf-8"))
    assert len(content["runs"]) == len(compared)
    values = sorted((run["seed"], run["costs"]["examples"], round(fid(run["metrics"]), 4)) for run in content["runs"])
    others = [(int(row["seed"]), int(float(row["examples"])), round(fid(row), 4)) for row in compared.values()]
    assert values == sorted(others)


def fid(row: dict) -> float:
    (value,) = (float(value) for name, value in row.items() if re.fullmatch(r"fid_\w+_1k", name))
    return float(f"{value:.6g}")


def test_a_record_of_another_machine_is_shown_and_says_what_stands_in_the_way(
    tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a step of 100 ms, by the share that the aim allows: what the floor, a kind, and the rest leave of it."""

    def row(work: str, ratio: float, floor: float, **kinds: float) -> dict:
        shares = {"products and convolutions": kinds["products"], "Python and dispatch": kinds["python"]}
        return {"part": "gpt", "work": work, "peer": "loop", "unit": "ms", "ours": 100.0, "theirs": 100 * ratio,
                "ratio": {"median": ratio, "low": ratio, "high": ratio}, "aim": 1.25, "floor": floor,
                "facts": {"profile": shares}}  # fmt: skip

    rows = [
        row("by floor", 1.0, 81, products=0.9, python=0.1),
        row("by kind", 1.0, 60, products=0.9, python=0.1),
        row("by rest", 1.0, 60, products=0.7, python=0.3),
        row("met", 1.5, 60, products=0.7, python=0.3),
    ]
    late = {"part": "overhead", "work": "late", "peer": "loop", "unit": "us", "ours": 400.0, "theirs": 100.0,
            "ratio": {"median": 0.25, "low": 0.2, "high": 0.3}, "at_most": 100,
            "facts": {"profile": {"optimizer": -0.2, "Python and dispatch": 1.2}}}  # fmt: skip
    bare = {key: value for key, value in late.items() if key not in ("at_most", "facts")}
    content = {"machine": "a machine, avx9", "rows": [*rows, late, bare], "skipped": []}
    (tmp_path / "benchmarks_other.json").write_text(json.dumps(content))
    docs = tables.docs_benchmarks
    monkeypatch.setattr(docs, "RECORD", tmp_path / "benchmarks_other.json")
    monkeypatch.setattr(docs, "MEASURED", tmp_path)
    shown = docs.other_machines()
    assert shown[0] == "On a machine, avx9:"
    assert "| by floor | loop | 1.00 (1.00 to 1.00) | 1.25 | 81% |" in shown
    assert "| late | loop | 0.25 (0.20 to 0.30) | 100 us | |" in shown
    monkeypatch.setattr(docs, "elsewhere", lambda: [])
    table = docs.where_the_time_goes()
    assert table[2].endswith("| may take | floor | products and convolutions | optimizer | Python and dispatch |")
    assert "| by rest | loop | 1.00 | 1.25 | 80% | 60% | 70% | 0 | 30% |" in table
    assert "| late | loop | 0.25 | 100 us | 25% | | 0 | −20% | 120% |" in table
    assert len(table) == 4 + len(rows) + 1
    told = [line.removesuffix(".") for line in docs.in_the_way()]
    assert len(told) == 2 + 4  # all but the one that is met
    assert told[2].endswith("of the step, of which the arithmetic alone, at the rate of a plain product, is 81%")
    assert told[3].endswith("allows 80% of the step, and products and convolutions alone take 90%")
    assert told[4].endswith("take 70%, the rest (Python and dispatch 30%) may take 33% of its time")
    assert told[5].endswith("allows 25% of the step, and Python and dispatch alone take 120%")


def test_kinds_of_time_are_those_of_the_benchmark(tables: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    from benchmarks.time_by_kind import KINDS

    assert tables.docs_benchmarks.KINDS == KINDS


def test_what_is_told_apart_is_so_by_the_test_of_welch_corrected_by_holm(tables: ModuleType) -> None:
    named = {label: [fid(run["metrics"]) for run in runs("digits", row)] for row, label in tables.DIGITS.items()}
    pairs = [pair for pair in combinations(named, 2) if all(named[label] for label in pair)]
    chances = {pair: stats.ttest_ind(*map(named.get, pair), equal_var=False).pvalue for pair in pairs}
    apart, corrected = set(), 0.0
    for number, (pair, chance) in enumerate(sorted(chances.items(), key=lambda item: item[1])):
        corrected = max(corrected, (len(pairs) - number) * chance)
        apart |= {pair} if corrected <= 0.05 else set()
    (said,) = tables.TABLES["digits told apart"]()
    assert said.startswith(f"Of the {len(pairs)} pairs, corrected for all of them, {len(apart)} are told apart")
    for part in re.sub(r" \(p = [^)]*\)", "", said.partition("level 0.05: ")[2]).split("; "):
        high, _, low = part.partition(" above ")
        for label in sorted(named, key=len, reverse=True):  # of two that begin alike the longer one first
            if label in low:
                low = low.replace(label, "")
                assert statistics.fmean(named[high]) > statistics.fmean(named[label])
                apart.remove((high, label) if (high, label) in apart else (label, high))
    assert not apart


def test_every_table_of_measured_numbers_is_made_from_a_record(tables: ModuleType) -> None:
    """A row of numbers that nothing holds is a number that nobody can check."""
    for path in tables.pages():
        page = str(path.relative_to(REPOSITORY))
        text = re.sub(r"<!-- table: .*?<!-- end -->", "", path.read_text(encoding="utf-8"), flags=re.S)
        by_hand = [line for line in text.splitlines() if re.match(r"\|.*\|\s*\**[−-]?\d[\d,]*\.\d+", line)]
        if page == "README.md":  # that of the default run
            by_hand = [line for line in by_hand if "default run" not in text[: text.index(line)][-2500:]]
        assert not by_hand or page in NOT_OF_RUNS, f"{page}: {by_hand[0]}"


def test_the_intervals_that_docs_speak_of_are_those_of_the_benchmark() -> None:
    benchmark = script("benchmark_intervals")
    told = json.loads(benchmark.RECORD.read_text(encoding="utf-8"))
    assert told["sigma"] == benchmark.SIGMA
    assert f"standard deviation of {benchmark.SIGMA}" in (REPOSITORY / "docs/comparison.md").read_text().replace(
        "\n", " "
    )
    rng = np.random.default_rng(1)
    for seeds, row in told["coverage"].items():
        for kind, mean in benchmark.MEANS.items():
            again = benchmark.student(benchmark.DRAWS[kind](rng, (20_000, int(seeds))), mean)
            assert again == pytest.approx(row[f"t, {kind}"], abs=0.02)  # 4 standard errors of 4,000 sets
        a, b = (benchmark.LOG_NORMAL(rng, (20_000, int(seeds))) for _ in range(2))
        assert benchmark.welch(a, b) == pytest.approx(row["Welch, a difference, log-normal"], abs=0.012)
    assert benchmark.bootstrap(np.array([[1.0, 1.0], [0.0, 2.0]]), 1.0, rng) == 1.0
    assert benchmark.bootstrap(np.array([[2.0, 3.0]]), 1.0, rng) == 0.0


def test_a_record_keeps_what_its_runs_were(tmp_path: Path) -> None:
    record = script("record_runs")
    for seed in (1, 0):
        folder = tmp_path / "runs" / "gan" / f"trial{seed}"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(
            f"seed: {seed}\nmodel: {{_target_: m.GAN}}\ndata: {{_target_: d.Digits}}\n"
            "budget: {_target_: genlab.budget.Examples, value: 500}\n"
        )
        (folder / "overrides.yaml").write_text(f"- model=gan\n- model.part=/home/me/parts/codes\n- seed={seed}\n")
        summary = {
            "metrics": {"fid_digits64_1k": 1.23456789 + seed},
            "protocol": {"metrics": {"fid": {}}},
            "protocol_id": "abc",
            "ids": {"fid_digits64_1k": "def"},
            "examples": 512,
            "seconds": 3.5,
        }
        (folder / "summary.json").write_text(json.dumps(summary))
        later = summary | {
            "metrics": {"bits_per_dim_bound_val_100": 0.5},
            "ids": {"bits_per_dim_bound_val_100": "ghi"},
            "baselines": {"floor": {"fid_digits64_1k": 0.76}},
        }
        (folder / "evaluation-abc.json").write_text(json.dumps(later))
        told = later | {"metrics": {"fid_digits64_1k": 9.0}, "changed": {"model.guidance.strength": 4}}
        (folder / "evaluation-abc-1.json").write_text(json.dumps(told))
        captions = {"metrics": {"fid": {}}, "captions": "of the next example"}
        control = later | {"metrics": {"fid_digits64_1k": 11.0}, "protocol": captions, "protocol_id": "xyz"}
        (folder / "evaluation-xyz.json").write_text(json.dumps(control))
        (folder / "metrics.csv").write_text(
            "progress/examples,train/loss,val/fid_digits64_500,val/fid_digits64_1k\n256.0,1.5,,\n256.0,,7.0000001,\n512.0,,,1.25\n"
        )
    content = json.loads(record.text(record.record(record.read_runs([str(tmp_path)]), "two runs", None)))
    assert [(run["row"], run["seed"]) for run in content["runs"]] == [("gan", 0), ("gan", 1)]
    first = content["runs"][0]
    assert first["metrics"] == {"fid_digits64_1k": 1.23457, "bits_per_dim_bound_val_100": 0.5}
    assert first["ids"] == {"fid_digits64_1k": "def", "bits_per_dim_bound_val_100": "ghi"}
    assert first["budget"] == {"examples": 500}
    assert first["overrides"] == ["model=gan", "model.part=.../parts/codes", "seed=0"]
    assert first["costs"] == {"examples": 512, "seconds": 3.5}
    assert content["baselines"] == {"floor": {"fid_digits64_1k": 0.76}}
    assert first["others"] == [
        {"changed": {"model.guidance.strength": 4}, "shuffled": False, "metrics": {"fid_digits64_1k": 9}},
        {"changed": {}, "shuffled": True, "metrics": {"fid_digits64_1k": 11}},
    ]
    runs = record.read_runs([str(tmp_path)])
    curves = [run["curve"] for run in record.record(runs, "two runs", None, "fid_digits64")["runs"]]
    assert curves == [[(256, 7), (512, 1.25)]] * 2
    with pytest.raises(SystemExit, match="has no column val/kid"):
        record.record(runs, "", None, "kid")
    found = record.read_runs([str(tmp_path / "runs/gan/trial0")])
    with pytest.raises(SystemExit, match="a run of row same and seed 0 already"):
        record.record(found * 2, "", "same")
    (tmp_path / "runs/gan/trial0/summary.json").unlink()
    with pytest.raises(SystemExit, match="has not finished"):
        record.record(record.read_runs([str(tmp_path)]), "", None)


def test_the_script_of_the_families_names_each_row_that_the_tables_have(tables: ModuleType) -> None:
    path = REPOSITORY / "scripts" / "families.sh"
    assert subprocess.run(["bash", "-n", path]).returncode == 0
    named = re.findall(r"^    (\w+)\) +echo \d+ model=", path.read_text(), re.M)
    assert named == [row for row in named if row in tables.DIGITS]
    assert set(named) == set(tables.DIGITS)


def test_the_script_of_captions_names_each_row_that_the_tables_have(tables: ModuleType) -> None:
    path = REPOSITORY / "scripts" / "captions.sh"
    assert subprocess.run(["bash", "-n", path]).returncode == 0
    named = re.findall(r"^    (\w+)\) +echo \d+ model=", path.read_text(), re.M)
    assert sorted(named) == sorted(tables.docs_captions.FAMILIES)


def test_the_script_of_representations_names_each_row_that_the_table_has() -> None:
    path = REPOSITORY / "scripts" / "representations.sh"
    named = [
        name
        for case in re.findall(r"^    ([\w |]+)\)(?: +echo|$)", path.read_text(), re.M)
        for name in case.split(" | ")
    ]
    assert sorted(named) == sorted(script("docs_representations").METHODS)
    for other in ("representations", "transfer_labels"):
        assert subprocess.run(["bash", "-n", REPOSITORY / "scripts" / f"{other}.sh"]).returncode == 0


def test_representations_are_means_over_seeds_the_best_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = script("docs_representations")
    monkeypatch.setattr(module, "RECORD", tmp_path / "record.json")
    costs = {"parameters": 2_500_000, "examples": 1_600, "flops": 3e12}
    runs = [
        {"row": row, "seed": seed, "metrics": dict.fromkeys(module.PROBES, value + seed / 100), "costs": costs}
        for row, value in (("vae", 0.3), ("byol", 0.4))
        for seed in range(3)
    ]
    needs_none = {name: dict.fromkeys(module.PROBES, 0.25) for name in module.BASELINES}
    module.RECORD.write_text(json.dumps({"runs": runs, "baselines": needs_none}))
    lines = module.representations()[2:]
    half = stats.t.ppf(0.975, 2) / np.sqrt(3)  # of 0, 1 and 2 percent, whose deviation is 1
    assert lines[0].startswith(f"| `self_distillation`, `byol` | 41.0 ±{half:.1f} |")
    assert lines[1] == row_of("`vae`", *[f"31.0 ±{half:.1f}"] * 4, "2.50 M", "2 k", "3.0")
    assert lines[2] == "| pixels | 25.0 | 25.0 | 25.0 | 25.0 | | | |"
    assert len(lines) == 5


def row_of(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def test_components_are_those_of_scikit_learn() -> None:
    """But for their signs, also of rows that they were not fitted to."""
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(0)
    x, others = (rng.normal(3, 1, (count, 6)) * np.arange(1, 7) for count in (40, 5))
    expected = PCA(3).fit(x).transform(others)
    found = script("docs_representations").components(torch.from_numpy(x), 3)(torch.from_numpy(others)).numpy()
    np.testing.assert_allclose(np.abs(found), np.abs(expected), rtol=1e-6)


def test_captions_are_scored_at_the_best_guidance_of_samples_drawn_alike(
    tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions = tables.docs_captions

    def scores(all_of_it: float) -> dict[str, float]:
        return {f"{part}_500": all_of_it for part in captions.PARTS}

    def other(all_of_it: float, shuffled: bool = False, **changed: float | None) -> dict[str, object]:
        paths = {"temperature": "model.sampler.temperature", "strength": "model.guidance.strength"}
        named = {paths[name]: value for name, value in changed.items()}
        return {"changed": named, "shuffled": shuffled, "metrics": scores(all_of_it)}

    codes = {
        "row": "transformer_codes",
        "overrides": ["model=transformer", "model.guidance=2"],
        "metrics": scores(0.9),  # of samples at a temperature of 1, which are left out
        "curve": [[100, 0.1], [200, 0.2], [400, 0.4]],
        "others": [
            other(0.5, temperature=0.7),
            other(0.75, temperature=0.7, strength=4),
            other(0.25, temperature=0.7, strength=None),
            other(0.0625, shuffled=True, temperature=0.7),
        ],
    }
    gan = {"row": "gan", "overrides": ["model=gan"], "metrics": scores(0.3), "curve": [[100, 0.3]]}
    gan["others"] = [other(0.03125, shuffled=True)]
    (tmp_path / "captions.json").write_text(json.dumps({"runs": [gan, codes]}))
    monkeypatch.setattr(captions, "MEASURED", tmp_path)
    first, second = captions.families()[2:]
    assert first == f"| transformer of codes | 4 |{' 0.750 |' * 8} 0.062 |"
    assert second == f"| GAN (DCGAN) | – |{' 0.300 |' * 8} 0.031 |"
    assert captions.guidance()[2:] == [
        "| 1 | 0.250, 0.250 |",
        "| 2 | 0.500, 0.500 |",
        "| 4 | 0.750, 0.750 |",
        "| 8 | – |",
    ]
    assert captions.budget()[2:] == [
        "| transformer of codes | – | – | 0.200 | – | – | 0.400 |",
        "| GAN (DCGAN) | – | – | – | – | – | 0.300 |",
    ]


@pytest.mark.parametrize(("page", "digits"), [("text_to_image", 3), ("transfer", 2)])
def test_pages_have_the_numbers_of_their_record(page: str, digits: int) -> None:
    """Means over three seeds, and half their 95 % intervals: t = 4.303."""
    rows = json.loads((REPOSITORY / "docs/measured/pages.json").read_text(encoding="utf-8"))[page]
    text = (REPOSITORY / f"docs/{page}.md").read_text(encoding="utf-8")
    for seeds in rows.values():
        assert len(seeds) == 3
        cells = [
            f"{statistics.mean(drawn):.{digits}f} ±{4.303 * statistics.stdev(drawn) / 3**0.5:.{digits}f}"
            for drawn in zip(*seeds.values(), strict=True)
        ]
        assert f"| {' | '.join(cells)} |" in text


def test_tables_of_transfer_are_of_what_was_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transfer = script("docs_transfer")
    monkeypatch.setattr(transfer, "MEASURED", tmp_path)
    monkeypatch.setattr(transfer, "PLOTS", {"labels": {}, "gan": {}})
    beginnings = ("random weights,0.5,0.0123,,,", "ssl,0.6,,0.1,0.02,0.03", "shuffled,0.45,0.01,-0.05,0.04,0.2")
    lines = [
        "task,num_train,begins_with,accuracy_val,half_width,gain,gain_half_width,p",
        *(f"c,250,{each}" for each in beginnings),
    ]
    (tmp_path / "transfer.csv").write_text("\n".join(lines))
    run = tmp_path / "runs" / "scratch" / "0"
    run.mkdir(parents=True)
    (run / "versions.json").write_text('{"hardware": {"cpu": "x", "cores": 2}, "revision": "r"}')
    transfer.record("labels", tmp_path, tmp_path / "runs")
    assert transfer.labels() == [
        "| begins with | 1 % of the labels |",
        "|---|---:|",
        "| random weights | 50.0 ±1.2 |",
        "| SimCLR of the other five classes | 60.0 (+10.0 ±2.0) |",
        "| the control | 45.0 ±1.0 (−5.0 ±4.0) |",
    ]
    for name, fids in (("scratch", (9, 5, 2)), ("digits", (2.5, 2, 1)), ("shuffled", (9, 8, 7))):
        folder = tmp_path / "runs" / name / "0"
        folder.mkdir(parents=True, exist_ok=True)
        rows = "".join(f"{100 * (i + 1)},{fid}\n" for i, fid in enumerate(fids))
        (folder / "metrics.csv").write_text(f"progress/examples,val/fid_digits64_500\n50,\n{rows}")
    transfer.record("gan", tmp_path, tmp_path / "runs")
    assert transfer.samples("gan")[2:] == [
        "| random weights | 9.00 | 2.00 | 2.00 | 267 |",  # from 5 to 2, at 3
        "| the digits 0 to 4 | 2.50 | 1.00 | 1.00 | 100 |",
        "| the control | 9.00 | 7.00 | 7.00 | more |",
    ]


def test_the_page_of_the_contrastive_judge_has_the_numbers_of_its_record() -> None:
    record = json.loads((REPOSITORY / "docs/measured/pages.json").read_text(encoding="utf-8"))["clip"]
    text = (REPOSITORY / "docs/clip.md").read_text(encoding="utf-8")
    for name, (found, chance) in record["retrieval"].items():
        cells = [*(f"{share:.3f}" for share in found), ", ".join(f"{share:.3f}" for share in chance)]
        assert f"| {name} | {' | '.join(cells)} |" in text
    for score, recall in record["scores"].values():
        assert f" | {score:.1f} | {recall:.3f} |" in text

"""From run folders to tables: exact lines, exact numbers, and nothing unequal in one column."""

import csv
import json
from pathlib import Path

import pytest
from run_folders import BASELINES, COSTS, PROTOCOL, add_evaluation, make_run, write

from genlab.errors import ConfigError
from genlab.report.comparison import compare

ALONE = ("one seed each: which differences are more than luck cannot be told; several can: "
         "genlab train -m ... seed=0,1,2")  # fmt: skip
DIT = {"_target_": "genlab.model.network.dit.DiT", "depth": 6}


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    monkeypatch.setattr("genlab.report.plots.draw", lambda *_: [])  # seconds each; they have tests of their own


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    return tmp_path / "outputs"


def pair(outputs: Path) -> tuple[Path, Path]:
    """A U-Net, and a DiT of less quality that is cheaper."""
    unet = make_run(outputs / "diffusion-digits" / "20260101-000000-aaaaaa")
    worse = {"fid_digits64_1k": 2.5, "kid_digits64_1k": 0.02, "precision_digits64_1k": 0.8, "nn_distance_ratio_1k": 0.5}
    cheaper = {"parameters": 400_000, "seconds": 90.5, "flops": 1e12, "peak_memory_bytes": 5e8}
    dit = make_run(outputs / "diffusion-digits" / "20260101-000001-bbbbbb", worse, costs=cheaper, model__network=DIT)
    return unet, dit


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "comparison.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def refusal(*places: object, **options: object) -> str:
    with pytest.raises(ConfigError) as refused:
        compare([str(place) for place in places], **options)  # type: ignore[arg-type]
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_the_table(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unet, dit = pair(outputs)
    add_evaluation(dit, {"fid_digits64_1k": 2.5, "kid_digits64_1k": 0.02, "precision_digits64_1k": 0.8,
                         "nn_distance_ratio_1k": 0.5, "bits_per_dim_exact_val_50": 1.5103},
                   baselines=BASELINES)  # fmt: skip
    compare([str(outputs)], out=str(outputs / "c"))
    assert (
        capsys.readouterr().out
        == f"""\
1000 samples against 500 images (val), features digits64, seed 0

                               fid ↓        kid ↓  precision ↑  nn_distance_ratio →1    bits/dim ↓  parameters  \
training  examples  training   memory     samples
                         digits64_1k  digits64_1k  digits64_1k                    1k  exact val_50           k   \
seconds         k     TFLOP       MB  per second
diffusion network=unet       1.250 ◂     0.0100 ◂     0.7500                 1.100 ◂             –     827.7     \
152.3       64.00   2.000    852.7         80.30
diffusion network=dit        2.500       0.0200       0.8000 ◂               0.500           1.510     400.0 ◂    \
90.5 ◂     64.00   1.000 ◂  500.0 ◂       80.30

baseline: floor              0.760      -0.0100       0.9200                 0.000
baseline: uniform_noise    185.750      39.3450       0.0000                 8.230

Runs:
  diffusion network=unet: {unet}
  diffusion network=dit: {dit}

Notes:
  {ALONE}

written: {outputs}/c/comparison.md, comparison.csv, comparison.tex, comparison.png
the page: {outputs}/c/report.html
"""
    )


def test_markdown(outputs: Path) -> None:
    unet, dit = pair(outputs)
    compare([str(outputs)], out=str(outputs / "c"), sort="seconds")
    assert (
        (outputs / "c" / "comparison.md").read_text()
        == f"""\
# Comparison

1000 samples against 500 images (val), features digits64, seed 0

| run | fid ↓ digits64_1k | kid ↓ digits64_1k | precision ↑ digits64_1k | nn_distance_ratio →1 1k | parameters k | \
training seconds | examples k | training TFLOP | memory MB | samples per second |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| diffusion network=dit | 2.500 | 0.0200 | **0.8000** | 0.500 | **400.0** | **90.5** | 64.00 | **1.000** | **500.0** | \
80.30 |
| diffusion network=unet | **1.250** | **0.0100** | 0.7500 | **1.100** | 827.7 | 152.3 | 64.00 | 2.000 | 852.7 | 80.30 |

![Samples](comparison.png)

## Runs

* diffusion network=dit: {dit}
* diffusion network=unet: {unet}

## Notes

* {ALONE}
"""
    )


def test_csv_has_all_digits(outputs: Path) -> None:
    unet, dit = pair(outputs)
    add_evaluation(unet, {"bits_per_dim_bound_val_50": 1.23456789}, baselines=BASELINES)
    compare([str(unet), str(dit)], out=str(outputs / "c"))
    assert (outputs / "c" / "comparison.csv").read_text() == (
        "name,kind,fid_digits64_1k,kid_digits64_1k,precision_digits64_1k,nn_distance_ratio_1k,bits_per_dim_bound_val_50,"
        "parameters,seconds,examples,flops,peak_memory_bytes,samples_per_second,best,not_told_apart,apart_if_normal,"
        "seed,protocol_id,measured_otherwise,settings,folder\n"
        "diffusion network=unet,run,1.25,0.01,0.75,1.1,1.23456789,827745,152.26,64000,2000000000000.0,852664320,80.3,"
        f"fid_digits64_1k kid_digits64_1k nn_distance_ratio_1k,,,0,aaaa1111,,model.network=unet,{unet}\n"
        "diffusion network=dit,run,2.5,0.02,0.8,0.5,,400000,90.5,64000,1000000000000.0,500000000.0,80.3,"
        f"precision_digits64_1k parameters seconds flops peak_memory_bytes,,,0,aaaa1111,,model.network=dit,{dit}\n"
        "floor,baseline,0.76,-0.01,0.92,0.0,,,,,,,,,,,,aaaa1111,,,\n"
        "uniform_noise,baseline,185.75,39.345,0.0,8.23,,,,,,,,,,,,aaaa1111,,,\n"
    )


def test_a_narrow_terminal_gets_blocks_that_fit(
    outputs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    unet, _ = pair(outputs)
    add_evaluation(unet, baselines=BASELINES)
    monkeypatch.setenv("COLUMNS", "80")
    compare([str(outputs)], out=str(outputs / "c"))
    table = capsys.readouterr().out.split("\nRuns:")[0].splitlines()
    assert max(map(len, table)) <= 80
    assert sum(line.startswith("diffusion network=unet") for line in table) == 3
    assert sum(line.startswith("baseline: floor") for line in table) == 2  # not where it has no number
    for title in ("fid ↓", "kid ↓", "precision ↑", "nn_distance_ratio →1", "parameters", "samples"):
        assert sum(title in line for line in table) == (2 if title == "samples" else 1)  # "1000 samples" in the head


@pytest.mark.parametrize(
    ("sort", "first"),
    [
        (None, "unet"),
        ("fid", "unet"),
        ("fid_digits64_1k", "unet"),
        ("precision", "dit"),  # higher is better
        ("nn_distance_ratio", "unet"),  # 1.1 is nearer to 1 than 0.5
        ("parameters", "dit"),
        ("peak_memory_bytes", "dit"),
    ],
)
def test_best_first(outputs: Path, sort: str | None, first: str) -> None:
    pair(outputs)
    compare([str(outputs)], out=str(outputs / "c"), sort=sort)
    assert rows(outputs / "c")[0]["name"] == f"diffusion network={first}"


def test_what_is_no_number_comes_last(outputs: Path) -> None:
    make_run(outputs / "a", {"fid_digits64_1k": float("nan")}, model__network=DIT)
    make_run(outputs / "b", {"fid_digits64_1k": 9.0})
    compare([str(outputs)], out=str(outputs / "c"))
    assert [row["fid_digits64_1k"] for row in rows(outputs / "c")] == ["9.0", "nan"]


def test_columns_that_cannot_be_sorted_by(outputs: Path) -> None:
    for name in "ab":
        make_run(outputs / name, {"nn_distance_1k": 0.1})
    columns = ("fid, kid, precision, nn_distance_ratio, parameters, seconds, examples, flops, peak_memory_bytes, "
               "samples_per_second")  # fmt: skip
    said = refusal(outputs, sort="fud")
    assert said == f"sort=fud: there is no such column. Did you mean 'fid'? Columns: {columns}."
    said = refusal(outputs, sort="nn_distance")
    assert said == f"sort=nn_distance: neither low nor high is better. Sort by one of: {columns}."


def test_bits_per_dimension_say_their_kind_and_their_images(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b, c = (make_run(outputs / name, data__batch_size=i + 1) for i, name in enumerate("abc"))
    add_evaluation(a, {"bits_per_dim_exact_val_50": 1.5})
    # of fewer samples, and yet the same held-out images and noise
    add_evaluation(b, {"bits_per_dim_bound_val_50": 2.5}, {"num_samples": 100}, "bbbb2222")
    add_evaluation(c, {"bits_per_dim_bound_val_500": 3.5})
    compare([str(outputs)], out=str(outputs / "x"))
    found = rows(outputs / "x")
    assert [row["bits_per_dim_val_50"] for row in found] == ["1.5", "2.5", ""]
    assert [row["bits_per_dim_bound_val_500"] for row in found] == ["", "", "3.5"]
    shown = capsys.readouterr().out
    assert "  1.500 exact " in shown
    assert "**" not in (outputs / "x" / "comparison.md").read_text()  # different kinds: nobody is best
    assert "  2.500 bound " in shown
    assert " bound val_500 " in shown


def test_runs_of_text(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Best bits/byte first; they differ in kind."""
    protocol = {"reference": "val", "reference_sha256": "39a3", "tokenizer": "65c1", "context": 64, "metrics": {}}
    for name, kind, bits in (("a", "bound", 2.5), ("b", "exact", 2.0)):
        run = make_run(outputs / name, color=None, budget__value=len(name) + int(bits))
        metrics = {f"perplexity_{kind}_val": 2**bits, f"bits_per_byte_{kind}_val": bits}
        write(run / "summary.json", {"metrics": metrics, "protocol": protocol, "protocol_id": "cccc3333", **COSTS})
    compare([str(outputs)], out=str(outputs / "c"))
    printed = capsys.readouterr().out
    assert printed.startswith("the whole held-out text (val), in windows of 64 tokens\n")
    assert [row["bits_per_byte_val"] for row in rows(outputs / "c")] == ["2.0", "2.5"]
    assert [row["perplexity_val"] for row in rows(outputs / "c")] == [str(2**2.0), str(2**2.5)]
    assert "2.500 bound" in printed
    assert "bits/byte ↓" in printed


def test_bits_per_dimension_of_another_seed_are_not_taken(outputs: Path) -> None:
    run = make_run(outputs / "a")
    add_evaluation(run, {"bits_per_dim_exact_val_50": 1.5}, {"seed": 1}, "bbbb2222")
    compare([str(outputs)], out=str(outputs / "x"))
    assert not [name for name in rows(outputs / "x")[0] if name.startswith("bits")]


def test_unequal_numbers_are_refused(outputs: Path) -> None:
    make_run(outputs / "a")
    b = make_run(outputs / "b", protocol={"num_samples": 500, "seed": 1}, protocol_id="bbbb2222", model__network=DIT)
    assert refusal(outputs) == (
        "diffusion network=dit was measured by another protocol: num_samples 500, not 1000, seed 1, not 0. "
        "Measure it again: "
        f"genlab evaluate run={b} n=1000 seed=0, or see them side by side, marked, with allow_unequal=true."
    )
    assert not list(outputs.glob("comparison*"))


def test_measuring_again_as_told_makes_them_equal(outputs: Path) -> None:
    make_run(outputs / "a")
    b = make_run(outputs / "b", protocol={"num_samples": 500}, protocol_id="bbbb2222", model__network=DIT)
    add_evaluation(b, {"fid_digits64_1k": 7.5})
    compare([str(outputs)], out=str(outputs / "c"))
    assert [row["fid_digits64_1k"] for row in rows(outputs / "c")] == ["1.25", "7.5"]


def test_an_older_run_is_measured_again_as_told(outputs: Path) -> None:
    """Its numbers do not say all that those of today do."""
    older = {key: value for key, value in PROTOCOL.items() if key != "num_reference"}
    a, b = make_run(outputs / "a"), make_run(outputs / "b", model__network=DIT)
    summary = json.loads((a / "summary.json").read_text())
    write(a / "summary.json", summary | {"protocol": older})
    said = refusal(outputs)
    assert f"does not say, it is older. Measure it again: genlab evaluate run={a}, or" in said
    add_evaluation(a, {"fid_digits64_1k": 1.25})
    compare([str(outputs)], out=str(outputs / "c"))
    assert [Path(row["folder"]) for row in rows(outputs / "c")] == [a, b]


def test_settings_of_a_metric_that_the_id_leaves_out_are_compared_too(outputs: Path) -> None:
    make_run(outputs / "a")
    other = {"metrics": {"fid": {}, "kid": {"subset_size": 100}}}
    b = make_run(outputs / "b", protocol=other, model__network=DIT)
    assert "diffusion network=dit was measured by another protocol: metrics.kid.subset_size 100, not 500." in refusal(
        outputs
    )
    assert f"run={b} metrics.kid.subset_size=500, or" in refusal(outputs)
    add_evaluation(b, {"kid_digits64_1k": 0.03})  # measured again as told
    compare([str(outputs)], out=str(outputs / "c"))
    assert [row["kid_digits64_1k"] for row in rows(outputs / "c")] == ["0.01", "0.03"]


def test_draws_of_a_likelihood_count_where_both_models_have_them(outputs: Path) -> None:
    """A VAE compares with a flow, which needs no importance samples, but not with one of other or unknown ones."""
    without = {"metrics": {"bits_per_dim": {"num_images": 50}}}
    with_draws = {"metrics": {"bits_per_dim": {"num_images": 50, "num_importance_samples": 32}}}
    flow = make_run(outputs / "flow")
    vae, older = (make_run(outputs / f"vae{i}", model__num_importance_samples=32, seed=i) for i in range(2))
    add_evaluation(flow, {"bits_per_dim_exact_val_50": 1.5}, without)
    add_evaluation(vae, {"bits_per_dim_bound_val_50": 2.5}, with_draws)
    compare([str(flow), str(vae)], out=str(outputs / "c"))
    assert [row["bits_per_dim_val_50"] for row in rows(outputs / "c")] == ["1.5", "2.5"]
    add_evaluation(older, {"bits_per_dim_bound_val_50": 2.5}, without)
    assert "num_importance_samples None, not 32" in refusal(vae, older)


@pytest.mark.parametrize("key", ["reference_sha256", "num_reference"])
def test_other_pictures_cannot_be_made_equal(outputs: Path, key: str) -> None:
    make_run(outputs / "a")
    make_run(outputs / "b", protocol={key: 7}, protocol_id="bbbb2222", model__network=DIT)
    assert f"{key} 7, not {PROTOCOL[key]}. The data are not the same: compare runs of one data set" in refusal(outputs)


def test_unequal_numbers_are_marked_if_asked_for(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(outputs / "a")
    make_run(outputs / "b", {"fid_digits64_1k": 0.5}, {"num_samples": 500}, "bbbb2222", model__network=DIT)
    compare([str(outputs)], out=str(outputs / "c"), allow_unequal=True)
    first, second = rows(outputs / "c")
    assert (first["name"], first["fid"]) == ("diffusion network=dit", "0.5")
    assert first["measured_otherwise"] == "num_samples 500, not 1000"
    assert (second["fid"], second["measured_otherwise"]) == ("1.25", "")
    shown = capsys.readouterr().out
    assert " 0.500*" in shown
    assert " 1.250 " in shown
    assert "  * diffusion network=dit was measured by another protocol: num_samples 500, not 1000\n" in shown


def test_the_protocol_of_the_most_runs_is_the_standard(outputs: Path) -> None:
    make_run(outputs / "a", protocol={"num_samples": 5000}, protocol_id="bbbb2222", model__network=DIT)
    for name in "bc":
        make_run(outputs / name)
    assert refusal(outputs).startswith(
        "diffusion network=dit was measured by another protocol: num_samples 5000, not 1000. "
    )


def test_one_protocol_of_several(outputs: Path) -> None:
    for name in "ab":
        run = make_run(outputs / name)
        add_evaluation(run, {"fid_digits64_1k": 7.0}, {"seed": 5}, "bbbb2222")
    compare([str(outputs)], out=str(outputs / "c"))
    assert [row["fid_digits64_1k"] for row in rows(outputs / "c")] == ["1.25", "1.25"]
    compare([str(outputs)], out=str(outputs / "c"), protocol="bbbb2222")
    assert [row["fid_digits64_1k"] for row in rows(outputs / "c")] == ["7.0", "7.0"]
    assert refusal(outputs, protocol="cccc3333") == (
        "protocol=cccc3333: no run has numbers of it. There are: aaaa1111, bbbb2222."
    )


def test_other_data_are_refused(outputs: Path) -> None:
    make_run(outputs / "a")
    make_run(outputs / "b", data___target_="genlab.data.cifar10.CIFAR10")
    assert refusal(outputs) == (
        "the runs have different data sets: Digits (diffusion data=digits), CIFAR10 (diffusion data=cifar10). "
        "Compare those of one, or see them side by side, marked, with allow_unequal=true."
    )


def test_unfinished_runs_are_listed_apart(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = make_run(outputs / "a")
    going = make_run(outputs / "b", finished=False)
    write(going / "metrics.csv", "step,train/loss,progress/examples\n19,0.5,1280\n39,0.4,12800\n40,0.3,\n59,0.2")
    begun = make_run(outputs / "c", finished=False)
    compare([str(outputs)], out=str(outputs / "x"))
    shown = capsys.readouterr().out
    assert f"Not finished, so not in the table:\n  {going}: 12,800 of 64,000 examples (20%)\n" in shown
    assert f"\n  {begun}: no step recorded\n" in shown
    assert [row["folder"] for row in rows(outputs / "x")] == [str(done)]
    compare([str(going), str(begun)], out=str(outputs / "y"))
    assert (
        capsys.readouterr().out
        == f"""\
no run has finished yet

Not finished, so not in the table:
  {going}: 12,800 of 64,000 examples (20%)
  {begun}: no step recorded

written: {outputs}/y/comparison.md
the page: {outputs}/y/report.html
"""
    )


def test_metrics_that_some_runs_lack_are_named_not_shown(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(outputs / "a", {"label_accuracy_1k": 0.9})
    make_run(outputs / "b")
    make_run(outputs / "c", protocol_id=None, model__network=DIT)
    compare([str(outputs)], out=str(outputs / "x"))
    shown = capsys.readouterr().out
    assert "measured of some runs only, so left out: label_accuracy\n" in shown
    assert f"diffusion network=dit has no metrics: genlab evaluate run={outputs / 'c'}\n" in shown
    last = rows(outputs / "x")[-1]
    assert (last["name"], last["fid_digits64_1k"], last["parameters"]) == ("diffusion network=dit", "", "827745")


def test_an_evaluation_of_other_weights_is_left_out(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = make_run(outputs / "a")
    add_evaluation(a, {"fid_digits64_1k": 1.28, "bits_per_dim_exact_val_50": 9.0})  # 1.25 at the end of training
    compare([str(outputs)], out=str(outputs / "x"))
    assert "evaluation-aaaa1111.json contradicts summary.json" in capsys.readouterr().out
    assert "bits_per_dim_exact_val_50" not in rows(outputs / "x")[0]


def test_unlike_machines_are_named(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(outputs / "a", gpus=("H100", "H100"))
    make_run(outputs / "c", seed=1)
    compare([str(outputs / "a"), str(outputs / "c")], out=str(outputs / "x"))
    shown = capsys.readouterr().out
    assert ("  seconds, memory and speed were measured on different hardware: 2 x H100 (diffusion seed=0); "
            "x86_64, 2 cores (diffusion seed=1)\n") in shown  # fmt: skip


def test_averaged_weights_and_others_do_not_compare(outputs: Path) -> None:
    make_run(outputs / "a")
    make_run(outputs / "b", protocol={"weights": "raw"}, seed=1)
    said = r"diffusion seed=1 was measured by another protocol: weights raw, not ema\. .* train both with callbacks"
    with pytest.raises(ConfigError, match=said):
        compare([str(outputs)], out=str(outputs / "x"), plots=False)
    make_run(outputs / "c", seed=1)
    compare([str(outputs / "a"), str(outputs / "c")], out=str(outputs / "x"), plots=False)


def test_what_did_not_fit_into_the_names_stands_with_the_folders(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dit = DIT | {"a_setting_with_a_long_name": 1, "with_a_longer_name": 2}
    a = make_run(outputs / "a", model__network=dit)
    b = make_run(outputs / "b", model__network={name: value for name, value in dit.items() if name != "depth"} | {
        "a_setting_with_a_long_name": 3, "with_a_longer_name": 4})  # fmt: skip
    compare([str(outputs)], out=str(outputs / "x"))
    shown = capsys.readouterr().out
    hidden = "model.network.depth=6, model.network.with_a_longer_name=2"
    assert f"  diffusion a_setting_with_a_long_name=1 +2 more ({hidden}): {a}\n" in shown
    hidden = "model.network.with_a_longer_name=4"
    assert f"  diffusion a_setting_with_a_long_name=3 +1 more ({hidden}): {b}\n" in shown
    with (outputs / "x" / "comparison.csv").open(newline="") as file:
        settings = {row["folder"]: row["settings"] for row in csv.DictReader(file)}
    own = ("a_setting_with_a_long_name=1", "depth=6", "with_a_longer_name=2")
    assert settings[str(a)].split() == [f"model.network.{word}" for word in own]


def test_captions_say_the_first_metric_whatever_the_order(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[str, str, Path | None]] = []
    monkeypatch.setattr("genlab.report.comparison.side_by_side", lambda tiles, path: drawn.extend(tiles))
    a = make_run(outputs / "a", costs={"seconds": 2.0})
    b = make_run(outputs / "b", protocol={"seed": 1}, costs={"seconds": 1.0}, model__network=DIT)
    compare([str(outputs)], out=str(outputs / "x"), sort="seconds", allow_unequal=True)
    newest = Path("samples") / "examples=000000064000.png"
    assert drawn == [("diffusion network=dit", "fid 1.250* (other protocol)", b / newest),
                     ("diffusion network=unet", "fid 1.250", a / newest)]  # fmt: skip
    drawn.clear()
    compare([str(a)], out=str(outputs / "x"), sort="precision")
    assert [caption for _, caption, _ in drawn] == ["precision_digits64_1k 0.7500"]


def test_the_default_place_is_beside_the_runs(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unet, dit = pair(outputs)
    monkeypatch.chdir(outputs.parent)
    compare([str(unet), str(dit)])
    (folder,) = (outputs / "diffusion-digits").glob("comparison-*")
    assert sorted(path.name for path in folder.iterdir()) == [
        "comparison.csv", "comparison.md", "comparison.png", "comparison.tex", "report.html"
    ]  # fmt: skip


def test_a_damaged_grid_is_left_out_by_name(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(outputs / "a")
    grid = run / "samples" / "examples=000000064000.png"
    grid.write_bytes(grid.read_bytes()[:40])
    compare([str(outputs)], out=str(outputs / "x"))
    assert f"  {grid} cannot be read (" in capsys.readouterr().out
    assert len(rows(outputs / "x")) == 1

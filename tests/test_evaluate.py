"""Measuring: a run again, or files of images without any model."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image

from genlab.cli import main
from genlab.cli import run as command_line
from genlab.data.digits import Digits
from genlab.errors import ConfigError
from genlab.evaluation.evaluation import Evaluation
from genlab.metrics.extractor.digits import DigitsFeatures
from genlab.metrics.fid import FID
from genlab.run import run_folder
from genlab.run.load import load_run
from genlab.sampling.examples import Examples
from tiny_run import MLP, small, train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(*MLP, outputs=tmp_path_factory.mktemp("outputs"))


def config_of(run: Path) -> DictConfig:
    return DictConfig(run_folder.read_config(run))


def test_evaluate(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["evaluate", f"run={run}", "metrics=[fid,kid]", "metrics.kid.subset_size=20", "metrics.kid.num_subsets=2",
          "n=70", "seed=5", "baselines=true"])  # fmt: skip
    out = capsys.readouterr().out
    table = [line for line in out.splitlines() if line and not line.startswith("protocol")]
    assert len({len(line) for line in table}) == 1, "the columns line up"
    assert sorted(table[0].split()) == [
        "fid_digits64_70",
        "kid_digits64_70",
        "kid_se_digits64_70",
        "kid_std_digits64_70",
    ]
    (file,) = run.glob("evaluation-*.json")
    report = json.loads(file.read_text())
    assert file.stem == f"evaluation-{report['protocol_id']}"
    assert report["protocol"]["seed"] == 5
    assert report["protocol"]["weights"] == "ema"
    assert len(report["baselines"]) == len(table) - 2
    assert report["metrics"]["fid_digits64_70"] > 0


def test_evaluate_measures_what_training_measured(tmp_path: Path) -> None:
    run = train(*MLP, "metrics=[kid]", "metrics.kid.subset_size=5", "metrics.kid.num_subsets=2",
                "evaluation.num_samples=8", outputs=tmp_path)  # fmt: skip
    main(["evaluate", f"run={run}"])
    summary = json.loads((run / "summary.json").read_text())
    report = json.loads((run / f"evaluation-{summary['protocol_id']}.json").read_text())
    assert report["metrics"] == pytest.approx(summary["metrics"], rel=1e-9)


def test_another_way_to_sample_has_a_file_of_its_own(tmp_path: Path) -> None:
    run = train(*MLP, "metrics=[kid]", "metrics.kid.subset_size=5", "metrics.kid.num_subsets=2",
                "evaluation.num_samples=8", outputs=tmp_path)  # fmt: skip
    main(["evaluate", f"run={run}"])
    main(["evaluate", f"run={run}", "model.sampler.num_steps=3"])
    plain, other = sorted(run.glob("evaluation-*.json"), key=lambda path: len(path.name))
    assert other.name.startswith(f"{plain.stem}-")
    assert json.loads(plain.read_text())["changed"] == {}
    report = json.loads(other.read_text())
    assert report["changed"] == {"model.sampler.num_steps": 3}
    assert report["examples"] == 104


def test_likelihood_of_held_out_images(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The reported mean is that of the images, one at a time."""
    from genlab.data.digits import Digits
    from genlab.model.bits_per_dim import bits_per_dim
    from genlab.seeding import RandomStream

    main(["evaluate", f"run={run}", "n=4", "likelihood=3"])
    printed = capsys.readouterr().out
    report = json.loads(Path(printed.split()[-1]).read_text())
    reported = report["metrics"]["bits_per_dim_estimate_val_3"]

    model, _ = load_run(config_of(run), run)
    table = Digits().table("val")
    single = [
        bits_per_dim(
            model,
            torch.from_numpy(table.images[i : i + 1]),
            {"label": torch.from_numpy(table.labels[i : i + 1])},
            RandomStream.for_samples(0, [i]),
        ).item()
        for i in (0, 250, 499)
    ]
    assert reported == pytest.approx(np.mean(single), rel=1e-4)
    assert f"{reported:.4f}" in printed
    assert report["metrics"]["nats_256_levels_estimate_val_3"] == pytest.approx(reported * 256 * np.log(2))


def test_seeds_and_resampling_stand_below_the_numbers(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["evaluate", f"run={run}", "metrics=[fid]", "n=20", "seeds=3", "bootstrap=5"])
    lines = capsys.readouterr().out.splitlines()
    report = json.loads(Path(lines[-1].split()[-1]).read_text())
    assert report["protocol"]["seed"] == [0, 1, 2]
    shown = [f"{report[key]['fid_digits64_20']:.4f}" for key in ("metrics", "deviations", "errors")]
    assert [line.split()[-1] for line in lines[1:4]] == shown
    assert [line.rsplit(maxsplit=1)[0] for line in lines[1:4]] == ["this run", "± over 3 seeds", "± by resampling"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits as a folder of PNG files, as a folder a class, and as arrays; and larger ones."""
    folder = tmp_path_factory.mktemp("files")
    for split, count in (("train", 60), ("val", 50)):
        table = Digits().table(split)  # type: ignore[arg-type]
        images, labels = table.images[:count, 0], table.labels[:count]
        np.savez(folder / f"{split}.npz", images=images, labels=labels)
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            for path in (folder / split / f"{i:03d}.png", folder / f"{split}_classes" / str(label) / f"{i:03d}.png"):
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(path)
    (folder / "large").mkdir()
    Image.new("L", (32, 32)).save(folder / "large" / "0.png")
    return folder


def evaluated(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, float]:
    main(["evaluate", *arguments])
    names, values, _ = capsys.readouterr().out.splitlines()
    return dict(zip(names.split(), map(float, values.split()[1:]), strict=True))


def test_two_folders_are_compared_without_a_model(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the same pixels from arrays, and as by hand."""
    chosen = ("metrics=[fid,kid]", "metrics/extractor=digits", "data.channels=1", f"data.cache_dir={files / 'cache'}")
    from_files = evaluated(capsys, f"images={files / 'val'}", f"reference={files / 'train'}", *chosen)
    from_arrays = evaluated(capsys, f"images={files / 'val.npz'}", f"reference={files / 'train.npz'}", *chosen)
    assert from_files == from_arrays

    fid, table = FID(), Digits().table
    for split, count in (("train", 60), ("val", 50)):
        images = torch.from_numpy(table(split).images[:count])  # type: ignore[arg-type]
        fid.update(DigitsFeatures().extract(images, frozenset({"features"})), real=split == "train")
    assert from_files["fid_digits64_50"] == pytest.approx(float(fid.compute()["fid"]), abs=1e-4)


def test_files_are_compared_with_a_data_set_and_what_was_measured_is_kept(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["evaluate", f"images={files / 'val.npz'}", "data=digits", f"out={tmp_path / 'x.json'}", "bootstrap=3"])
    report = json.loads((tmp_path / "x.json").read_text())
    table = Digits().table("val")
    examples = Examples.of(image=torch.from_numpy(table.images[:50]), label=torch.from_numpy(table.labels[:50]))
    expected = Evaluation(DigitsFeatures(), {"fid": FID()}).score(examples, Digits()).values["fid_digits64_50"]
    assert report["metrics"]["fid_digits64_50"] == pytest.approx(expected, rel=1e-5)
    assert report["metrics"]["label_accuracy_50"] > 0.95  # labels came along
    assert report["protocol"]["reference"] == "val"
    assert set(report["errors"]) >= {"fid_digits64_50", "recall_digits64_50"}
    assert report["images"] == str(files / "val.npz")


def test_labels_count_where_both_sides_name_the_same_classes(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = (
        "metrics=[label_accuracy]",
        "metrics/extractor=random",
        "data.channels=1",
        f"data.cache_dir={files / 'cache'}",
    )
    folders = [f"images={files / 'val_classes'}", f"reference={files / 'train_classes'}"]
    assert evaluated(capsys, *folders, *chosen)["label_accuracy_50"] > 0.7  # judged by 60 images
    folders[0] = f"images={files / 'val'}"
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", *folders, *chosen])
    assert stopped.value.code == 5
    assert "label_accuracy needs labels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "code", "line"),
    [
        ("", 2, "evaluate takes run=outputs/<model>-<data>/<run>, or images=<folder> and reference=<folder>."),
        ("run=a images=b", 2, "evaluate takes run=outputs/<model>-<data>/<run>, or images="),
        ("run=a reference=b", 2, "reference=b goes with images=..., not with run=..."),
        ("images=a reference=b n=5", 2, "n=5 goes with run=..., not with images=..."),
        ("images=a", 2, "images=a are compared with reference=<folder> or with data=<name>: name one of them."),
        ("images=a reference=b data=digits", 2, "images=a are compared with reference=<folder> or with data=<name>"),
        ("images=a reference={}/no metrics/extractor=random", 5, "there are no images at {}/no. Name a folder"),
        ("images={}/train.npz reference={}/val.npz metrics=[nearest_neighbor] metrics/extractor=random", 2,
         "{}/val.npz has no held-out images, which a metric needs. Leave it out of metrics=[...]"),
        ("images={}/train.npz reference={}/val.npz metrics=[bits_per_dim] metrics/extractor=random", 2,
         "metrics=bits_per_dim needs a model, and images={}/train.npz have none."),
        ("images={}/large reference={}/val.npz metrics=[fid] metrics/extractor=random", 5,
         "samples have shape (1, 32, 32), the data (1, 16, 16)."),
        ("images={}/train.npz data=python_docs metrics=[fid] metrics/extractor=random", 2,
         "images can only be compared with images; the data are text."),
        ("images=a reference=b bootstrap=-1", 2, "bootstrap must be a whole number >= 0, got -1."),
        ("images={}/train.npz reference={}/val.npz metrics=[fid] metrics/extractor=random bootstrap=1", 2,
         "num_seeds=1 must be >= 1, bootstrap=1 0 or >= 2."),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_said_in_one_line(
    typed: str, code: int, line: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", *typed.replace("{}", str(files)).split()])
    assert stopped.value.code == code
    said = capsys.readouterr().err
    assert said.startswith(f"error: {line.replace('{}', str(files))}")
    assert said.count("\n") == 1


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("choices", "advised"),
    [
        (MLP, "metrics=[fid]"),
        (("data=text_file", "data.path=t.txt", "model=transformer"), "metrics=[distinct]"),
        (("model=classifier",), ""),
    ],
)
def test_baselines_are_of_samples(
    choices: tuple[str, ...], advised: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each kind of run is told what helps it."""
    monkeypatch.chdir(tmp_path)
    Path("t.txt").write_text("some words, and some more. " * 200)
    run = train(*small(*choices), outputs=tmp_path / "outputs")
    with pytest.raises(
        ConfigError, match=r"^baselines=true: baselines (?:are|replace) .* (Choose metrics=\[|Leave it out)"
    ) as refused:
        command_line(["evaluate", f"run={run}", "metrics=[]", "baselines=true"])
    assert advised in str(refused.value)
    command_line(["evaluate", f"run={run}", *(["baselines=true", advised] if advised else ["metrics=[]"])])
    (file,) = run.glob("evaluation-*.json")
    assert bool(json.loads(file.read_text())["baselines"]) == bool(advised)
